"""Cross-validate a pretraining recipe: every patient is measured by models that never saw them.

    python train/cross_validate.py train/configs/spider.yaml --folds 5 --output_dir runs/spider_cv
    python train/cross_validate.py train/configs/spider.yaml --folds 5 --output_dir runs/spider_cv --resume

All splits of the data set are joined and cut by patient. For each fold the recipe of the YAML is pretrained from the
start, that fold being the test split, the next one the validation split and the others the training split; probes and
controls are fitted on the same rows. A fold leaves its run and its answers in `fold-k/`; a finished fold is not
repeated, an interrupted one goes on. Then `metrics.json`, `report.md` and `figures/comparison.png` are written: the
answers of all folds together, with 95 % intervals over all patients, and beside them the mean over the folds.
"""

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset, DatasetDict, concatenate_datasets
from tqdm.auto import tqdm

from data_scripts.system.command_line import parse_arguments, setting
from data_scripts.system.whole_files import write_folder, write_json, write_text
from train.data.loaders import open_dataset, rows_sha256
from train.data.provenance import DataFacts
from train.evaluate_model import as_groups
from train.evaluation.features import cached
from train.evaluation.out_of_fold import Answers, fold_answers, mean_over_folds, measure_answers, pool
from train.evaluation.statistics import bootstrap
from train.evaluation.statistics.bootstrap import Resampling, as_entries
from train.evaluation.statistics.metrics import Array
from train.evaluation.suite import Figures, measure
from train.evaluation.targets import Targets, count_labels, read_rows
from train.experiments.folds import FOLDS, cut, fold_splits, keep_cut
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.reporting.cross_validation_report import cross_validation_report
from train.reporting.figures.evaluation import system_comparison
from train.reporting.report import describe_dataset
from train.training.history import read_history, training_seconds
from train.training.run_folder import check_output, describe_run, describe_start, make_output, read_start

ANSWERS = "predictions.safetensors"


@dataclass
class CrossValidateArguments(PretrainArguments):
    """Pretrain and measure a recipe on each of several folds of the patients."""

    output_dir: str = setting("", "Folder of the whole: fold-0, fold-1, ..., metrics.json, report.md, figures.")
    folds: int = setting(5, "Folds of the patients, at least 3: one is measured, one validates, the others train.")
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        super().__post_init__()
        if self.folds < 3:
            raise ValueError(f"folds must be at least 3 (training, validation, test); got {self.folds}.")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1; got {self.num_resamples}.")
        if not self.evaluate:
            raise ValueError("evaluate is false, but a cross-validation does nothing else with its models: leave it.")


