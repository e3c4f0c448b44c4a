"""Run an experiment: every run that is not done, then the metrics of all of them together, then the report."""

import logging
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from data_scripts.system.staging import HIDDEN_LOCK_NAME, holds_nothing
from data_scripts.system.whole_files import read_json, write_json, write_text
from train.evaluation.baselines import why_left_out
from train.evaluation.predictions import PREDICTIONS, Predictions, pool
from train.evaluation.statistics.bootstrap import Resampling
from train.experiments.data import ExperimentData, keep_folds, open_experiment_data
from train.experiments.kinds import kind_named
from train.experiments.plan import estimate_runs, plan_table
from train.experiments.progress import in_words, progress_table, remaining_seconds
from train.experiments.results import measure_experiment
from train.experiments.runner import (
    DONE,
    Summary,
    check_runs_unchanged,
    do_run,
    folder_of,
    forget,
    read_summary,
)
from train.experiments.spec import ExperimentArguments, ExperimentRun, plan_runs
from train.reporting.experiment.report import write_report
from train.training.distributed import waiting_process_group
from train.training.run_folder import only_run, read_start

logger = logging.getLogger(__name__)

EXPERIMENT, RESULTS, PLAN, PROGRESS = "experiment.json", "results.json", "plan.json", "progress.md"
OURS = (EXPERIMENT, PLAN)  # either marks a folder as an experiment's


def run_experiment(experiment: ExperimentArguments) -> None:
    """Do every run that is not done, measure all of them together, write the report.

    Raises:
        ValueError: If a setting cannot work, the folder or the dataset cannot be used, or another process runs an
            experiment in that folder.
    """
    accelerator = Accelerator(kwargs_handlers=[waiting_process_group()])
    out, runs = Path(experiment.out), plan_runs(experiment)
    check_folder(out)
    with only_run(out, accelerator):
        check_same_folds(out, experiment)
        if not experiment.overwrite:
            check_predictions(runs)
        data = open_experiment_data(experiment, accelerator.is_main_process)
        if experiment.dry_run:
            show_plan(out, runs, data, accelerator)
            return
        begin(experiment, runs, data, accelerator)
        do_runs(experiment, runs, data, accelerator)
        if accelerator.is_main_process:
            report(out, experiment, runs, data)
        accelerator.wait_for_everyone()
    accelerator.end_training()


def check_folder(out: Path) -> None:
    """Check that a folder is empty or an experiment's, so that nothing else is mixed with it or overwritten."""
    left_by_a_kill = (HIDDEN_LOCK_NAME, *(f".{name}.unfinished" for name in OURS))
    is_ours = any((out / name).exists() for name in OURS)
    if out.is_file() or (out.is_dir() and not is_ours and not holds_nothing(out, left_by_a_kill)):
        raise ValueError(
            f"{out} exists and is not an experiment: name another folder with --out, or remove it yourself."
        )


def check_same_folds(out: Path, experiment: ExperimentArguments) -> None:
    """Check that an experiment begun in the folder has the same folds, since its runs predict their rows."""
    path = out / EXPERIMENT
    if path.exists() and not experiment.overwrite:
        described = read_json(path, "Restore it, or start again with --overwrite.")
        before = described.get("experiment", {}).get("folds")
        if before != experiment.folds:
            cuts = [f"{folds} folds" if folds else "the dataset's own splits" for folds in (before, experiment.folds)]
            raise ValueError(
                f"{out} has an experiment on {cuts[0]}, and this one uses {cuts[1]}: name another folder with --out, "
                "or start again with --overwrite."
            )


def check_predictions(runs: Sequence[ExperimentRun]) -> None:
    """Check that finished runs have their predictions, before any other run is trained."""
    done = [run for run in runs if (summary := read_summary(run)) is not None and summary["state"] == DONE]
    if lacking := [folder_of(run) for run in done if not (folder_of(run) / PREDICTIONS).exists()]:
        raise ValueError(
            f"{', '.join(map(str, lacking))}: finished, but without {PREDICTIONS}; an earlier version made it, or the "
            "file was deleted. Start again with --overwrite, or name another folder with --out."
        )


def worst_start(runs: Sequence[ExperimentRun]) -> dict[str, Any] | None:
    """Find the starting weights most likely to have seen test patients; None if all runs began from towers."""
    starts = [start for run in runs if (start := read_start(folder_of(run))) is not None]
    return max(starts, key=lambda start: ("same", "unknown", "other").index(start["rows"]), default=None)


def begin(
    experiment: ExperimentArguments, runs: Sequence[ExperimentRun], data: ExperimentData, accelerator: Accelerator
) -> None:
    """Make the experiment's folder, or check that its runs are unchanged; forget the runs to retry."""
    out = Path(experiment.out)
    accelerator.wait_for_everyone()  # all have checked
    if accelerator.is_main_process:
        if experiment.overwrite:
            delete_experiment(out)
        if experiment.retry_failed:
            for run in runs:
                if (summary := read_summary(run)) is not None and summary["state"] != DONE:
                    forget(run)
        out.mkdir(parents=True, exist_ok=True)
        described = describe(experiment, data) | {"runs": [run.run_id for run in runs]}
        if not (out / EXPERIMENT).exists():  # first: if killed now, the folder is still known as an experiment's
            write_json(out / EXPERIMENT, described)
        keep_folds(data, out)
    accelerator.wait_for_everyone()
    check_runs_unchanged(runs, data.folds, accelerator)
    if accelerator.is_main_process:
        write_json(out / EXPERIMENT, described)
    accelerator.wait_for_everyone()


