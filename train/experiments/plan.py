"""The dry run of an experiment: the updates of each run, and how long it would take on this machine."""

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from data_scripts.system.markdown import markdown_table
from train.experiments.data import Fold
from train.experiments.kinds import kind_named
from train.experiments.progress import in_words
from train.experiments.spec import ExperimentRun
from train.training.loop import count_updates


def estimate_runs(
    runs: Sequence[ExperimentRun], folds: Sequence[Fold], accelerator: Accelerator
) -> list[dict[str, Any]]:
    """Count the updates of each run and estimate its time from a few measured steps of each kind of run.

    Returns:
        For each run its `run`, `updates`, `pairs`, `pairs_per_second` and `seconds`; all 0 or None where nothing is
        trained. Decoding, validation and predicting are not counted.
    """
    speeds: dict[str, float] = {}
    planned = []
    for run in tqdm(runs, desc="measuring speed", unit=" runs", disable=not accelerator.is_main_process):
        args, fold, kind = run.arguments, folds[run.fold or 0], kind_named(run.system.kind)
        if not run.system.trained:
            planned.append({"run": run.run_id, "updates": 0, "pairs": 0, "pairs_per_second": None, "seconds": 0.0})
            continue
        alike = kind.speed_of(run)
        if alike not in speeds:
            speeds[alike] = kind.pairs_per_second(run, fold, accelerator)
        updates = count_updates(args, kind.steps_of_epoch(run, fold, accelerator))
        pairs = updates * args.gradient_accumulation_steps * args.batch_size * accelerator.num_processes
        time_of_run = {"pairs_per_second": speeds[alike], "seconds": pairs / speeds[alike]}
        planned.append({"run": run.run_id, "updates": updates, "pairs": pairs, **time_of_run})
    return planned


def plan_table(planned: Sequence[dict[str, Any]]) -> str:
    """Lay out the plan, with the total in the last line."""
    rows = [
        [
            of_run["run"],
            f"{of_run['updates']:,}",
            f"{of_run['pairs']:,}",
            "-" if of_run["pairs_per_second"] is None else f"{of_run['pairs_per_second']:.1f}",
            in_words(of_run["seconds"]),
        ]
        for of_run in planned
    ]
    total = {name: sum(of_run[name] for of_run in planned) for name in ("updates", "pairs", "seconds")}
    sums = f"{total['updates']:,}", f"{total['pairs']:,}", "", in_words(total["seconds"])
    rows.append([f"{len(planned)} runs", *sums])
    return markdown_table(["run", "updates", "pairs", "pairs/s", "training"], rows)
