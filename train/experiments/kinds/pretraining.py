"""Systems that pretrain a vision and a text tower: measured by every protocol of labels, grades and retrieval."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.data.batch_sampler import TrainingSet
from train.data.loaders import plan_batches
from train.data.provenance import anatomy_of
from train.evaluation.baselines import pixel_features, why_left_out
from train.evaluation.predict import encode, predict, predict_baselines, predict_majority
from train.evaluation.predictions import Predictions, of_baselines, read_about, read_predictions, write_predictions
from train.evaluation.targets import Targets, read_targets
from train.experiments.data import Fold, rows_of_splits
from train.experiments.kinds.kind import Kind
from train.experiments.kinds.pretraining_speed import SPEED_SETTINGS, pairs_per_second
from train.experiments.progress import quick_metric
from train.experiments.spec import ExperimentRun
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model
from train.training.run_folder import check_output, describe_run, make_output


class Pretraining(Kind):
    """Pretrained towers, frozen and probed."""

    asks_labels: ClassVar[bool] = True

    def learn(
        self, run: ExperimentRun, fold: Fold, accelerator: Accelerator
    ) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
        """Train the model of a run, or build it as its seed initialises it if the system is not trained."""
        if run.system.trained:
            return pretrain(run.arguments, fold.dataset)
        folder = Path(run.arguments.output_dir)
        identity = describe_run(run.arguments, accelerator, rows_of_splits(fold))
        check_output(folder, identity, run.arguments)
        set_seed(run.seed)
        anatomy = anatomy_of(run.arguments.dataset, fold.dataset)
        processor, model = build_model(run.arguments, fold.dataset["train"], anatomy)
        make_output(folder, identity, run.arguments, accelerator)
        model.to(accelerator.device)
        return processor, model.eval()

    def predict(self, learned: Any, run: ExperimentRun, fold: Fold, path: Path) -> dict[str, Any]:
        """Predict the test rows of a fold by every protocol."""
        processor, model = learned
        predict_fold(model, processor, fold, path, run.arguments)
        return {}

    def read_predictions(self, path: Path) -> tuple[Predictions, Targets | None]:
        """Read predictions and truth."""
        return read_predictions(path)

    def quick_name(self, headline: str, exclusive: bool) -> str:
        """Macro F1 of exclusive classes, macro AUROC of findings."""
        return f"{'macro F1' if exclusive else 'macro AUROC'}, {headline}"

    def quick_metric(self, path: Path, headline: str) -> float | None:
        """Measure the headline probe."""
        return quick_metric(*read_predictions(path), headline)

    def baselines_of(
        self, run: ExperimentRun, fold: Fold, names: Sequence[str], folder: Path
    ) -> dict[str, Predictions]:
        """Probe features that no run has learned."""
        return baselines_of(fold, names, folder)

    def describe_settings(self, run: ExperimentRun) -> dict[str, Any]:
        """Describe objectives and towers."""
        system, args = run.system, run.arguments
        return {
            "system": system.objective if system.trained else "untrained",
            "objectives": dict(args.objectives) if system.trained else {},
            "vision": args.vision,
            "vision_model_args": dict(args.vision_model_args),
            **{name: getattr(args, name) for name in ("projection", "projection_dim")},
        }

    def speed_of(self, run: ExperimentRun) -> str:
        """Join the settings of towers, batches and objectives."""
        args = run.arguments
        return json.dumps([args.alpha < 1, *(getattr(args, name) for name in SPEED_SETTINGS)])

    def steps_of_epoch(self, run: ExperimentRun, fold: Fold, accelerator: Accelerator) -> int:
        """Plan the batches of distinct pairs."""
        args, share = run.arguments, (accelerator.process_index, accelerator.num_processes)
        rows = fold.dataset["train"]
        return len(plan_batches(rows, TrainingSet.of(vars(args)), args.batch_size, args.seed, *share))

    def pairs_per_second(self, run: ExperimentRun, fold: Fold, accelerator: Accelerator) -> float:
        """Time towers of the run's size, or random ones."""
        return pairs_per_second(run.arguments, fold.dataset["train"], accelerator)


def predict_fold(
    model: LumbarCLIPModel, processor: LumbarCLIPProcessor, fold: Fold, path: Path, args: PretrainArguments
) -> None:
    """Predict the test rows of a fold by every protocol, and write the predictions."""
    targets = read_targets(fold.dataset)
    encoded = encode(model, processor, fold.dataset, targets, batch_size=args.batch_size)
    predictions = predict(encoded, targets, fold.rows, fold.number, TrainingSet.of(vars(args)))
    write_predictions(path, predictions, targets["test"], fold.dataset["test"]["source"][:])


def baselines_of(fold: Fold, names: Sequence[str], folder: Path) -> dict[str, Predictions]:
    """Predict a fold's rows with each baseline, or read the predictions of an earlier start for the same rows.

    The file of a fold in `folder` keeps the hash of the rows.
    """
    path, targets = folder / f"{fold.number}.parquet", read_targets(fold.dataset)
    rows = rows_of_splits(fold) | {"labels": ", ".join(targets["test"].label_names)}  # of which there may be two views
    found = of_baselines(read_predictions(path)[0]) if read_about(path) == rows else {}
    lacking = set(names) - set(found)
    if lacking and lacking - set(why_left_out(names)):
        predictions = predict_majority(targets)
        if set(names) - {"majority"}:
            predictions |= predict_baselines(pixel_features(fold.dataset), targets)
        write_predictions(path, predictions, targets["test"], fold.dataset["test"]["source"][:], rows)
        found = of_baselines(predictions)
    of_rows = {"row": fold.rows, "fold": np.full(len(fold.rows), fold.number)}
    return {name: of_rows | found[name] for name in names if name in found}
