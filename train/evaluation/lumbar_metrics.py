"""The metrics of `metrics.json` for predictions of any model, as a metric of Hugging Face `evaluate`.

    metric = evaluate.load("train/evaluation/lumbar_metrics.py")  # exclusive classes; for findings add "multi_label"
    metric.compute(predictions=probabilities, references=classes, patient_ids=patients, label_names=names)

Needs this package installed, but no network. `evaluate` copies only this file into its cache.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from train.evaluation.label_metrics import label_measures
from train.evaluation.statistics.bootstrap import Resampling, as_entries, estimates_of
from train.evaluation.targets import Targets

DESCRIPTION = "Metrics of a classifier of lumbar images, with 95 % intervals over resampled patients, not images."
INPUTS = """
Args:
    predictions: Probabilities of the K labels for each image. With `single_label`, they sum to 1.
    references: With `single_label`, the index of the class; with `multi_label`, K values of 0 or 1.
    patient_ids: Patient of each image. Images of one patient are drawn together.
    label_names: Names of the K labels. `No Finding` is the absence of findings; of two classes, the other is positive.
    threshold: With `multi_label`, the probability above which a label counts as present. Default: 0.5.
    num_resamples: Bootstrap resamples of patients. Default: 1000.
    seed: Seed of the resamples. Default: 0.
Returns:
    For each metric, such as `macro_f1`, a dict with `value`, the interval `low` and `high`, and the images `n`. What
    the rows leave undefined is None, with the `reason`.
Example:
    >>> metric = evaluate.load("train/evaluation/lumbar_metrics.py", "single_label")
    >>> metrics = metric.compute(
    ...     predictions=[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]],
    ...     references=[0, 0, 1],
    ...     patient_ids=["a", "b", "b"],
    ...     label_names=["LBP", "No Finding"],
    ... )
    >>> metrics["balanced_accuracy"]["value"]
    0.75
"""
CITATION = "LumbarCLIP, arXiv 2509.20813"
REFERENCES = {
    "default": datasets.Value("int64"),  # what `evaluate` calls no configuration: single_label
    "single_label": datasets.Value("int64"),
    "multi_label": datasets.Sequence(datasets.Value("int64")),
}


class LumbarMetrics(evaluate.Metric):
    """Metrics of one split; `config_name` says whether the labels exclude each other."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in REFERENCES:
            raise ValueError(
                f"The configuration must be single_label (the default) or multi_label; got {self.config_name!r}."
            )
        features = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": REFERENCES[self.config_name],
            "patient_ids": datasets.Value("string"),
        }
        texts = {"description": DESCRIPTION, "citation": CITATION, "inputs_description": INPUTS}
        return evaluate.MetricInfo(**texts, features=datasets.Features(features))

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[Any],
        patient_ids: list[str],
        label_names: list[str],
        threshold: float = 0.5,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, dict[str, Any]]:
        exclusive = self.config_name != "multi_label"
        probabilities = np.array(predictions)
        check_probabilities(probabilities, len(label_names), exclusive)
        targets = Targets(
            split="measured",
            label_names=tuple(label_names),
            labels=multi_hot(references, len(label_names), exclusive),
            exclusive=exclusive,
            grade_names=(),
            grades=np.full(len(references), -1),
            patient_ids=np.array(patient_ids),
        )
        measures = label_measures(targets, probabilities, said=probabilities > threshold)
        return as_entries(estimates_of(measures, Resampling(num_resamples, seed)))


def check_probabilities(probabilities: np.ndarray, num_labels: int, exclusive: bool) -> None:
    """Check that there is a probability for each label, not a logit.

    Raises:
        ValueError: If the shape is not (N, K), a value is outside [0, 1], or a row of exclusive labels does not sum to
            1.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != num_labels:
        raise ValueError(
            f"predictions need {num_labels} probabilities for each image, one for each of label_names; got shape "
            f"{probabilities.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("predictions are probabilities in [0, 1]; apply a softmax or sigmoid to logits first.")
    if exclusive and not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise ValueError("predictions of single_label sum to 1 for each image; for findings take multi_label.")


def multi_hot(references: list[Any], num_labels: int, exclusive: bool) -> np.ndarray:
    """Turn class indices, or rows of 0 and 1, into a boolean matrix.

    Raises:
        ValueError: If a reference is not a class, or not a row of 0 and 1 for each label.

    Example:
        >>> multi_hot([1, 0], 2, exclusive=True).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    allowed = range(num_labels) if exclusive else (0, 1)
    array = np.array(references)
    if not np.isin(array, allowed).all() or (not exclusive and array.shape[1:] != (num_labels,)):
        kind = f"class indices below {num_labels}" if exclusive else f"rows of {num_labels} zeros and ones"
        raise ValueError(f"references must be {kind}; got values {np.unique(array)[:10]} in shape {array.shape}.")
    return np.eye(num_labels, dtype=bool)[array] if exclusive else array.astype(bool)
