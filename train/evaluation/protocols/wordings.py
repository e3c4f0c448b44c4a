"""Zero-shot by words that no training uses: what the wording changes, and whether a statement is told from its denial.

A user asks in one sentence, and not in those of the training. So each class is asked in the unseen wordings of its bank
(`train.data.statement_banks`): all together, as `zero_shot.py` does, and one by one. **Polarity accuracy** asks of each
image whether it is nearer to the statement that a finding is present than to the statement that it is absent, balanced
over the images that have it and those that do not: 0.5 is chance. Ranks cannot tell this: a model that is nearer to
every denial may rank images well.

Zero-shot compares exclusive classes with each other. Polarity asks about each of them on its own, its statement against
its denial, as if it were a finding.

Shapes: N rows, K labels, W wordings, D width of the shared space. Wordings are embeddings by label, shape (W, D).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from scipy.special import expit, softmax

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.evaluation.features import encode_texts
from train.evaluation.label_metrics import label_measures, reasons_without_rows, undefined_measure
from train.evaluation.protocols.zero_shot import prompt_ensemble, zero_shot_predictions
from train.evaluation.questions import NUM_WORDINGS
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.spreads import SINGLE, SPREAD_NAMES, UNSEEN, alike, alike_in_words, spread_name
from train.evaluation.targets import Targets

logger = logging.getLogger(__name__)

T = TypeVar("T")
Groups: TypeAlias = dict[str, dict[str, T]]
Combine: TypeAlias = Callable[..., Any]  # called with one value or array of each wording, and `axis=0`

STATED, DENIED = "single_wordings/stated", "single_wordings/denied"  # predictions
WAY_OUT = (
    "Unless the training tells them apart, zero-shot answers about these turn over with the wording and the run: train "
    """with the objective polarity, as in --objectives '{"lumbarclip": 1, "polarity": 0.5}', take another text tower """
    "or write other sentences in class_prompts and absent_class_prompts."
)
# Metrics whose spread over wordings is told.
OF_FINDINGS, OF_CLASSES = ("macro_auroc", "auroc"), ("macro_f1", "balanced_accuracy", "auroc", "f1")
SPREADS: Mapping[str, Combine] = dict(zip(SPREAD_NAMES, (np.mean, partial(np.std, ddof=1), np.min), strict=True))


def unseen_predictions(
    image_embeds: Array,
    stated: Mapping[str, Array],
    denied: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
) -> dict[str, Array]:
    """Predict the labels of images, (N, D), from all unseen wordings together, and compare them with single ones.

    Returns:
        `zero_shot/unseen`, of findings also `zero_shot/unseen_margins`, as `zero_shot_predictions` has them. Shape
        (N, K). `single_wordings/stated` and `single_wordings/denied`: cosines with ten single wordings of each label.
        Shape (N, K W).
    """
    together = zero_shot_predictions(image_embeds, stated, denied, inverse_temperature, targets)
    predictions = {name.replace("zero_shot", UNSEEN): array for name, array in together.items()}
    for name, wordings, shift in ((STATED, stated, 0), (DENIED, denied, 1)):
        chosen = [
            wordings[label][ten_wordings(len(wordings[label]), shift=k + shift)]
            for k, label in enumerate(targets.label_names)
        ]
        predictions[name] = image_embeds @ _unit(np.concatenate(chosen)).T
    return predictions


def ten_wordings(number: int, shift: int = 0) -> list[int]:
    """Choose ten of so many wordings, in their order.

    Fewer are used again, each time moved on by `shift`: with another shift for the denial than for the statement, no
    pair of the two comes twice.

    Example:
        >>> ten_wordings(12), ten_wordings(5, shift=1)
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 1, 2, 3, 4, 0])
    """
    return [(slot + slot // number * shift) % number for slot in range(NUM_WORDINGS)]


def wording_margins(predictions: Mapping[str, Array], targets: Targets) -> Floats:
    """Similarity to a statement less that to its denial, by single wording. Shape (W, N, K), in [-2, 2]."""
    return _by_wording(predictions[STATED], targets) - _by_wording(predictions[DENIED], targets)


def wording_probabilities(predictions: Mapping[str, Array], targets: Targets) -> Floats:
    """Turn the similarities of single wordings into probabilities at temperature 1: ranks and choices count only.

    Of exclusive classes by the statement of each, of a finding by its statement against its denial. Shape (W, N, K).
    """
    if targets.exclusive:
        return softmax(_by_wording(predictions[STATED], targets), axis=2)
    return expit(wording_margins(predictions, targets))


def measures_by_wording(
    predictions: Mapping[str, Array],
    targets: Targets,
    measures_of: Callable[[Targets, Array], Mapping[str, Measure]] = label_measures,
) -> dict[str, dict[str, Measure]]:
    """Collect the metrics of each single wording, as a group of its own, for `with_spreads`.

    Args:
        predictions: `single_wordings/stated` and `single_wordings/denied`; without them there is no group.
        targets: The truth.
        measures_of: Collects the metrics of probabilities, shape (N, K), as `label_measures` does.

    Returns:
        `zero_shot/single_wordings/0` and so on, each with the macro AUROC and the AUROC of each finding, or with what
        compares exclusive classes.
    """
    if STATED not in predictions:
        return {}
    return {
        f"{SINGLE}/{place}": {
            name: measure
            for name, measure in measures_of(targets, of_wording).items()
            if name.partition("/")[0] in (OF_CLASSES if targets.exclusive else OF_FINDINGS)
        }
        for place, of_wording in enumerate(wording_probabilities(predictions, targets))
    }


def with_spreads(groups: Mapping[str, Mapping[str, T]], combine: Callable[[Sequence[T], Combine], T]) -> Groups[T]:
    """Replace the groups of `measures_by_wording` by one: the mean, standard deviation and worst of their metrics.

    The worst wording is chosen anew for each seed and in each resample of the patients.

    Args:
        groups: Metrics by group and name, such as `Resampled`s.
        combine: Combines one metric of every wording.

    Returns:
        The other groups, and `zero_shot/single_wordings` with `macro_auroc_mean`, `macro_auroc_standard_deviation`,
        `macro_auroc_worst`, and the same of each label (`auroc_mean/LABEL`).

    Example:
        >>> with_spreads({f"zero_shot/single_wordings/{i}": {"f1": x} for i, x in enumerate([0.5, 0.75])},
        ...              combined_value)["zero_shot/single_wordings"]["f1_worst"]
        0.5
    """
    single = [metrics_of for group, metrics_of in groups.items() if group.startswith(f"{SINGLE}/")]
    rest = {group: dict(metrics_of) for group, metrics_of in groups.items() if not group.startswith(f"{SINGLE}/")}
    if not single:
        return rest
    return rest | {
        SINGLE: {
            spread_name(name, spread): combine([of_wording[name] for of_wording in single], how)
            for name in single[0]
            for spread, how in SPREADS.items()
        }
    }


def combined_value(values: Sequence[float], how: Combine) -> float:
    """Combine the values of a metric for each wording, as `with_spreads` asks."""
    return float(how(values, axis=0))


def polarity_measures(predictions: Mapping[str, Array], targets: Targets) -> dict[str, Measure]:
    """Collect the polarity accuracy: is an image nearer to the statement of a finding than to its denial?

    Balanced accuracy of this choice, the mean over single wordings. A tie is nearer to the denial. A row without the
    label counts as absent, as in every metric of labels.

    Returns:
        `polarity_accuracy`, the mean over the defined findings without `No Finding`; `polarity_accuracy_together`, the
        same of the mean similarity over all wordings, as zero-shot asks; `polarity_accuracy/LABEL` of single wordings.
    """
    margins = wording_margins(predictions, targets)
    said = (margins > 0).mean(axis=0)  # share of the wordings; (N, K)
    together = (margins.mean(axis=0) > 0).astype(float)
    reasons = reasons_without_rows(targets)
    defined = [k for k in targets.findings if k not in reasons]
    measure = partial(Measure, patient_ids=targets.patient_ids)
    macro = partial(metrics.mean_over_findings, metrics.presence_balanced_accuracy)
    measures = {
        name: measure(macro, [targets.labels[:, defined], choices[:, defined]])
        if defined
        else undefined_measure(targets, "; ".join(reasons.values()) or "no label is a finding")
        for name, choices in (("polarity_accuracy", said), ("polarity_accuracy_together", together))
    }
    for k, name in enumerate(targets.label_names):
        measures[f"polarity_accuracy/{name}"] = (
            undefined_measure(targets, reasons[k])
            if k in reasons
            else measure(metrics.presence_balanced_accuracy, [targets.labels[:, k], said[:, k]])
        )
    return measures


def statement_cosines(stated: Mapping[str, Array], denied: Mapping[str, Array]) -> dict[str, float]:
    """Compare the mean statement of each label with its mean denial: their cosine, 1 where nothing tells them apart.

    Example:
        >>> statement_cosines({"bulge": np.array([[1.0, 0.0]])}, {"bulge": np.array([[0.6, 0.8]])})
        {'bulge': 0.6}
    """
    return {label: round(float(prompt_ensemble(stated[label]) @ prompt_ensemble(denied[label])), 6) for label in stated}


def warn_of_alike_statements(
    model: LumbarCLIPModel, processor: LumbarCLIPProcessor, label_names: Sequence[str], is_trained: bool
) -> None:
    """Warn of classes whose statement and denial a model embeds alike: it cannot tell whether they are present.

    Args:
        model: At the start of a training.
        processor: Whose prompts ask about the classes.
        label_names: The classes.
        is_trained: Whether the text tower is pretrained. One with random weights embeds all texts alike, and learns to
            tell them apart: there, only a sentence that both states and denies a class, token by token, is a fault.
    """
    stated = {name: processor.class_prompt_texts(name) for name in label_names}
    denied = {name: processor.absent_class_prompt_texts(name) for name in label_names}
    if is_trained:
        embed = partial(encode_texts, model, processor, batch_size=64)
        embeds = ({name: embed(texts) for name, texts in of.items()} for of in (stated, denied))
        found = alike(statement_cosines(*embeds))
    else:
        found = {
            name: 1.0 for name in label_names if _tokens(processor, stated[name]) & _tokens(processor, denied[name])
        }
    if found:
        logger.warning("%s %s", alike_in_words(found), WAY_OUT)


def _tokens(processor: LumbarCLIPProcessor, texts: Sequence[str]) -> set[tuple[int, ...]]:
    """Collect the tokens of each text, as far as the model reads it."""
    return {tuple(ids) for ids in processor(text=list(texts), padding=False)["input_ids"]}


def _by_wording(flat: Array, targets: Targets) -> Floats:
    """From shape (N, K W) to (W, N, K)."""
    by_label = np.asarray(flat, dtype=np.float64).reshape(len(flat), len(targets.label_names), -1)
    return np.moveaxis(by_label, 2, 0)


def _unit(embeds: Array) -> Array:
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