def delete_experiment(out: Path) -> None:
    """Delete what an experiment has written; the files that mark it go last, so that it can be deleted again."""
    for path in sorted(out.iterdir() if out.exists() else (), key=lambda path: path.name in OURS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != HIDDEN_LOCK_NAME:
            path.unlink()


def do_runs(
    experiment: ExperimentArguments, runs: Sequence[ExperimentRun], data: ExperimentData, accelerator: Accelerator
) -> None:
    """Do the runs that have not ended, one after the other, with all processes; show the progress after each."""
    summaries = {run.run_id: summary for run in runs if (summary := read_summary(run)) is not None}
    waiting = [run for run in runs if run.run_id not in summaries]
    if accelerator.is_main_process and summaries:
        logger.info("%d of %d runs have ended already.", len(summaries), len(runs))
    bar = tqdm(waiting, desc="experiment", unit=" runs", disable=not accelerator.is_main_process)
    for run in bar:
        bar.set_postfix_str(run.run_id)
        summaries[run.run_id] = do_run(run, data.folds[run.fold or 0], accelerator, experiment.keep_checkpoints)
        if accelerator.is_main_process:
            show_progress(experiment, runs, data, summaries)


def show_progress(
    experiment: ExperimentArguments,
    runs: Sequence[ExperimentRun],
    data: ExperimentData,
    summaries: Mapping[str, Summary],
) -> None:
    """Print and keep the table of finished runs."""
    kind, headline = kind_named(experiment.kind), experiment.headline
    done = [run for run in runs if run.run_id in summaries and summaries[run.run_id]["state"] == DONE]
    values = {run.run_id: kind.quick_metric(folder_of(run) / PREDICTIONS, headline) for run in done}
    table = progress_table(runs, summaries, values, kind.quick_name(headline, data.targets.exclusive))
    left = remaining_seconds(runs, summaries)
    status = f"{len(summaries)} of {len(runs)} runs have ended; left: {'unknown' if left is None else in_words(left)}."
    tqdm.write(f"\n{table}\n{status}\n")
    write_text(Path(experiment.out) / PROGRESS, f"{table}\n\n{status}\n")


def report(out: Path, experiment: ExperimentArguments, runs: Sequence[ExperimentRun], data: ExperimentData) -> None:
    """Measure all finished runs on the same rows, and write results and report."""
    summaries = [summary for run in runs if (summary := read_summary(run)) is not None]
    kind, baseline_folder = kind_named(experiment.kind), out / "baselines"
    of_folds = [kind.baselines_of(runs[0], fold, experiment.baselines, baseline_folder) for fold in data.folds]
    predictions, left_out = pooled_predictions(runs, len(data.folds))
    baselines: dict[str, Predictions] = {}
    for name in (name for name in experiment.baselines if all(name in of_fold for of_fold in of_folds)):
        baselines[name], lacking = pool([of_fold[name] for of_fold in of_folds])
        left_out |= {name: lacking} if lacking else {}
    systems, resampling = {run.title: describe_system(run) for run in runs}, Resampling(experiment.num_resamples)
    measured = predictions, baselines, data.targets, summaries, resampling, experiment.headline, systems
    results = measure_experiment(*measured, experiment.reference or None)
    results |= describe(experiment, data) | {"left_out_predictions": left_out}
    results["left_out_baselines"] = {} if "imagenet" in baselines else why_left_out(experiment.baselines)
    results["dataset"]["start"] = worst_start(runs)
    write_report(results, out)
    write_json(out / RESULTS, results)  # last: if it exists, so do the others
    print((out / "report.md").read_text())
    if badly := sum(summary["state"] != DONE for summary in summaries):
        logger.warning("%d of %d runs failed: see the report. Rerun with --retry_failed.", badly, len(runs))
    print(f"Written: {out}/results.json, report.md, report.html, figures/")


def pooled_predictions(
    runs: Sequence[ExperimentRun], num_folds: int
) -> tuple[dict[str, dict[int, Predictions]], dict[str, list[str]]]:
    """Read the predictions of each system and seed, all folds together; a seed that lacks a fold is left out.

    Returns:
        Predictions by title and seed, and by title the names of those left out because not all folds have them.
    """
    predictions: dict[str, dict[int, Predictions]] = {run.title: {} for run in runs}
    left_out: dict[str, list[str]] = {}
    for title, seed in dict.fromkeys((run.title, run.seed) for run in runs):
        of_seed = [run for run in runs if (run.title, run.seed) == (title, seed)]
        done = [run for run in of_seed if (summary := read_summary(run)) is not None and summary["state"] == DONE]
        if len(done) == num_folds:
            of_folds = [kind_named(run.system.kind).read_predictions(folder_of(run) / PREDICTIONS)[0] for run in done]
            predictions[title][seed], lacking = pool(of_folds)
            if lacking:
                left_out[title] = sorted({*left_out.get(title, ()), *lacking})
    return predictions, left_out


def describe_system(run: ExperimentRun) -> dict[str, Any]:
    """Describe the system behind a title."""
    published = {name: getattr(run.system, name) for name in ("name", "source", "deviations")}
    return published | kind_named(run.system.kind).describe_settings(run)


def describe(experiment: ExperimentArguments, data: ExperimentData) -> dict[str, Any]:
    """Record the experiment, its data, the command and the date."""
    return {
        "experiment": {"name": Path(experiment.out).name, **asdict(experiment)},
        "dataset": data.describe(),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show_plan(out: Path, runs: Sequence[ExperimentRun], data: ExperimentData, accelerator: Accelerator) -> None:
    """Print and write the estimated time of each run."""
    planned = estimate_runs(runs, data.folds, accelerator)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        where = {"device": accelerator.device.type, "num_processes": accelerator.num_processes}
        write_json(out / PLAN, {"runs": planned, **where, "dataset": data.describe()})
        print(plan_table(planned))
        print("Decoding, validation and predicting are not counted.")
