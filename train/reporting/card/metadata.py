"""Fill the YAML head of a model card: what the Hub filters by, the metrics as `EvalResult`s, energy and carbon."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from data_scripts.records import LUMBAR_SPINE
from train.reporting.tables import readable

# Names in the Hub's index of metrics; metrics that it lacks keep their own.
METRIC_IDS = {
    "macro_f1": "f1",
    "macro_auroc": "roc_auc",
    "auroc": "roc_auc",
    "macro_average_precision": "average_precision",
    "minority_recall": "recall",
    "grade_quadratic_kappa": "cohen_kappa",
    "grade_mean_absolute_error": "mae",
    "ordinal_grade_quadratic_kappa": "cohen_kappa",
    "ordinal_grade_mean_absolute_error": "mae",
}
PIPELINE_TAG = "zero-shot-image-classification"
EMISSIONS_SOURCE = (
    "computed, not metered: power drawn × time of the updates × carbon intensity of the grid, as the run's settings "
    "give them"
)
TAGS = ("lumbarclip", "medical", "radiology", "contrastive-learning", "research-use-only")


def card_metadata(
    repo_id: str,
    *,
    pipeline_tag: str,
    license_id: str,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    is_measured_elsewhere: bool,
    base_model: str | list[str] | None,
    uses_lora: bool,
    is_adapter: bool,
    emissions: Mapping[str, Any] | None,
) -> ModelCardData:
    """Fill the metadata of a card.

    Args:
        repo_id: Hub id; the model index has its name.
        pipeline_tag: Task of the Hub.
        license_id: Licence of the weights, by its id on the Hub. For `other` the link leads to the card.
        data: As `train.data.provenance.describe_data` gives it.
        metrics: The content of `metrics.json`; None if the model was not measured, or only on data that it may have
            seen: a leaderboard shows metrics without the warning.
        is_measured_elsewhere: Whether the metrics are from rows other than the run's.
        base_model: Hub ids of the model or the towers that the weights started from.
        uses_lora: Whether the run trained low-rank adapters.
        is_adapter: Whether the repository holds only adapters.
        emissions: By the Hub's names.
    """
    measured_on = None if is_measured_elsewhere else data["hub_id"]
    anatomy = (data.get("anatomy") or LUMBAR_SPINE).replace(" ", "-")  # older runs did not record it
    tags = [*TAGS, anatomy, *(["synthetic-data"] if data["synthetic"] else []), *(["lora"] if uses_lora else [])]
    return ModelCardData(
        license=license_id,
        license_name="see-the-model-card" if license_id == "other" else None,
        license_link=f"https://huggingface.co/{repo_id}/blob/main/README.md" if license_id == "other" else None,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=pipeline_tag,
        tags=tags,
        base_model=base_model,
        datasets=data["hub_id"],
        language="en",
        model_name=repo_id.rpartition("/")[2],
        co2_eq_emissions=emissions,
        eval_results=None if metrics is None else evaluation_results(metrics, measured_on),
    )


def evaluation_results(metrics: Mapping[str, Any], hub_id: str | None) -> list[EvalResult]:
    """List every defined metric of the protocols that a card leads with; `hub_id` is that of the data, if any."""
    if "by_system" in metrics:  # of a fine-tuned classifier
        groups = {("image-classification", "Image classification"): metrics["by_system"]["fine_tuned"]}
    elif "resolution_limit" in metrics:  # of a segmentation model
        groups = {("image-segmentation", "Semantic segmentation"): metrics["metrics"]}
    else:
        groups = {
            ("image-classification", "Linear probe on frozen image features"): metrics["linear_probe"],
            (PIPELINE_TAG, "Zero-shot by prompts"): metrics["zero_shot"],
            ("information-retrieval", "Retrieval between images and reports"): {
                name: entry for name, entry in metrics["retrieval"].items() if "_chance_" not in name
            },
        }
    measured_on = metrics["dataset"]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            dataset_type=hub_id or measured_on["name"],
            dataset_name=measured_on["name"] + " (drawn, no patients)" * measured_on["synthetic"],
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


def energy_values(arguments: Mapping[str, Any], seconds: float | None) -> dict[str, str] | None:
    """Compute energy and emissions of all updates, as a card writes them; None unless time, power and grid are known.

    Example:
        >>> energy_values({"power_watts": 250.0, "carbon_intensity": 381.5}, seconds=31.2)
        {'kwh': '0.00217', 'grams': '0.827', 'watts': '250', 'grams_per_kwh': '382'}
    """
    watts, intensity = arguments.get("power_watts"), arguments.get("carbon_intensity")  # a classifier has neither
    if seconds is None or watts is None or intensity is None:
        return None
    kwh = watts * seconds / 3600 / 1000
    values = {"kwh": kwh, "grams": kwh * intensity, "watts": watts, "grams_per_kwh": intensity}
    # Three significant digits, no exponent.
    return {
        name: np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")
        for name, value in values.items()
    }
