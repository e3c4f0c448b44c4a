"""Runs and experiments of seconds, whose towers have no batch statistics and no dropout: processes cannot matter."""

SMALL = {
    "pretrained": False,
    "vision": "test_convnext",
    "text_pooling": "mean",
    "text_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "image_size": 32,
    "projection_dim": 8,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": "1e-3",  # a string: so YAML 1.1 reads 1e-3
    "log_every": 1,
    "report_to": "none",
}


def experiment_settings(dataset, out, **changed):
    """Settings of an experiment file."""
    return {
        "dataset": str(dataset),
        "out": str(out),
        "settings": SMALL,
        "systems": {
            "Ours": {"system": "lumbarclip"},
            "Plain": {"system": "clip"},
            "Untrained": {"system": "untrained"},
        },
        "baselines": ["majority"],
        "headline": "logistic/unprojected",
        "num_resamples": 20,
        **changed,
    }
