"""The whole measurement of a model on a data set: probes beside baselines, zero-shot, retrieval."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.evaluation.baselines import constant_features, pixel_features, untrained_model
from train.evaluation.features import encode_images, encode_images_once, encode_texts
from train.evaluation.further_protocols import Encoded, FurtherFigures, further_figures
from train.evaluation.predictions import prompt_logits
from train.evaluation.protocols.grade_probe import GradeResult, grade_probe
from train.evaluation.protocols.linear_probe import ProbeResult, linear_probe
from train.evaluation.protocols.retrieval import retrieval
from train.evaluation.protocols.zero_shot import first_prompts, prompts_asked, zero_shot
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Estimate, Resampling, paired_difference, undefined_estimate
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import SPLITS, Targets, read_targets


@dataclass(frozen=True)
class Probes:
    """The label probe and, where the data set has grades, the grade probe of one feature set."""

    labels: ProbeResult
    grades: GradeResult | None

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The figures of both."""
        return self.labels.estimates | (self.grades.estimates if self.grades else {})


@dataclass(frozen=True)
class Figures:
    """The figures of a model, with those of what it has to beat.

    Args:
        probes: Of the model's own features.
        baselines: The same probes on each baseline.
        differences: For each baseline, the headline figures of the model less those of the baseline, on the same rows.
        zero_shot: Figures of classification by prompts.
        retrieval: Figures of retrieval.
    """

    probes: Probes
    baselines: dict[str, Probes]
    differences: dict[str, dict[str, Estimate]]
    zero_shot: dict[str, Estimate]
    retrieval: dict[str, Estimate]


@dataclass(frozen=True)
class Measurements(Figures):
    """Everything measured on the test split, and what is drawn from it. N test rows.

    Args:
        targets: By split.
        zero_shot_scores: Probabilities or scores by prompts. Shape (N, K).
        image_embeds: Unit length. Shape (N, D).
        text_embeds: Of the row's report, unit length. Shape (N, D).
        texts: The reports.
        further: Figures of the other protocols; None where they were not asked for.
        prompts: The sentences that zero-shot rests on, by label.
        zero_shot_first: Figures of classification by the first prompt of each label alone.
    """

    targets: Mapping[str, Targets]
    zero_shot_scores: Array
    image_embeds: Array
    text_embeds: Array
    texts: list[str] = field(repr=False)
    further: FurtherFigures | None = None
    prompts: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    zero_shot_first: dict[str, Estimate] = field(default_factory=dict)


def measure(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict | Mapping[str, Dataset],
    *,
    batch_size: int,
    with_baselines: bool,
    with_further: bool,
    resampling: Resampling,
    cache_dir: Path | None,
) -> Measurements:
    """Measure a model on the test split of a data set.

    Args:
        model: A LumbarCLIP model; left as it was.
        processor: Its processor.
        dataset: Splits `train`, `validation` and `test`.
        batch_size: Images or texts a forward pass.
        with_baselines: Whether to probe the baselines too.
        with_further: Whether to ask all other protocols too: probes, remedies, patients, calibration, retrieval.
        resampling: How intervals are drawn; also the seed of the untrained baseline.
        cache_dir: Where encoded splits are kept; None to keep none.

    Returns:
        The measurements.

    Raises:
        ValueError: If a split is missing or empty, or the model's features are not finite.
    """
    targets = read_targets(dataset)
    test_rows = dataset["test"]
    texts = list(test_rows["report"][:])

    # Encode once.
    encoded = {
        split: encode_images_once(model, processor, dataset[split], split, batch_size=batch_size, cache_dir=cache_dir)
        for split in SPLITS
    }
    features = {split: arrays["image_features"] for split, arrays in encoded.items()}
    image_embeds = encoded["test"]["image_embeds"]
    encode = partial(encode_texts, model, processor, batch_size=batch_size)
    text_embeds = encode(texts, description="Reports, test")

    # The model: what a linear probe reads, what prompts find, what retrieval finds.
    probes = _probe(features, targets, resampling)
    label_names = targets["test"].label_names
    present = {name: encode(processor.class_prompt_texts(name)) for name in label_names}
    absent = {name: encode(processor.absent_class_prompt_texts(name)) for name in label_names}
    asked = image_embeds, present, absent, model.inverse_temperature.item(), targets["test"], resampling
    zero_shot_estimates, zero_shot_scores = zero_shot(*asked)
    retrieval_estimates = retrieval(image_embeds, texts, text_embeds, targets["test"].patient_ids, resampling)

    further = None
    if with_further:
        embeds = {split: arrays["image_embeds"] for split, arrays in encoded.items()}
        prompts = present, absent, model.inverse_temperature.item()
        by_prompts = {split: prompt_logits(embeds[split], *prompts, targets[split]) for split in ("validation", "test")}
        read = Encoded(features, embeds, texts, text_embeds)
        further = further_figures(read, targets, probes.labels.probabilities, by_prompts, resampling)

    # The same probe on what a model has to beat.
    features_of = _baseline_features(model, processor, dataset, batch_size, resampling.seed) if with_baselines else {}
    baselines = {name: _probe(of_baseline, targets, resampling) for name, of_baseline in features_of.items()}
    differences = {
        name: headline_differences(targets["test"], probes, baseline, resampling)
        for name, baseline in baselines.items()
    }
    return Measurements(
        targets=targets,
        probes=probes,
        baselines=baselines,
        differences=differences,
        zero_shot=zero_shot_estimates,
        zero_shot_scores=zero_shot_scores,
        retrieval=retrieval_estimates,
        image_embeds=image_embeds,
        text_embeds=text_embeds,
        texts=texts,
        further=further,
        prompts=prompts_asked(processor, targets["test"]),
        zero_shot_first=zero_shot(image_embeds, first_prompts(present), first_prompts(absent), *asked[3:])[0],
    )


