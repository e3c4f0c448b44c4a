"""Fit the scope of a checkpoint: what it was trained on, and how unlike that an image may be.

The distance of an image is the Mahalanobis distance of its features z_I from those of the training images. Validation
patients, whom the weights have not seen, say how far images of the same kind lie.

Shapes: N images, d_I width of the vision tower, R directions.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from scipy.stats import binomtest
from sklearn.covariance import ledoit_wolf

from modeling_lumbarclip.configuration_lumbarclip import FeatureCheck, Scope
from modeling_lumbarclip.scope_lumbarclip import UNKNOWN, ScopeStatistics, evened, scope_in_words
from train.evaluation.statistics.bootstrap import Estimate
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.minima import PATIENTS_FOR_SCOPE, counted

# Counted by images: the share of those of new patients like those of the training that may be held back. An aim, not a
# promise: `threshold_of` keeps it for images drawn one by one, and those of a patient resemble each other.
FALSE_ALARM_RATE = 0.05
MAX_IMAGES = 20_000  # of training that are encoded; their covariance is known well enough
MAX_DIRECTIONS = 256  # 2 MB for a tower of width 2048
MIN_SHARE = 0.01  # of the training images that make a plane or a sequence part of the scope

Encode = Callable[[str, Dataset], Array]  # split and rows to z_I, (N, d_I)


def fit_scope(model: Any, splits: dict[str, Dataset], anatomy: str | None, encode: Encode) -> None:
    """Fit the scope of a trained model on its `train` and `validation` rows, and let the model keep it.

    Args:
        model: Any of ours, with its final weights.
        splits: The rows that it was trained on, and those of the validation patients.
        anatomy: What the images show; None if unknown.
        encode: Computes the features of rows, without augmentation.
    """
    scope = describe_rows(splits["train"], anatomy)
    patients = splits["validation"]["patient_id"][:]
    if problem := _too_few(patients):
        model.set_scope(Scope(**scope, no_check=problem))
        return
    train = splits["train"]
    if len(train) > MAX_IMAGES:
        train = train.select(np.sort(np.random.default_rng(0).permutation(len(train))[:MAX_IMAGES]))
    features = {"train": encode("train", train), "validation": encode("validation", splits["validation"])}
    if wrong := [name for name, of_split in features.items() if not np.isfinite(of_split).all()]:
        model.set_scope(Scope(**scope, no_check=f"the features of the {wrong[0]} images contain NaN or Inf"))
        return
    statistics = {name: torch.from_numpy(value) for name, value in fit_statistics(features["train"]).items()}
    distances = _distances(statistics, features["validation"])
    threshold = threshold_of(distances)
    if not 0 < threshold < math.inf:
        model.set_scope(Scope(**scope, no_check="the tower gives all validation images the same features"))
        return
    check = FeatureCheck(
        threshold=threshold,
        false_alarm_rate=FALSE_ALARM_RATE,
        num_directions=len(statistics["directions"]),
        num_images=len(distances),
        num_patients=len(set(patients)),
    )
    model.set_scope(Scope(**scope, check=check), statistics)


def describe_rows(rows: Dataset, anatomy: str | None) -> dict[str, Any]:
    """Say what the rows of a training split show: the fields of `Scope` without its check."""
    return {
        "planes": _common_names(rows, "plane"),
        "sequences": _common_names(rows, "sequence"),
        "anatomy": anatomy,
        "is_synthetic": all(source.startswith("synthetic") for source in rows["source"]),
        "num_patients": len(set(rows["patient_id"])),
    }


def fit_statistics(features: Array) -> dict[str, Array]:
    """Fit the `mean`, `directions` and `variances` of `ScopeStatistics` on features z_I (N, d_I).

    The covariance is shrunk towards a multiple of the identity; of its directions, the R of the largest variance are
    kept, and the others share their mean variance.

    Source:
        Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004; Lee et al., A
        simple unified framework for detecting out-of-distribution samples, 2018, with one class.
    """
    values = evened(torch.from_numpy(features).double()).numpy()
    covariance, _ = ledoit_wolf(values)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances[::-1], 1e-9 * variances[-1] or 1.0)  # all are 0 if the features are equal
    num_directions = min(MAX_DIRECTIONS, len(variances) - 1)
    fitted = {
        "mean": values.mean(axis=0),
        "directions": directions.T[::-1][:num_directions],
        "variances": np.append(variances[:num_directions], variances[num_directions:].mean()),
    }
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in fitted.items()}


def threshold_of(distances: Floats) -> float:
    """Return the distance that a further image, drawn like these, exceeds with probability `FALSE_ALARM_RATE` at most.

    Source:
        Angelopoulos & Bates, A Gentle Introduction to Conformal Prediction, 2021, section 1.

    Example:
        >>> threshold_of(np.arange(1.0, 20.0))
        19.0
    """
    return float(np.sort(distances)[math.ceil((1 - FALSE_ALARM_RATE) * (len(distances) + 1)) - 1])


def measure_scope(model: Any, features: Array, patient_ids: Array) -> dict[str, Any] | None:
    """Measure the false alarms of a scope on images like those of the training, of patients it was not fitted on.

    Args:
        model: With its scope.
        features: Their z_I. Shape (N, d_I).
        patient_ids: Of each. Shape (N,).

    Returns:
        `in_words`, what the model was trained on; `no_check`, why there is no check of features; `held_back`, the share
        of these images, with its interval, or None without a check; with one, also the `aim`, and the number of
        patients that set the threshold and of those measured. None without a scope.
    """
    if model.config.scope is None:
        return None
    scope = Scope.from_dict(model.config.scope)
    described = {"in_words": scope_in_words(scope), "no_check": scope.no_check, "held_back": None}
    if scope.check is None:
        return described
    reasons = model.scope_reasons(torch.from_numpy(features).to(model.device))
    return described | {
        "held_back": held_back_share([reason is not None for reason in reasons], patient_ids).as_dict(),
        "aim": scope.check.false_alarm_rate,
        "num_validation_patients": scope.check.num_patients,
        "num_patients": len(set(patient_ids)),
    }


def held_back_share(is_held: Sequence[bool], sources: Sequence[str] | Array) -> Estimate:
    """Estimate the share of images that are held back; `sources` name the patient or file of each image.

    The interval is Wilson's for as many images as there are sources, since the images of one are alike. A bootstrap of
    none, or of all, would give an interval of width 0.

    Example:
        >>> print(held_back_share([False] * 60, [str(image // 3) for image in range(60)]))
        0.000 [0.000, 0.161]
    """
    share, num_sources = float(np.mean(is_held)), len(set(sources))
    low, high = binomtest(round(share * num_sources), num_sources).proportion_ci(method="wilson")
    return Estimate(share, float(min(low, share)), float(max(high, share)), n=len(is_held))


def _too_few(patients: Sequence[str]) -> str:
    """Say why the validation patients cannot set a threshold; empty if they can."""
    needed_images = math.ceil(1 / FALSE_ALARM_RATE) - 1
    num_patients = len(set(patients))
    if num_patients >= PATIENTS_FOR_SCOPE and len(patients) >= needed_images:
        return ""
    have = f"{counted(len(patients), 'image')} of {counted(num_patients, 'validation patient')}"
    return f"{have}; the check needs {needed_images} images of {PATIENTS_FOR_SCOPE} patients"


def _distances(statistics: dict[str, torch.Tensor], features: Array) -> Floats:
    fitted = ScopeStatistics(features.shape[1], len(statistics["directions"]))
    fitted.load(statistics)
    return fitted(torch.from_numpy(features)).double().numpy()


def _common_names(rows: Dataset, column: str) -> list[str]:
    """Name the known values of a column that are not rare, the commonest first; none if most are unknown."""
    feature = rows.features.get(column)
    if not isinstance(feature, ClassLabel):
        return []
    counts = Counter(map(feature.int2str, rows[column][:]))
    if counts[UNKNOWN] > len(rows) / 2:
        return []
    return [name for name, count in counts.most_common() if name != UNKNOWN and count >= MIN_SHARE * len(rows)]
