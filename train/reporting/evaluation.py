"""Evaluate a model: predict, measure, and write `predictions.parquet`, `metrics.json`, the report and the figures."""

import logging
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.data.batch_sampler import TrainingSet
from train.data.provenance import DataFacts
from train.evaluation.baselines import baseline_features, why_left_out
from train.evaluation.checkpoint_scope import measure_scope
from train.evaluation.measure import measure
from train.evaluation.predict import UNPROJECTED, encode, predict, predict_baselines
from train.evaluation.predictions import write_predictions
from train.evaluation.protocols.wordings import statement_cosines
from train.evaluation.protocols.zero_shot import prompts_asked
from train.evaluation.questions import unseen_wordings
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.targets import count_labels, have_labels, missing_labels, read_targets
from train.reporting.figures.evaluation import draw_figures
from train.reporting.measured_run import describe_measured, write_measured
from train.reporting.run_report import run_report, too_few_in_words
from train.training.history import read_history

logger = logging.getLogger(__name__)

FEATURES = "features"


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate, as in `EvaluateArguments`, and what: the dataset's name, and the run, if there was one."""

    dataset_name: str = "dataset"
    split: str = "test"
    batch_size: int = 64
    baselines: bool = True
    num_resamples: int = 1000
    seed: int = 0
    start: dict[str, str] | None = None  # `describe_start` of the run
    training_set: TrainingSet = field(default_factory=TrainingSet)  # of the run; the paper's probe has the same


def evaluate(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict,
    out_dir: Path,
    *,
    settings: EvaluationSettings,
    facts: DataFacts | None = None,
) -> dict[str, Any]:
    """Measure a model, write `predictions.parquet`, `metrics.json`, `report.md` and `figures/`; return the metrics.

    Args:
        model: On any device.
        processor: Its processor.
        dataset: Splits `train`, `validation` and the one to measure on.
        out_dir: Where to write. A `history.jsonl` there is drawn as training curves.
        settings: How to evaluate.
        facts: Facts of these splits, if already known.

    Raises:
        ValueError: If a split is missing or empty, or the model's features are not finite.
    """
    if settings.split not in dataset:
        raise ValueError(f"The dataset has no split {settings.split!r}; it has {', '.join(dataset)}.")
    used = {name: dataset[name] for name in ("train", "validation", settings.split) if name in dataset}
    facts = facts or DataFacts(settings.dataset_name, used)
    splits = {"test" if name == settings.split else name: rows for name, rows in used.items()}
    targets, sources = read_targets(splits), splits["test"]["source"][:]
    if missing := missing_labels(targets):
        logger.warning(missing)

    # Predict: encode once, fit the probes of the model and of the baselines.
    encoded = encode(model, processor, splits, targets, batch_size=settings.batch_size, cache_dir=out_dir / FEATURES)
    predictions = predict(encoded, targets, np.arange(len(sources)), training_set=settings.training_set)
    if settings.baselines:
        baselines = baseline_features(model, processor, splits, settings.batch_size, settings.seed)
        predictions |= predict_baselines(baselines, targets, ["logistic"])

    # Measure.
    resampling = Resampling(settings.num_resamples, settings.seed)
    results = measure(predictions, targets["test"], targets["validation"], resampling) | {
        "left_out_baselines": why_left_out() if settings.baselines else {},
        "scope": measure_scope(model, encoded.features[UNPROJECTED]["test"], np.asarray(targets["test"].patient_ids)),
        "prompts": prompts_asked(processor, targets["test"]) if have_labels(targets.values()) else {},
        "unseen_wordings": unseen_wordings(processor, targets["test"].label_names)
        if have_labels(targets.values())
        else {},
        "statement_cosines": statement_cosines(encoded.unseen_stated, encoded.unseen_denied),
        "training_set": asdict(settings.training_set),
        **describe_measured(
            model,
            splits["test"],
            facts,
            name=settings.dataset_name,
            start=settings.start,
            labels=count_labels(targets["test"]),
            split=settings.split,
        ),
    }
    results["dataset"] |= {
        "num_labelled_patients": len(set(targets["test"].patient_ids[targets["test"].is_labelled])),
        "rows_sha256": facts.rows_sha256,
        "missing_labels": missing_labels(targets),
    }
    if too_few := too_few_in_words(results["dataset"]):
        logger.warning("%s.", too_few)
    history = read_history(out_dir)
    figures = draw_figures(predictions, targets["test"], encoded, results, splits["test"], history, settings.seed)

    out_dir.mkdir(parents=True, exist_ok=True)
    write = partial(write_predictions, predictions=predictions, targets=targets["test"], sources=sources)
    write_measured(out_dir, results, run_report(results, figures), figures, write)
    return results
