"""The YAML head of a model card: what the Hub filters by, and the figures as `EvalResult`s."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from train.reporting.tables import readable

# What the figures are called in the Hub's index of metrics; those it does not know keep their own names.
METRIC_IDS = {
    "macro_f1": "f1",
    "macro_auroc": "roc_auc",
    "auroc": "roc_auc",
    "macro_average_precision": "average_precision",
    "minority_recall": "recall",
    "grade_quadratic_kappa": "cohen_kappa",
    "grade_mean_absolute_error": "mae",
}
# Whoever gives on what was made from data of other licences has to look at them first.
PERMISSIVE_LICENSES = {
    "apache-2.0",
    "cc-by-4.0",
    "cc0-1.0",
    "mit",
    "pddl",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
}
CODE_LICENSE = "apache-2.0"
PIPELINE_TAG = "zero-shot-image-classification"
TAGS = ("lumbarclip", "medical", "radiology", "lumbar-spine", "contrastive-learning", "research-use-only")


def card_metadata(
    model_name: str,
    *,
    pipeline_tag: str,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    base_model: str | list[str] | None,
    uses_lora: bool,
    is_adapter: bool,
) -> ModelCardData:
    """Fill the metadata of a card.

    Args:
        model_name: As in the model index.
        pipeline_tag: Task of the Hub.
        data: What the run recorded of its data set, as `train.data_description.describe_data` gives it.
        metrics: The content of `metrics.json`; None if the model was not measured, or on data that leak: leaderboards
            read figures without the warning.
        base_model: Hub ids of the model or the towers that the weights started from.
        uses_lora: Whether the run trained low-rank adapters.
        is_adapter: Whether the repository holds these alone.

    Returns:
        The metadata.
    """
    is_permissive = data["license"] in PERMISSIVE_LICENSES and data["may_be_shared"]
    tags = [*TAGS, *(["synthetic-data"] if data["synthetic"] else []), *(["lora"] if uses_lora else [])]
    return ModelCardData(
        license=CODE_LICENSE if is_permissive else "other",
        license_name=None if is_permissive else "see-the-licence-of-the-training-data",
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=pipeline_tag,
        tags=tags,
        base_model=base_model,
        datasets=data["hub_id"],
        language="en",
        model_name=model_name,
        eval_results=evaluation_results(metrics, data) if metrics is not None else None,
    )


def evaluation_results(metrics: Mapping[str, Any], data: Mapping[str, Any]) -> list[EvalResult]:
    """List every defined figure of the protocols that a card leads with.

    Args:
        metrics: The content of `metrics.json`.
        data: As for `card_metadata`.
    """
    if "figures" in metrics:  # of a fine-tuned classifier
        groups = {("image-classification", "Image classification"): metrics["figures"]["fine_tuned"]}
    else:
        groups = {
            ("image-classification", "Linear probe on frozen image features"): metrics["linear_probe"],
            (PIPELINE_TAG, "Zero-shot by prompts"): metrics["zero_shot"],
            ("information-retrieval", "Retrieval between images and reports"): {
                name: entry for name, entry in metrics["retrieval"].items() if "_chance_" not in name
            },
        }
    measured_on = metrics["dataset"]
    same_data = measured_on["name"] == data["name"]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            dataset_type=(data["hub_id"] if same_data else None) or measured_on["name"],
            dataset_name=f"{measured_on['name']} (drawn, no patients)"
            if measured_on["synthetic"]
            else measured_on["name"],
            dataset_split=measured_on["split"],
            metric_type=METRIC_IDS.get(name.partition("/")[0], name.partition("/")[0]),
            metric_name=readable(name),
            metric_value=round(entry["value"], 4),
            verified=False,
        )
        for (task_type, task_name), entries in groups.items()
        for name, entry in entries.items()
        if entry["value"] is not None
    ]