def headline_differences(
    targets: Targets, probes: Probes, baseline: Probes, resampling: Resampling
) -> dict[str, Estimate]:
    """Measure by how much one system's probes exceed another's, on the same resampled patients.

    Args:
        targets: The truth of the test split.
        probes: Of the system in question.
        baseline: Of the system it is compared with.
        resampling: How intervals are drawn.

    Returns:
        `macro_f1` (exclusive labels) or `macro_auroc` (findings), and `grade_quadratic_kappa` where there are grades.
    """
    ours, theirs = probes.labels.probabilities, baseline.labels.probabilities
    return label_difference(targets, ours, theirs, resampling) | grade_difference(
        targets, probes.grades, baseline.grades, resampling
    )


def label_difference(targets: Targets, ours: Array, theirs: Array, resampling: Resampling) -> dict[str, Estimate]:
    """Measure by how much one system's answers on labels exceed another's.

    Args:
        targets: The truth.
        ours: Probabilities of exclusive labels; else whatever ranks the rows, label by label; NaN where a label could
            not be learned. Shape (N, K).
        theirs: The same of the other system.
        resampling: How intervals are drawn.

    Returns:
        `macro_f1` (exclusive labels) or `macro_auroc` (findings).
    """
    difference = partial(paired_difference, patient_ids=targets.patient_ids, resampling=resampling)
    if targets.exclusive:
        metric = partial(metrics.macro_f1, num_classes=len(targets.label_names))
        truth = targets.classes
        return {"macro_f1": difference(metric, [truth, ours.argmax(1)], [truth, theirs.argmax(1)])}
    learned = [k for k in targets.findings if not np.isnan(ours[:, k]).any()]
    defined = [k for k in learned if 0 < targets.labels[:, k].sum() < len(targets)]
    if not defined:
        return {"macro_auroc": undefined_estimate(len(targets), "no finding is learned, present and absent")}
    truth = targets.labels[:, defined]
    return {"macro_auroc": difference(metrics.macro_auroc, [truth, ours[:, defined]], [truth, theirs[:, defined]])}


def grade_difference(
    targets: Targets, ours: GradeResult | None, theirs: GradeResult | None, resampling: Resampling
) -> dict[str, Estimate]:
    """Measure by how much one system's grades exceed another's: `grade_quadratic_kappa`, or nothing without grades."""
    if ours is None or theirs is None:
        return {}
    return {
        "grade_quadratic_kappa": paired_difference(
            partial(metrics.quadratic_kappa, num_classes=len(targets.grade_names)),
            [ours.truth, ours.predicted],
            [theirs.truth, theirs.predicted],
            ours.patient_ids,
            resampling,
        )
    }


def _baseline_features(
    model: LumbarCLIPModel, processor: LumbarCLIPProcessor, dataset: Any, batch_size: int, seed: int
) -> dict[str, dict[str, Array]]:
    splits = {split: dataset[split].with_format(None) for split in SPLITS}
    untrained = untrained_model(model, seed)
    untrained_features = {
        split: encode_images(
            untrained, processor, rows, batch_size=batch_size, description=f"Untrained encoder, {split}"
        )["image_features"]
        for split, rows in splits.items()
    }
    return {"majority": constant_features(splits), "untrained": untrained_features, **pixel_features(splits)}


def _probe(features: Mapping[str, Array], targets: Mapping[str, Targets], resampling: Resampling) -> Probes:
    return Probes(linear_probe(features, targets, resampling), grade_probe(features, targets, resampling))
