"""Evaluate a LumbarCLIP checkpoint on the held-out patients of a data set.

    python train/evaluate_model.py --checkpoint runs/demo/checkpoint --dataset data/synthetic
    python train/evaluate_model.py --checkpoint USER/MODEL --dataset data/spider_discs --out runs/spider --no_baselines

Writes `metrics.json`, `report.md` and `figures/`: a linear probe on the frozen image features beside the same probe on
baselines, zero-shot classification by prompts, and retrieval, with 95 % intervals over patients. Encoded images stay in
`features/` and are used again while weights and data stay the same; the folder may be deleted.
"""

import json
import shlex
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from datasets import DatasetDict

from data_scripts.system.command_line import run
from data_scripts.system.whole_files import write_folder, write_json
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.data.loaders import open_dataset
from train.data.provenance import DataFacts
from train.evaluation import METRICS
from train.evaluation.statistics.bootstrap import Resampling, as_entries
from train.evaluation.suite import Figures, Measurements, measure
from train.evaluation.targets import count_labels
from train.reporting.figures.evaluation import CaptionedFigure, draw_figures
from train.reporting.report import evaluation_report
from train.training.history import read_history
from train.training.run_folder import read_start

FEATURES = "features"


@dataclass
class EvaluateArguments:
    """Evaluate a LumbarCLIP checkpoint on the held-out patients of a data set."""

    checkpoint: str = field(metadata={"help": "Folder of a checkpoint, or a Hub id."})
    dataset: str = field(metadata={"help": "Folder that data_scripts.build wrote, or a Hub id of such a dataset."})
    split: str = field(
        default="test",
        metadata={"help": "Split to measure on. The probes are fitted on `train` and `validation`."},
    )
    out: str = field(default="", metadata={"help": "Where to write; empty: the folder that holds the checkpoint."})
    batch_size: int = field(default=64, metadata={"help": "Images or texts a forward pass. Changes no figure."})
    baselines: bool = field(
        default=True, metadata={"help": "Probe the baselines too: untrained encoder, pixel PCA, HOG, no pixels."}
    )
    num_resamples: int = field(default=1000, metadata={"help": "Bootstrap resamples of patients for the intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of the resamples, the untrained baseline and the figures."})

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        if self.split in ("train", "validation"):
            raise ValueError(f"--split {self.split}: the probes are fitted on it; name a split they do not see (test).")
        for name in ("batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate: as in `EvaluateArguments`; how the data set is called; the run's `describe_start`, if any."""

    dataset_name: str = "data set"
    split: str = "test"
    batch_size: int = 64
    baselines: bool = True
    num_resamples: int = 1000
    seed: int = 0
    start: dict[str, str] | None = None


def main(args: EvaluateArguments) -> None:
    """Load, evaluate, and print the report."""
    model, processor = cast(tuple[LumbarCLIPModel, LumbarCLIPProcessor], load_checkpoint(args.checkpoint))
    dataset = open_dataset(args.dataset)
    out_dir = Path(args.out) if args.out else _folder_beside(args.checkpoint)
    check_results_folder(out_dir / METRICS, Path(args.dataset).name, args)
    settings = EvaluationSettings(
        dataset_name=Path(args.dataset).name,
        split=args.split,
        batch_size=args.batch_size,
        baselines=args.baselines,
        num_resamples=args.num_resamples,
        seed=args.seed,
        start=read_start(_folder_beside(args.checkpoint)),
    )
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method and hides its signature
    evaluate(model, processor, dataset, out_dir, settings=settings)
    print((out_dir / "report.md").read_text())
    print(f"Written: {out_dir}/metrics.json, report.md, figures/")


def check_results_folder(metrics: Path, dataset_name: str, args: EvaluateArguments) -> None:
    """Keep the figures of another data set, unless the user names the folder that holds them.

    Raises:
        ValueError: If the folder beside the checkpoint holds figures of another data set.
    """
    if metrics.exists() and not args.out:
        measured = json.loads(metrics.read_text())["dataset"]["name"]
        if measured != dataset_name:
            raise ValueError(
                f"{metrics} holds figures of {measured}, not of {dataset_name}: name another folder with --out."
            )


def evaluate(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict,
    out_dir: Path,
    *,
    settings: EvaluationSettings,
    facts: DataFacts | None = None,
) -> dict[str, Any]:
    """Measure a model, and write `metrics.json`, `report.md` and `figures/`.

    Args:
        model: A LumbarCLIP model, on any device.
        processor: Its processor.
        dataset: Splits `train`, `validation` and the one to measure on.
        out_dir: Where to write. A `history.jsonl` there is drawn as training curves.
        settings: How to evaluate.
        facts: Of the data set; None: found here.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: If a split is missing or empty, or the model's features are not finite.
    """
    if settings.split not in dataset:
        raise ValueError(f"The data set has no split {settings.split!r}; it has {', '.join(dataset)}.")
    splits = {name: dataset[name] for name in ("train", "validation") if name in dataset}
    splits["test"] = dataset[settings.split]
    measured = measure(
        model,
        processor,
        splits,
        batch_size=settings.batch_size,
        with_baselines=settings.baselines,
        with_further=True,
        resampling=Resampling(settings.num_resamples, settings.seed),
        cache_dir=out_dir / FEATURES,
    )
    facts = facts or DataFacts(
        settings.dataset_name, {name: dataset[name] for name in (*list(splits)[:-1], settings.split)}
    )
    rows = {name: facts.rows_sha256[name] for name in (*list(splits)[:-1], settings.split)}
    description = describe(measured, splits["test"]["source"][:], rows, facts.leak_stamp, settings)
    results = as_results(measured, description, weights_sha256(model))
    figures = draw_figures(measured, results, splits["test"], read_history(out_dir), settings.seed)
    captions = {name: captioned.caption for name, captioned in figures.items()}

    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / METRICS).unlink(missing_ok=True)
    write_folder(out_dir / "figures", lambda folder: save_figures(figures, folder))
    unfinished = out_dir / ".report.md.unfinished"
    unfinished.write_text(evaluation_report(results, captions))
    unfinished.replace(out_dir / "report.md")
    write_json(out_dir / METRICS, results)  # last: where it is, the others are
    return results


