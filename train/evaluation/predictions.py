"""What the models of one run answer for the rows of a test split: what a study keeps, and measures later.

Answers are arrays with one entry a row, by name. N rows, K labels:

    row, fold                              index in the whole data set; the fold whose models answered     (N,)
    probe/PROBE/FEATURES                   probability of each label; NaN where it could not be learned    (N, K)
    decision/paper_threshold/unprojected   1 where the label is answered, by thresholds of validation rows (N, K)
    calibrated/paper/unprojected           probability of each label, temperature fitted on validation     (N, K)
    patient_attention                      probability for the row's patient, by attention pooling         (N, K)
    grade/FEATURES                         predicted grade; -1 where the row has none                      (N,)
    zero_shot                              probability of each label, by prompts                           (N, K)
    retrieval/HITS/DIRECTION/rank, num_hits, num_candidates                                                (N,)

PROBE is `paper`, `logistic` or `knn`, or one of the two remedies for rare classes, `paper_balanced` and
`paper_logit_adjusted`. FEATURES: `unprojected` is z_I, what downstream tasks use; `projected` is z'_I of the shared
space. The remedies, thresholds, temperatures and attention are answered on z_I alone.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
from datasets import Dataset
from scipy.special import expit, softmax

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.evaluation.features import encode_images, encode_texts
from train.evaluation.protocols.attention_pooling import attention_pooling
from train.evaluation.protocols.calibration import apply_calibration, fit_calibration
from train.evaluation.protocols.decision_threshold import threshold_decisions
from train.evaluation.protocols.grade_probe import grade_probe
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.paper_probe import PaperProbe, paper_probe
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.protocols.retrieval import RANKINGS, rank_queries
from train.evaluation.protocols.zero_shot import prompt_ensemble, zero_shot_scores
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import SPLITS, Targets, read_targets

Answers: TypeAlias = dict[str, Array]
Features: TypeAlias = Mapping[str, Array]

UNPROJECTED, PROJECTED = "unprojected", "projected"
PROBES = ("paper", "logistic", "knn")
PROBE_SEED = 0  # the same for all runs: seeds of a study are those of pretraining
# Only answers are kept; intervals are drawn when runs are compared.
NO_INTERVALS = Resampling(num_resamples=1)


def answer_run(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: Mapping[str, Dataset],
    rows: Array,
    fold: int,
    *,
    batch_size: int,
) -> Answers:
    """Encode the three splits once, and let every protocol answer for the test split.

    Args:
        model: A LumbarCLIP model; left as it was.
        processor: Its processor.
        dataset: Splits `train`, `validation` and `test`.
        rows: Index of each test row in the whole data set. Shape (N,).
        fold: Number of the fold; 0 where there is one split.
        batch_size: Images or texts a forward pass.

    Returns:
        The answers.

    Raises:
        ValueError: If a split is missing or empty, or a feature is not finite: the run has diverged.
    """
    targets = read_targets(dataset)
    encoded = {
        split: encode_images(model, processor, dataset[split], batch_size=batch_size, description=f"Images, {split}")
        for split in SPLITS
    }
    features = {
        UNPROJECTED: {split: arrays["image_features"] for split, arrays in encoded.items()},
        PROJECTED: {split: arrays["image_embeds"] for split, arrays in encoded.items()},
    }
    answers = {"row": rows, "fold": np.full(len(rows), fold)}
    paper = {space: paper_probe(by_split, targets, seed=PROBE_SEED) for space, by_split in features.items()}
    for space, by_split in features.items():
        answers |= label_answers(by_split, targets, space, paper[space]) | grade_answers(by_split, targets, space)
    answers |= remedy_answers(features[UNPROJECTED], targets, paper[UNPROJECTED])
    answers |= calibrated_answers(targets, paper[UNPROJECTED])
    answers["patient_attention"] = attention_pooling(features[UNPROJECTED], targets, PROBE_SEED)
    encode = partial(encode_texts, model, processor, batch_size=batch_size)
    image_embeds = encoded["test"]["image_embeds"]
    answers["zero_shot"] = prompt_probabilities(model, processor, image_embeds, targets["test"], encode)
    texts = list(dataset["test"]["report"][:])
    text_embeds = encode(texts, description="Reports, test")
    for hits in RANKINGS:
        for direction, asked in rank_queries(image_embeds, texts, text_embeds, hits).items():
            start = f"retrieval/{hits}/{direction}"
            answers |= {f"{start}/rank": asked.ranks, f"{start}/num_hits": asked.num_hits}
            answers[f"{start}/num_candidates"] = asked.num_candidates
    return answers


def baseline_answers(
    baselines: Mapping[str, Features], targets: Mapping[str, Targets], rows: Array, fold: int
) -> dict[str, Answers]:
    """Let the same probes answer from features that no run has learned, and from none at all.

    Args:
        baselines: Features by split, shape (N, D), by baseline.
        targets: By split.
        rows: Index of each test row in the whole data set. Shape (N,).
        fold: Number of the fold.

    Returns:
        The answers of each baseline and of `majority`; probes and grades alone.
    """
    of_rows = {"row": rows, "fold": np.full(len(rows), fold)}
    fitted = {name: of_rows | probe_answers(features, targets, UNPROJECTED) for name, features in baselines.items()}
    return {"majority": of_rows | majority_answers(targets)} | fitted


def majority_answers(targets: Mapping[str, Targets]) -> Answers:
    """Answer every row by how frequent labels and grades are in training, whichever the probe.

    Fitted to features that tell nothing, the paper's probe would hardly leave its random initial bias in 50 epochs, and
    might answer the rarer class.

    Args:
        targets: By split.

    Returns:
        The arrays that `probe_answers` returns.
    """
    train, test = targets["train"], targets["test"]
    frequencies = np.tile(train.labels.mean(0), (len(test), 1))
    answers = {f"probe/{probe}/{UNPROJECTED}": frequencies for probe in PROBES}
    if all((of_split.grades >= 0).any() for of_split in targets.values()):
        commonest = np.bincount(train.grades[train.grades >= 0]).argmax()
        answers[f"grade/{UNPROJECTED}"] = np.where(test.grades >= 0, commonest, -1)
    return answers


def probe_answers(features: Features, targets: Mapping[str, Targets], space: str) -> Answers:
    """Fit the probes on one space of features, and let them answer for the test split.

    Args:
        features: By split, shape (N, D).
        targets: By split.
        space: What to call the features.

    Returns:
        `probe/PROBE/SPACE`, and `grade/SPACE` where there are grades.
    """
    paper = paper_probe(features, targets, seed=PROBE_SEED)
    return label_answers(features, targets, space, paper) | grade_answers(features, targets, space)


def label_answers(features: Features, targets: Mapping[str, Targets], space: str, paper: PaperProbe) -> Answers:
    """Let the probes of labels answer for the test split.

    Args:
        features: By split, shape (N, D).
        targets: By split.
        space: What to call the features.
        paper: The paper's probe, fitted on the same features.

    Returns:
        `probe/PROBE/SPACE`.
    """
    return {
        f"probe/paper/{space}": paper.probabilities["test"],
        f"probe/logistic/{space}": logistic_probe(features, targets).probabilities,
        f"probe/knn/{space}": nearest_neighbour_probe(features, targets).probabilities,
    }


def grade_answers(features: Features, targets: Mapping[str, Targets], space: str) -> Answers:
    """Let the grade probe answer for the test split: `grade/SPACE`, -1 where a row has no grade; empty without any."""
    grades = grade_probe(features, targets, NO_INTERVALS)
    if grades is None:
        return {}
    answered = np.full(len(targets["test"]), -1)
    answered[targets["test"].grades >= 0] = grades.predicted
    return {f"grade/{space}": answered}


def remedy_answers(features: Features, targets: Mapping[str, Targets], paper: PaperProbe) -> Answers:
    """Answer by the paper's probe with each remedy for its bias to frequent classes.

    Args:
        features: z_I by split, shape (N, D).
        targets: By split.
        paper: The paper's probe, fitted on the same features.

    Returns:
        `probe/REMEDY/unprojected` and `decision/paper_threshold/unprojected`.
    """
    answers = {
        f"probe/{name}/{UNPROJECTED}": paper_probe(features, targets, loss, seed=PROBE_SEED).probabilities["test"]
        for name, loss in PROBE_LOSSES.items()
        if name != "paper"
    }
    return answers | {f"decision/paper_threshold/{UNPROJECTED}": threshold_decisions(paper.probabilities, targets)}


def calibrated_answers(targets: Mapping[str, Targets], paper: PaperProbe) -> Answers:
    """Answer by the paper's probe on z_I, calibrated on validation rows: `calibrated/paper/unprojected`."""
    calibration = fit_calibration(paper.logits["validation"], targets["validation"])
    calibrated, _, _ = apply_calibration(calibration, paper.logits["test"], targets["test"])
    return {f"calibrated/paper/{UNPROJECTED}": calibrated}


