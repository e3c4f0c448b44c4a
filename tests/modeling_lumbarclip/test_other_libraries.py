"""transformers.Trainer and sentence-transformers work as `train/README.md` shows."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from modeling_lumbarclip import LumbarCLIPForImageClassification
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem, weights_digests
from tests.without_package import last_line

PROJECT = Path(__file__).parents[2]
QUESTION = {
    "label": None,
    "choices": ["LBP", "No Finding"],
    "prompts": [["disc bulge."], ["normal disc."]],
    "temperature": 0.5,
    "score_thresholds": [0.0, 1.0],
}


@pytest.fixture
def project(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, monkeypatch):
    """A folder with a calibrated checkpoint and a dataset at the paths of the page, where the test runs."""
    fitted_on = {"weights": weights_digests(tiny_model)}
    tiny_model.config.calibration = {"questions": [QUESTION], "target_coverage": 0.9, "fitted_on": fitted_on}
    tiny_model.save_pretrained(tmp_path / "runs/demo/checkpoint")
    tiny_processor.save_pretrained(tmp_path / "runs/demo/checkpoint")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/synthetic").symlink_to(tiny_dataset_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(words):
    blocks = (PROJECT / "train/README.md").read_text().split("```python\n")[1:]
    (block,) = (block.split("```")[0] for block in blocks if words in block)
    return block


RELOADED = """
import json, sys
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
try:
    import modeling_lumbarclip
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    trust = {"trust_remote_code": True}
model = AutoModel.from_pretrained(sys.argv[1], **trust)
processor = AutoProcessor.from_pretrained(sys.argv[1], **trust)
inputs = processor(images=Image.linear_gradient("L"), text=["disc bulge."], return_tensors="pt")
with torch.no_grad():
    embeds = model(**inputs).image_embeds[0].tolist()
ask = pipeline("zero-shot-image-classification", model=sys.argv[1], **trust)
entries = ask(Image.linear_gradient("L"), candidate_labels=["disc bulge", "normal disc"])
print(json.dumps({"calibration": model.config.calibration, "embeds": embeds, "entries": entries}))
"""


def test_trainer_trains_a_checkpoint_as_the_page_shows(project):
    shown = {}
    exec(example("Trainer("), shown)
    history = shown["trainer"].state.log_history
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(losses) == 2
    best = shown["trainer"].evaluate()["eval_loss"]
    assert best == pytest.approx(min(losses), abs=1e-5)
    assert shown["model"].config.calibration is not None and "other weights" in calibration_problem(shown["model"])
    found = json.loads(last_line(RELOADED, project / "runs/trainer/best", folder=project))
    assert found["calibration"] is None
    assert [set(entry) for entry in found["entries"]] == [{"score", "label"}] * 2
    inputs = shown["processor"](images=Image.linear_gradient("L"), text=["disc bulge."], return_tensors="pt")
    trained = shown["model"].eval().cpu()
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["embeds"]), trained(**inputs).image_embeds[0])


@pytest.mark.parametrize("classes", [False, True], ids=["reports", "reports and classes"])
def test_trainer_stops_early_and_keeps_the_best(tiny_model, tiny_processor, tiny_inputs, tmp_path, classes):
    rows = [
        {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask, "classes": torch.tensor([1.0, index % 2])}
        for index, (pixels, ids, mask) in enumerate(
            zip(tiny_inputs.pixel_values, tiny_inputs.input_ids, tiny_inputs.attention_mask, strict=True)
        )
    ]

    def collate(rows):
        names = [name for name in rows[0] if classes or name != "classes"]
        return {name: torch.stack([row[name] for row in rows]) for name in names} | {"return_loss": True}

    args = TrainingArguments(
        str(tmp_path),
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        save_total_limit=2,
        max_steps=20,
        learning_rate=30.0,  # the loss rises from the first step
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=4,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        report_to="none",
        use_cpu=True,
    )
    stop = EarlyStoppingCallback(2)
    trainer = Trainer(tiny_model, args, collate, rows, rows, processing_class=tiny_processor, callbacks=[stop])
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 3 and trainer.state.global_step == 3
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_trainer_trains_a_classifier(tiny_config, tiny_processor, tiny_inputs, tmp_path):
    tiny_config.id2label = {0: "LBP", 1: "No Finding"}
    torch.manual_seed(0)
    model = LumbarCLIPForImageClassification(tiny_config)
    model.config.class_temperatures = [3.0, 3.0]
    model.config.class_temperatures_fitted_on = {"weights": weights_digests(model)}
    rows = [{"pixel_values": pixels, "labels": index % 2} for index, pixels in enumerate(tiny_inputs.pixel_values)]
    args = TrainingArguments(str(tmp_path / "run"), max_steps=2, report_to="none", use_cpu=True, save_strategy="no")
    trainer = Trainer(model, args, train_dataset=rows, eval_dataset=rows)
    before = copy.deepcopy(model).eval()
    calibrated = trainer.evaluate()["eval_loss"]
    targets = torch.tensor([row["labels"] for row in rows])
    with torch.no_grad():
        raw = before(tiny_inputs.pixel_values).logits * 3
    assert calibrated == pytest.approx(torch.nn.functional.cross_entropy(raw / 3, targets).item(), rel=1e-5)
    trainer.train()
    assert "eval_loss" in trainer.evaluate()
    trainer.save_model(str(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved/config.json").read_text())["class_temperatures"] is None


def test_sentence_transformers_searches_as_the_page_shows(project, tiny_model, tiny_processor):
    pytest.importorskip("sentence_transformers")
    deep = Image.fromarray(np.asarray(Image.linear_gradient("L")).astype(np.uint16) * 16)
    deep.save("slice.png")
    shown = {}
    exec(example("SentenceTransformer("), shown)
    with torch.no_grad():
        images = tiny_model.get_image_features(**tiny_processor(images=deep, return_tensors="pt")).pooler_output
        texts = tiny_processor(text=["Disc bulge at L4/L5.", "Normal disc."], return_tensors="pt")
        texts = tiny_model.get_text_features(**texts).pooler_output
    np.testing.assert_allclose(shown["images"], images, atol=1e-5)
    np.testing.assert_allclose(shown["reports"], texts, atol=1e-5)
    torch.testing.assert_close(shown["encoder"].similarity(shown["images"], shown["reports"]), images @ texts.T)
    long = shown["encoder"].encode(["disc bulge. " * 200, "disc"])  # truncated as in training
    assert np.isfinite(long).all()
