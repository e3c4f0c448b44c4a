"""Evaluate a LumbarCLIP checkpoint on the held-out patients of a dataset.

    python train/evaluate_model.py --checkpoint runs/demo/checkpoint --dataset data/synthetic
    python train/evaluate_model.py --checkpoint USER/MODEL --dataset data/spider_discs --out runs/spider --no_baselines

Writes `metrics.json`, `predictions.parquet`, `report.md` and `figures/`: a linear probe on the frozen image features
and on baselines, zero-shot classification by prompts, and retrieval, with 95 % intervals over patients. `features/`
caches encoded images for the same weights and data; you may delete it.
"""

import sys
from pathlib import Path

from data_scripts.system.command_line import run
from data_scripts.system.staging import only_process
from data_scripts.system.whole_files import read_json
from train.evaluation.arguments import EvaluateArguments


def main(args: EvaluateArguments) -> None:
    """Load, evaluate, and print the report."""
    import torch

    from train.checkpoints.checkpoint import load_checkpoint
    from train.data.batch_sampler import TrainingSet
    from train.data.loaders import class_names, open_dataset
    from train.data.provenance import anatomy_of
    from train.evaluation import METRICS
    from train.evaluation.questions import asked_about
    from train.reporting.evaluation import EvaluationSettings, evaluate
    from train.training.run_folder import RUN, read_run, read_start

    model, processor = load_checkpoint(args.checkpoint)
    run_dir = _folder_beside(args.checkpoint)
    out_dir = Path(args.out) if args.out else run_dir
    run_arguments = read_run(run_dir).get("arguments", {}) if (run_dir / RUN).exists() else {}
    dataset = open_dataset(args.dataset, args.labels or run_arguments.get("labels", "findings"))
    settings = EvaluationSettings(
        dataset_name=Path(args.dataset).name,
        split=args.split,
        batch_size=args.batch_size,
        baselines=args.baselines,
        num_resamples=args.num_resamples,
        seed=args.seed,
        start=read_start(run_dir),
        training_set=TrainingSet.of(run_arguments),
    )
    processor = asked_about(processor, anatomy_of(args.dataset, dataset), class_names(dataset["train"]))
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method and hides its signature
    with only_process(out_dir):
        check_results_folder(out_dir / METRICS, Path(args.dataset).name, args)
        evaluate(model, processor, dataset, out_dir, settings=settings)
    print((out_dir / "report.md").read_text())
    print(f"Written: {out_dir}/metrics.json, predictions.parquet, report.md, figures/")


def check_results_folder(metrics: Path, dataset_name: str, args: EvaluateArguments) -> None:
    """Raise ValueError if the default folder holds metrics of another dataset."""
    if metrics.exists() and not args.out:
        results = read_json(metrics, "Delete it, or name another folder with --out.")
        measured = results.get("dataset", {}).get("name")
        if measured != dataset_name:
            raise ValueError(
                f"{metrics} has the metrics of {measured}, not of {dataset_name}: name another folder with --out."
            )


def _folder_beside(checkpoint: str) -> Path:
    """The parent of the checkpoint's folder; for a model on the Hub, a folder under `runs`."""
    folder = Path(checkpoint)
    return folder.resolve().parent if folder.is_dir() else Path("runs") / folder.name


if __name__ == "__main__":
    sys.exit(run(main))