def prompt_probabilities(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    image_embeds: Array,
    targets: Targets,
    encode: Callable[[list[str]], Array],
) -> Array:
    """Answer by prompts: exclusive labels compete, a finding stated competes with the same finding denied.

    Args:
        model: Its temperature turns similarities into probabilities.
        processor: Holds the prompts.
        image_embeds: Unit length. Shape (N, D).
        targets: Names the labels.
        encode: Embeds texts, unit length.

    Returns:
        Probability of each label. Shape (N, K).
    """
    present = {name: encode(processor.class_prompt_texts(name)) for name in targets.label_names}
    absent = {name: encode(processor.absent_class_prompt_texts(name)) for name in targets.label_names}
    logits = prompt_logits(image_embeds, present, absent, model.inverse_temperature.item(), targets)
    return softmax(logits, axis=1) if targets.exclusive else expit(logits)


def prompt_logits(
    image_embeds: Array,
    present_embeds: Mapping[str, Array],
    absent_embeds: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
) -> Array:
    """Compare images with prompts.

    Args:
        image_embeds: Unit length. Shape (N, D).
        present_embeds: By label, embeddings of its prompts. Shape (prompts, D).
        absent_embeds: By label, embeddings of the prompts that deny it. Used for labels that are not exclusive.
        inverse_temperature: As learned.
        targets: Names the labels.

    Returns:
        Of exclusive classes the logits of a softmax, of a finding its log-odds. Shape (N, K).
    """
    present = np.stack([prompt_ensemble(present_embeds[name]) for name in targets.label_names])
    if targets.exclusive:
        return inverse_temperature * image_embeds @ present.T
    absent = np.stack([prompt_ensemble(absent_embeds[name]) for name in targets.label_names])
    return inverse_temperature * zero_shot_scores(image_embeds, present, absent)
