"""Grades by prompts, by image and text fused, and by the grade probe: how well, and how steadily.

An ordinal grade is told in three ways. `prompts`: the grade whose unseen wordings the image resembles most. `fusion`:
logistic regression on the image's features beside the texts that it resembles, as the head of
`LumbarCLIPForImageClassification` with `class_text_width` reads them. `probe`: the grade probe, image alone. Films of a
knee are read again as their mirror image and in a few augmented views; nothing is fitted on those.

Shapes: N rows, G grades, W wordings of a grade, D width of the shared space, V views.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import softmax
from torch import Tensor

from data_scripts.records import KNEE
from train.data.image_augmentation import vary_images
from train.data.statement_banks import grade_bank, grade_scale
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.grade_probe import grade_measures, grade_probe
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.zero_shot import prompt_ensemble
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

NUM_VIEWS = 4  # augmented as in training, drawn from fixed seeds
CLASSIFIERS = ("prompts", "fusion", "probe")
GROUP = "grade_by"  # of the names in predictions and metrics: grade_by/prompts, grade_by/prompts/flipped, …/views


@dataclass(frozen=True)
class GradeInputs:
    """What the classifiers of grades read beside the features of the splits.

    `views` hold the test rows again: first their mirror images, then augmented views; empty where left and right are
    facts. Each has `image_features`, (N, d_I), and `image_embeds`, (N, D).
    """

    grade_embeds: Sequence[Array]  # of each grade its unseen wordings, unit length; G arrays (W, D)
    inverse_temperature: float
    views: Sequence[Mapping[str, Array]] = ()


def grade_texts(grade_names: Sequence[str], anatomy: str | None, unseen: bool = False) -> dict[str, list[str]]:
    """List the sentences that state each grade of a scale: those of training, or those that no training saw."""
    scale = grade_scale(grade_names, anatomy)
    banks = {name: grade_bank(scale, name, anatomy) for name in grade_names}
    return {name: list(bank.unseen if unseen else bank.trained) for name, bank in banks.items()}


def grade_inputs(
    targets: Mapping[str, Targets],
    anatomy: str,
    embed: Callable[[list[str]], Array],
    encode_varied: Callable[..., Mapping[str, Array]],
    inverse_temperature: float,
) -> GradeInputs | None:
    """Embed the unseen wordings of each grade and, of knees, the mirror images and views of the test rows.

    Args:
        targets: By split.
        anatomy: What the images show.
        embed: Embeds N texts, unit length. Shape (N, D).
        encode_varied: Called with a name and `vary`, encodes the test rows varied; as `encode_images_once`.
        inverse_temperature: Factor on the cosine similarities, as learned.

    Returns:
        None if a split has no grade.
    """
    if not all((of_split.grades >= 0).any() for of_split in targets.values()):
        return None
    texts = grade_texts(targets["test"].grade_names, anatomy, unseen=True)
    varied: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {}
    if anatomy == KNEE:  # elsewhere left and right are facts
        varied = {"test-flipped": lambda images, rows: images.flip(-1)}
        varied |= {f"test-view{view}": partial(_view, view=view) for view in range(NUM_VIEWS)}
    return GradeInputs(
        grade_embeds=[embed(wordings) for wordings in texts.values()],
        inverse_temperature=inverse_temperature,
        views=[encode_varied(split=name, vary=vary) for name, vary in varied.items()],
    )


def _view(images: Tensor, rows: Sequence[int], view: int) -> Tensor:
    return vary_images(images, [np.random.default_rng([view, row]) for row in rows])


def grade_logits(image_embeds: Array, grade_embeds: Sequence[Array], inverse_temperature: float) -> Array:
    """Compare images, unit length, (N, D), with the mean wording of each grade. Shape (N, G).

    Example:
        >>> grade_logits(np.array([[1.0, 0.0]]), [np.array([[0.0, 2.0]]), np.array([[1.0, 0.0]])], 10.0).tolist()
        [[0.0, 10.0]]
    """
    return inverse_temperature * image_embeds @ _ensembles(grade_embeds).T


def fused_features(features: Array, similarities: Array, grade_embeds: Sequence[Array]) -> Array:
    """Put the texts that images resemble beside their features.

    Args:
        features: z_I. Shape (N, d_I).
        similarities: Logits of `grade_logits`. Shape (N, G).
        grade_embeds: Shape G times (W, D).

    Returns:
        `[z_I; softmax(S) C]`. Shape (N, d_I + D).
    """
    return np.concatenate([features, softmax(similarities, axis=1) @ _ensembles(grade_embeds)], axis=1)


def predict_grades(
    features: Mapping[str, Array], embeds: Mapping[str, Array], targets: Mapping[str, Targets], inputs: GradeInputs
) -> Predictions:
    """Let every classifier grade the test split, its mirror images and its views.

    Args:
        features: z_I by split. Shape (N, d_I).
        embeds: z'_I by split, unit length. Shape (N, D).
        targets: By split.
        inputs: Prompts and views.

    Returns:
        `grade_by/CLASSIFIER`, grade indices (N,), -1 where a row has no grade, and with views
        `grade_by/CLASSIFIER/flipped`, (N,), and `grade_by/CLASSIFIER/views`, (N, V); empty if a split has no grade.
    """
    if not all((of_split.grades >= 0).any() for of_split in targets.values()):
        return {}
    num_rows, views = len(targets["test"]), inputs.views
    # All readings of the test rows as one long test split: a probe is fitted once.
    long_test = targets["test"].select(np.tile(np.arange(num_rows), 1 + len(views)), "test")
    long_targets = {**targets, "test": long_test}
    long_features = {
        **features,
        "test": np.concatenate([features["test"], *(view["image_features"] for view in views)]),
    }
    long_embeds = {**embeds, "test": np.concatenate([embeds["test"], *(view["image_embeds"] for view in views)])}
    compare = partial(grade_logits, grade_embeds=inputs.grade_embeds, inverse_temperature=inputs.inverse_temperature)
    by_prompts = {split: compare(of_split) for split, of_split in long_embeds.items()}
    fused = {
        split: fused_features(long_features[split], by_prompts[split], inputs.grade_embeds) for split in by_prompts
    }
    read: dict[str, Callable[[], Array | None]] = {
        "prompts": lambda: by_prompts["test"].argmax(axis=1),
        "fusion": lambda: _logistic_grades(fused, long_targets),
        "probe": lambda: grade_probe(long_features, long_targets),
    }
    predictions: Predictions = {}
    for name in CLASSIFIERS:
        grades = read[name]()
        assert grades is not None
        grades = np.where(long_test.grades >= 0, grades, -1).reshape(1 + len(views), num_rows)
        predictions[f"{GROUP}/{name}"] = grades[0]
        if len(views):
            predictions |= {f"{GROUP}/{name}/flipped": grades[1], f"{GROUP}/{name}/views": grades[2:].T}
    return predictions


def _logistic_grades(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array:
    """Fit the logistic probe on graded rows; the grade of every test row. Shape (N,)."""
    graded = {split: np.flatnonzero(of_split.grades >= 0) for split, of_split in targets.items()}
    as_classes = {}
    for split, rows in graded.items():
        chosen = targets[split].select(rows, split)
        one_hot = np.eye(len(chosen.grade_names), dtype=bool)[chosen.grades]
        names = chosen.grade_names
        as_classes[split] = replace(chosen, label_names=names, labels=one_hot, exclusive=True, labelled=None)
    probabilities = logistic_probe({split: features[split][rows] for split, rows in graded.items()}, as_classes)
    grades = np.full(len(targets["test"]), -1)
    grades[graded["test"]] = probabilities.argmax(axis=1)
    return grades


def grade_classifier_measures(predictions: Predictions, targets: Targets, name: str) -> dict[str, Measure]:
    """Collect the metrics of one classifier of grades.

    Returns:
        `accuracy`, `macro_f1`, `f1/GRADE`, `quadratic_kappa`, `mean_absolute_error`, `one_off_accuracy` (at most one
        grade off) and, where views were read, `flip_agreement` (share of rows whose mirror image gets the same grade)
        and `view_variance` (of the grade over the views of a row, in squared grades). Empty without a graded row.
    """
    read = predictions[f"{GROUP}/{name}"]
    measures = grade_measures(targets, read)
    if not measures:
        return {}
    graded = (targets.grades >= 0) & (read >= 0)
    truth, read, patient_ids = targets.grades[graded], read[graded], targets.patient_ids[graded]
    num_grades = len(targets.grade_names)
    of_rows = partial(Measure, patient_ids=patient_ids)
    measures |= {
        "accuracy": of_rows(metrics.mean, [(truth == read).astype(float)]),
        "one_off_accuracy": of_rows(metrics.mean, [(np.abs(truth - read) <= 1).astype(float)]),
        "macro_f1": of_rows(partial(metrics.macro_f1, num_classes=num_grades), [truth, read]),
    }
    for index, grade in enumerate(targets.grade_names):
        reason = f"no row has the grade {grade}"
        measures[f"f1/{grade}"] = of_rows(
            partial(_f1_of, index=index, num_grades=num_grades), [truth, read], reason_if_undefined=reason
        )
    if f"{GROUP}/{name}/flipped" in predictions:
        agrees = predictions[f"{GROUP}/{name}/flipped"][graded] == read
        variance = predictions[f"{GROUP}/{name}/views"][graded].var(axis=1)
        measures["flip_agreement"] = of_rows(metrics.mean, [agrees.astype(float)])
        measures["view_variance"] = of_rows(metrics.mean, [variance])
    return measures


def _f1_of(truth: Array, predicted: Array, index: int, num_grades: int, weights: Array | None = None) -> metrics.Floats:
    return metrics.f1_by_class(truth, predicted, num_grades, weights)[..., index]


def _ensembles(grade_embeds: Sequence[Array]) -> Array:
    return np.stack([prompt_ensemble(wordings) for wordings in grade_embeds])