def as_results(measured: Measurements, dataset: dict[str, Any], weights: str) -> dict[str, Any]:
    """Arrange what was measured as `metrics.json`; undefined figures are null, with the reason beside."""
    further = measured.further.figures if measured.further else {}
    return as_groups(measured) | {
        "further": {protocol: as_entries(estimates) for protocol, estimates in further.items()},
        "zero_shot_first_prompt": as_entries(measured.zero_shot_first),
        "prompts": measured.prompts,
        "dataset": dataset,
        "weights_sha256": weights,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def as_groups(figures: Figures) -> dict[str, Any]:
    """Arrange figures by protocol."""
    return {
        "linear_probe": as_entries(figures.probes.estimates),
        "zero_shot": as_entries(figures.zero_shot),
        "retrieval": as_entries(figures.retrieval),
        "baselines": {
            name: {
                "linear_probe": as_entries(probes.estimates),
                "difference": as_entries(figures.differences[name]),
            }
            for name, probes in figures.baselines.items()
        },
    }


def describe(
    measured: Measurements,
    sources: list[str],
    rows_of_split: dict[str, str],
    leak: dict[str, Any] | None,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Say what was measured on, and what of it lies in other splits, too."""
    return {
        "name": settings.dataset_name,
        "split": settings.split,
        "num_rows": len(sources),
        "num_patients": len(set(measured.targets["test"].patient_ids)),
        "rows_sha256": rows_of_split,
        "leak": leak,
        "start": settings.start,
        "synthetic": all(source.startswith("synthetic") for source in sources),
        "labels": count_labels(measured.targets["test"]),
    }


def save_figures(figures: dict[str, CaptionedFigure], folder: Path) -> None:
    """Write the figures as PNG."""
    for name, captioned in figures.items():
        captioned.figure.savefig(folder / name)


def _folder_beside(checkpoint: str) -> Path:
    """The folder that holds the checkpoint; for a model of the Hub, one under `runs`."""
    folder = Path(checkpoint)
    return folder.resolve().parent if folder.is_dir() else Path("runs") / folder.name


if __name__ == "__main__":
    sys.exit(run(main))
