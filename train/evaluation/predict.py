"""Let every protocol predict the test rows of a dataset from one model, or from features that no run has learned.

A protocol that reads features is a probe: a function of features and targets by split that returns the probability of
each label for the test rows, shape (N, K). A new one needs a file in `protocols/` and an entry in `PROBES`; it is then
predicted from both spaces of features, kept, measured and reported. `predict` calls what needs more than features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from datasets import Dataset, DatasetDict
from scipy.special import softmax

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.data.batch_sampler import EACH_PAIR_ONCE, TrainingSet
from train.evaluation.features import encode_images_once, encode_texts
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.attention_pooling import attention_pooling
from train.evaluation.protocols.boosting_probe import boosting_grade_probe, boosting_probe
from train.evaluation.protocols.calibration import Calibration, apply_calibration, fit_calibration, warn_of_reasons
from train.evaluation.protocols.decision_threshold import threshold_decisions
from train.evaluation.protocols.grade_classifiers import GradeInputs, grade_inputs, predict_grades
from train.evaluation.protocols.grade_probe import grade_probe
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.ordinal_probe import ordinal_probe
from train.evaluation.protocols.paper_probe import PaperProbe, paper_probe
from train.evaluation.protocols.probe_inputs import check_features, rows_to_learn_from
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.protocols.retrieval import retrieval_predictions
from train.evaluation.protocols.wordings import unseen_predictions
from train.evaluation.protocols.zero_shot import first_prompt_predictions, zero_shot_logits, zero_shot_predictions
from train.evaluation.questions import as_label_probabilities, logits_as_questions, unseen_wordings
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import SPLITS, Targets, have_labels

Features: TypeAlias = Mapping[str, Array]  # by split, shape (N, D)
TargetsBySplit: TypeAlias = Mapping[str, Targets]

UNPROJECTED, PROJECTED = "unprojected", "projected"
PROBE_SEED = 0  # the same for all runs: seeds of an experiment are those of pretraining

GRADE_PROBES: Mapping[str, Callable[[Features, TargetsBySplit], Array | None]] = {
    "grade": grade_probe,
    "ordinal_grade": ordinal_probe,
}
PROBES: Mapping[str, Callable[[Features, TargetsBySplit], Array]] = {
    "paper": lambda features, targets: paper_probe(features, targets, seed=PROBE_SEED).probabilities["test"],
    "logistic": logistic_probe,
    "knn": nearest_neighbour_probe,
}
BOOSTED_GRADES = {"grade": boosting_grade_probe}


@dataclass(frozen=True)
class Encoded:
    """The embeddings that a model computes for a dataset. D: width of the shared space."""

    # by space, by split: z_I (`unprojected`), (N, d_I); z'_I (`projected`), unit length, (N, D)
    features: Mapping[str, Features]
    texts: list[str]  # reports of the test rows
    text_embeds: Array  # theirs, unit length; (N, D)
    stated: Mapping[str, Array]  # by label, embeddings of the prompts that state it; (prompts, D)
    denied: Mapping[str, Array]  # by label, embeddings of the prompts that deny it; (prompts, D)
    inverse_temperature: float  # factor on the cosine similarities, as learned
    # By label, embeddings of the unseen wordings of its bank that state and deny it; (wordings, D)
    unseen_stated: Mapping[str, Array] = field(default_factory=dict)
    unseen_denied: Mapping[str, Array] = field(default_factory=dict)
    grades: GradeInputs | None = None  # prompts and views for `predict_grades`; None: nothing is graded

    @property
    def image_embeds(self) -> Array:
        """Embeddings of the test rows, unit length. Shape (N, D)."""
        return self.features[PROJECTED]["test"]


def encode(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict | Mapping[str, Dataset],
    targets: TargetsBySplit,
    *,
    batch_size: int,
    cache_dir: Path | None = None,
) -> Encoded:
    """Encode the images of the three splits, the reports of the test split and the prompts, each once.

    The model is left unchanged, and only the targets' label names are read. `cache_dir` keeps encoded splits.
    """
    images = {
        split: encode_images_once(model, processor, dataset[split], split, batch_size=batch_size, cache_dir=cache_dir)
        for split in SPLITS
    }
    embed = partial(encode_texts, model, processor, batch_size=batch_size)
    varied = partial(encode_images_once, model, processor, dataset["test"], batch_size=batch_size, cache_dir=cache_dir)
    names, texts = targets["test"].label_names, list(dataset["test"]["report"][:])
    unseen = unseen_wordings(processor, names)
    return Encoded(
        features={
            UNPROJECTED: {split: of_split["image_features"] for split, of_split in images.items()},
            PROJECTED: {split: of_split["image_embeds"] for split, of_split in images.items()},
        },
        texts=texts,
        text_embeds=embed(texts, description="Reports, test"),
        stated={name: embed(processor.class_prompt_texts(name)) for name in names},
        denied={name: embed(processor.absent_class_prompt_texts(name)) for name in names},
        inverse_temperature=model.inverse_temperature.item(),
        grades=grade_inputs(targets, processor.anatomy, embed, varied, model.inverse_temperature.item()),
        unseen_stated={name: embed(wordings["present"]) for name, wordings in unseen.items()},
        unseen_denied={name: embed(wordings["absent"]) for name, wordings in unseen.items()},
    )


def predict(
    encoded: Encoded,
    targets: TargetsBySplit,
    rows: Array,
    fold: int = 0,
    training_set: TrainingSet = EACH_PAIR_ONCE,
) -> Predictions:
    """Let every protocol predict the test split, without looking at the truth of test rows.

    Args:
        encoded: The embeddings of the dataset.
        targets: By split.
        rows: Index of each test row in the whole dataset. Shape (N,).
        fold: Number of the fold; 0 where there is one split.
        training_set: How often pretraining repeated which rows; the paper's probe does the same.

    Raises:
        ValueError: If a feature is not finite: the run has diverged.
    """
    check_features(encoded.features[UNPROJECTED], targets)
    predictions = {"row": rows, "fold": np.full(len(rows), fold)}
    if have_labels(targets.values()):
        predictions |= predict_labels(encoded, targets, training_set)
    for space, by_split in encoded.features.items():
        predictions |= grade_predictions(by_split, targets, space)
    if encoded.grades is not None:
        features, embeds = (encoded.features[space] for space in (UNPROJECTED, PROJECTED))
        predictions |= predict_grades(features, embeds, targets, encoded.grades)
    return predictions | retrieval_predictions(encoded.image_embeds, encoded.texts, encoded.text_embeds)


def predict_labels(encoded: Encoded, targets: TargetsBySplit, training_set: TrainingSet) -> Predictions:
    """Let every protocol that needs labels predict the test split; it learns from the labelled rows only."""
    learned_from = {space: rows_to_learn_from(by_split, targets)[0] for space, by_split in encoded.features.items()}
    features, targets = rows_to_learn_from(encoded.features[UNPROJECTED], targets)
    test = targets["test"]
    predictions: Predictions = {}
    papers = {
        space: paper_probe(of_space, targets, training_set=training_set, seed=PROBE_SEED)
        for space, of_space in learned_from.items()
    }
    paper = papers[UNPROJECTED]
    for space, by_split in learned_from.items():
        fitted = {"paper": papers[space].probabilities["test"]}
        predictions |= probe_predictions(by_split, targets, space, fitted=fitted)
    predictions |= imbalance_corrections(features, targets, paper, training_set)
    predictions["patient_attention"] = attention_pooling(features, targets, PROBE_SEED)

    prompts = encoded.stated, encoded.denied, encoded.inverse_temperature, test
    for of_prompts in (zero_shot_predictions, first_prompt_predictions):
        predictions |= of_prompts(encoded.image_embeds, *prompts)
    if encoded.unseen_stated:
        unseen = encoded.unseen_stated, encoded.unseen_denied, encoded.inverse_temperature, test
        predictions |= unseen_predictions(encoded.image_embeds, *unseen)
    by_prompts = {split: zero_shot_logits(learned_from[PROJECTED][split], *prompts) for split in paper.logits}
    logits = {f"paper/{UNPROJECTED}": paper.logits, "zero_shot": by_prompts}
    calibrations = {name: fit_calibration(of["validation"], targets["validation"]) for name, of in logits.items()}
    warn_of_reasons(calibrations.values())
    for name, calibration in calibrations.items():
        predictions |= calibrated_predictions(name, calibration, logits[name]["test"], test)
    return predictions


def predict_baselines(
    features: Mapping[str, Features], targets: TargetsBySplit, probes: Sequence[str] = tuple(PROBES)
) -> Predictions:
    """Let probes predict the test split from the features of each baseline.

    Textures are read by boosted trees, whichever the probe.

    Returns:
        `baselines/NAME/probe/PROBE/unprojected` with labels; with grades `baselines/NAME/grade/unprojected` and, except
        of textures, `baselines/NAME/ordinal_grade/unprojected`.
    """
    predictions: Predictions = {}
    for baseline, by_split in features.items():
        boosted = baseline == "texture"
        of_baseline = grade_predictions(by_split, targets, UNPROJECTED, BOOSTED_GRADES if boosted else None)
        if have_labels(targets.values()):
            learned_from = rows_to_learn_from(by_split, targets)
            fitted = dict.fromkeys(probes, boosting_probe(*learned_from)) if boosted else None
            of_baseline |= probe_predictions(*learned_from, UNPROJECTED, probes, fitted)
        predictions |= {f"baselines/{baseline}/{name}": array for name, array in of_baseline.items()}
    return predictions


def predict_majority(targets: TargetsBySplit) -> Predictions:
    """Predict every row by how frequent labels and grades are in training, whichever the probe.

    On constant features, 50 epochs of the paper's probe would hardly move its random initial bias, which may favour the
    rarer class.

    Returns:
        What `predict_baselines` returns, for the baseline `majority`.
    """
    train, test = targets["train"], targets["test"]
    predictions = {}
    if have_labels(targets.values()):
        frequencies = np.tile(train.labels[train.is_labelled].mean(0), (len(test), 1))
        predictions = {f"baselines/majority/probe/{probe}/{UNPROJECTED}": frequencies for probe in PROBES}
    if all((of_split.grades >= 0).any() for of_split in targets.values()):
        commonest = np.bincount(train.grades[train.grades >= 0]).argmax()
        grades = np.where(test.grades >= 0, commonest, -1)
        predictions |= {f"baselines/majority/{probe}/{UNPROJECTED}": grades for probe in GRADE_PROBES}
    return predictions


def probe_predictions(
    features: Features,
    targets: TargetsBySplit,
    space: str,
    probes: Sequence[str] = tuple(PROBES),
    fitted: Predictions | None = None,
) -> Predictions:
    """Fit probes on one space of features, and let them predict the test split.

    Args:
        features: By split, shape (N, D).
        targets: By split.
        space: Name of the features.
        probes: Names of the probes.
        fitted: Predictions that are known already, by probe.

    Returns:
        `probe/PROBE/SPACE`.
    """
    known = fitted or {}
    return {
        f"probe/{name}/{space}": known[name] if name in known else PROBES[name](features, targets) for name in probes
    }


def grade_predictions(
    features: Features,
    targets: TargetsBySplit,
    space: str,
    probes: Mapping[str, Callable[[Features, TargetsBySplit], Array | None]] | None = None,
) -> Predictions:
    """Fit the probes of the grade, by default `GRADE_PROBES`: `PROBE/SPACE`; empty if a split has no grades."""
    predicted = {f"{name}/{space}": probe(features, targets) for name, probe in (probes or GRADE_PROBES).items()}
    return {name: grades for name, grades in predicted.items() if grades is not None}


def imbalance_corrections(
    features: Features, targets: TargetsBySplit, paper: PaperProbe, training_set: TrainingSet
) -> Predictions:
    """Predict by the paper's probe with each correction of its bias to frequent classes.

    Returns:
        `probe/CORRECTION/unprojected` and `decision/paper_threshold/unprojected`.
    """
    predictions = {
        f"probe/{name}/{UNPROJECTED}": fitted.probabilities["test"]
        for name, loss in PROBE_LOSSES.items()
        if name != "paper" and (fitted := paper_probe(features, targets, loss, training_set, seed=PROBE_SEED))
    }
    return predictions | {f"decision/paper_threshold/{UNPROJECTED}": threshold_decisions(paper.probabilities, targets)}


def calibrated_predictions(name: str, calibration: Calibration, logits: Array, test: Targets) -> Predictions:
    """Predict the test rows by a classifier before and after calibration.

    Args:
        name: Name of the classifier.
        calibration: Fitted on validation rows.
        logits: Those of the test rows. Shape (N, K).
        test: The rows; their truth is not used.

    Returns:
        `uncalibrated/NAME`, `calibrated/NAME`, `sets/NAME` and `marginal_sets/NAME`.
    """
    calibrated, sets, marginal_sets = apply_calibration(calibration, logits, test)
    uncalibrated = softmax(logits_as_questions(logits, test), axis=2)
    return {
        f"uncalibrated/{name}": as_label_probabilities(uncalibrated, test),
        f"calibrated/{name}": calibrated,
        f"sets/{name}": sets.reshape(len(test), -1),
        f"marginal_sets/{name}": marginal_sets.reshape(len(test), -1),
    }