def main(args: CrossValidateArguments) -> None:
    """Cut the patients into folds, pretrain and answer fold by fold, measure all answers together."""
    output_dir = Path(args.output_dir)
    rows = concatenate_datasets(list(open_dataset(args.dataset).values()))
    targets = read_rows(rows, f"{args.folds}-fold cross-validation")
    fold_of_row = cut(targets, args.folds, args.seed)

    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ValueError(
            f"{accelerator.num_processes} processes were launched, and folds run in one: start with `python`, not "
            "`accelerate launch` or `torchrun`."
        )
    folds_of_rows = {f"fold {fold}": rows.select(np.flatnonzero(fold_of_row == fold)) for fold in range(args.folds)}
    facts = DataFacts(args.dataset, folds_of_rows)
    facts.check_leaks(args.allow_leaks)  # what two folds share is at some time in training and in test
    run = describe_run(args, accelerator, {"all": rows_sha256(rows)})
    run["start"] = describe_start(args.init_checkpoint, run["rows_sha256"]) if args.init_checkpoint else None
    check_output(output_dir, run, args)
    make_output(output_dir, run, args, accelerator)
    keep_cut(output_dir / FOLDS, targets, fold_of_row, rows)

    folds = [
        answer_fold(args, rows, fold_of_row, fold) for fold in tqdm(range(args.folds), desc="folds", unit=" folds")
    ]
    answers = pool(folds)
    resampling = Resampling(args.num_resamples, args.seed)
    pooled = measure_answers(answers, targets, resampling)
    with without_warnings():  # a fold that lacks a finding would say so for each system; the table shows it
        figures_of_folds = [
            measure_answers(of_fold, targets.select(of_fold["row"], f"fold {fold}"), resampling)
            for fold, of_fold in enumerate(folds)
        ]
    results = {
        **as_groups(pooled),
        "mean_over_folds": mean_of_groups(figures_of_folds),
        "folds": [
            describe_fold(output_dir / f"fold-{fold}", args, targets, fold_of_row, fold, figures)
            for fold, figures in enumerate(figures_of_folds)
        ],
        "dataset": describe(args, targets, rows["source"][:], facts.leak_stamp if args.allow_leaks else None),
        "settings": asdict(args),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    figure = system_comparison(targets, results, describe_dataset(results["dataset"]))
    write_folder(output_dir / "figures", lambda folder: figure.savefig(folder / "comparison.png"))
    write_text(output_dir / "report.md", cross_validation_report(results))
    write_json(output_dir / "metrics.json", results)  # last: where it is, the others are
    print((output_dir / "report.md").read_text())


def answer_fold(args: CrossValidateArguments, rows: Dataset, fold_of_row: Array, fold: int) -> Answers:
    """Pretrain without a fold and answer for its rows, or read the answers of a finished fold."""
    output_dir = Path(args.output_dir) / f"fold-{fold}"
    of_run = {item.name: getattr(args, item.name) for item in fields(PretrainArguments)}
    of_run |= {"output_dir": str(output_dir), "resume": True, "overwrite": False, "evaluate": False}
    splits = fold_splits(fold_of_row, fold)

    def run_and_measure() -> Answers:
        dataset = DatasetDict({split: rows.select(indices) for split, indices in splits.items()})
        processor, model = pretrain(PretrainArguments(**of_run), dataset)
        measured = measure(
            model,
            processor,
            dataset,
            batch_size=args.batch_size,
            with_baselines=args.baselines,
            with_further=False,
            resampling=Resampling(num_resamples=1, seed=args.seed),  # only answers are kept; intervals come later
            cache_dir=None,
        )
        return fold_answers(measured, fold, splits["test"], model.inverse_temperature.item())

    return cached(output_dir / ANSWERS, run_and_measure)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the warnings of undefined figures."""
    logger = logging.getLogger(bootstrap.__name__)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def mean_of_groups(folds: list[Figures]) -> dict[str, Any]:
    """Average the figures of the folds, arranged as `as_groups` does."""
    return {
        "linear_probe": mean_over_folds([figures.probes.estimates for figures in folds]),
        "zero_shot": mean_over_folds([figures.zero_shot for figures in folds]),
        "retrieval": mean_over_folds([figures.retrieval for figures in folds]),
        "baselines": {
            name: {
                "linear_probe": mean_over_folds([figures.baselines[name].estimates for figures in folds]),
                "difference": mean_over_folds([figures.differences[name] for figures in folds]),
            }
            for name in folds[0].baselines
        },
    }


def describe_fold(
    folder: Path, args: CrossValidateArguments, targets: Targets, fold_of_row: Array, fold: int, figures: Figures
) -> dict[str, Any]:
    """Say what a fold was made of, how long it trained, and what it scored."""
    splits = fold_splits(fold_of_row, fold)
    return {
        "fold": fold,
        "num_rows": {split: len(indices) for split, indices in splits.items()},
        "num_patients": {split: len(set(targets.patient_ids[indices])) for split, indices in splits.items()},
        "training_seconds": training_seconds(read_history(folder), args.batch_size * args.gradient_accumulation_steps),
        "linear_probe": as_entries(figures.probes.estimates),
        "zero_shot": as_entries(figures.zero_shot),
    }


def describe(
    args: CrossValidateArguments, targets: Targets, sources: list[str], leak: dict[str, Any] | None
) -> dict[str, Any]:
    """Say what was measured on, and what of it several folds share."""
    return {
        "name": Path(args.dataset).name,
        "split": targets.split,
        "num_rows": len(targets),
        "num_patients": len(set(targets.patient_ids)),
        "leak": leak,
        "start": read_start(Path(args.output_dir)),
        "synthetic": all(source.startswith("synthetic") for source in sources),
        "labels": count_labels(targets),
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main(parse_arguments(CrossValidateArguments))
    except (ValueError, FloatingPointError, FileNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("Interrupted; the same command with --resume goes on.", file=sys.stderr)
        sys.exit(130)  # as a shell says that Ctrl-C ended a command
