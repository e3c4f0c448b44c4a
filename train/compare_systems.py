"""Pretrain several systems on the same data, and say which is better and how sure that is.

    accelerate launch train/compare_systems.py train/configs/experiments/small_cpu.yaml
    accelerate launch train/compare_systems.py train/configs/experiments/paper.yaml --dry_run
    accelerate launch train/compare_systems.py train/configs/experiments/paper.yaml --max_updates 2 --out short

Rerun to resume: finished runs are never repeated, an interrupted one continues from its last state. Systems take turns,
so that early results compare; `progress.md` in the experiment's folder shows them. At the end the folder holds
`results.json`, `report.md`, `report.html` and `figures/`.
"""

import json
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
from safetensors.numpy import load_file
from tqdm.auto import tqdm

from data_scripts.system.whole_files import write_json, write_text
from train.evaluation.out_of_fold import Answers, pool_shared
from train.evaluation.statistics.bootstrap import Resampling
from train.experiments.data import ExperimentData, baselines_of, keep_folds, open_experiment_data
from train.experiments.plan import plan_experiment, plan_table
from train.experiments.progress import in_words, progress_table, quick_figure, remaining_seconds
from train.experiments.results import measure_experiment
from train.experiments.runner import (
    ANSWERS,
    DONE,
    Summary,
    check_runs_unchanged,
    do_run,
    folder_of,
    forget,
    naming_a_full_disk,
    read_summary,
)
from train.experiments.spec import ExperimentArguments, ExperimentRun, plan_runs, read_experiment
from train.reporting.experiment.report import write_report
from train.reporting.experiment.words import card_text
from train.training.distributed import waiting_process_group

logger = logging.getLogger(__name__)

EXPERIMENT, RESULTS, PLAN, PROGRESS = "experiment.json", "results.json", "plan.json", "progress.md"
OURS = (EXPERIMENT, PLAN)  # either says that a folder is an experiment's


def main(experiment: ExperimentArguments) -> None:
    """Do every run that is not done, measure all of them together, write the report."""
    accelerator = Accelerator(kwargs_handlers=[waiting_process_group()])
    out, runs = Path(experiment.out), plan_runs(experiment)
    check_folder(out)
    check_same_folds(out, experiment)
    data = open_experiment_data(experiment, accelerator.is_main_process)
    with naming_a_full_disk(out):
        if experiment.dry_run:
            show_plan(out, runs, data, accelerator)
            return
        begin(out, experiment, runs, data, accelerator)
        do_runs(out, experiment, runs, data, accelerator)
        if accelerator.is_main_process:
            report(out, experiment, runs, data)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def check_folder(out: Path) -> None:
    """Raise if a folder holds anything but an experiment, so that nothing else is mixed with it or overwritten."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in OURS)):
        raise ValueError(f"{out} exists and is no experiment: name another folder with --out, or remove it yourself.")


def check_same_folds(out: Path, experiment: ExperimentArguments) -> None:
    """Raise if a folder holds an experiment that cuts the patients otherwise: its runs answer for other rows."""
    path = out / EXPERIMENT
    if path.exists() and not experiment.overwrite:
        before = json.loads(path.read_text())["experiment"]["folds"]
        if before != experiment.folds:
            cuts = [f"{folds} folds" if folds else "the data set's own splits" for folds in (before, experiment.folds)]
            raise ValueError(
                f"{out} holds an experiment of {cuts[0]}, and this one is of {cuts[1]}: name another folder with "
                "--out, or start all over with --overwrite."
            )


def begin(
    out: Path,
    experiment: ExperimentArguments,
    runs: Sequence[ExperimentRun],
    data: ExperimentData,
    accelerator: Accelerator,
) -> None:
    """Make the experiment's folder, or check that it belongs to this experiment; forget what is to be tried again."""
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
        if not (out / EXPERIMENT).exists():  # first of all: killed now, the folder is known as an experiment's
            write_json(out / EXPERIMENT, described)
        keep_folds(data, out)
    accelerator.wait_for_everyone()
    check_runs_unchanged(runs, data.folds, accelerator)
    if accelerator.is_main_process:
        write_json(out / EXPERIMENT, described)
    accelerator.wait_for_everyone()


def delete_experiment(out: Path) -> None:
    """Delete what an experiment has written, and last what marks it as one: killed halfway, it can be deleted again."""
    for path in sorted(out.iterdir() if out.exists() else (), key=lambda path: path.name in OURS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def do_runs(
    out: Path,
    experiment: ExperimentArguments,
    runs: Sequence[ExperimentRun],
    data: ExperimentData,
    accelerator: Accelerator,
) -> None:
    """Do the runs that have not ended, one after the other, with all processes, and show what is there after each."""
    summaries = {run.run_id: summary for run in runs if (summary := read_summary(run)) is not None}
    waiting = [run for run in runs if run.run_id not in summaries]
    if accelerator.is_main_process and summaries:
        logger.info("%d of %d runs have ended already.", len(summaries), len(runs))
    bar = tqdm(waiting, desc="experiment", unit=" runs", disable=not accelerator.is_main_process)
    for run in bar:
        bar.set_postfix_str(run.run_id)
        summaries[run.run_id] = do_run(run, data.folds[run.fold or 0], accelerator, experiment.keep_checkpoints)
        if accelerator.is_main_process:
            show_progress(out, experiment.headline, runs, data, summaries)


def show_progress(
    out: Path, headline: str, runs: Sequence[ExperimentRun], data: ExperimentData, summaries: Mapping[str, Summary]
) -> None:
    """Print and keep the table of what is done."""
    figures = {}
    for run in runs:
        if run.run_id in summaries and summaries[run.run_id]["state"] == DONE:
            targets = data.targets.select(data.folds[run.fold or 0].rows, "test")
            figures[run.run_id] = quick_figure(load_file(folder_of(run) / ANSWERS), targets, headline)
    defined = {run_id: figure for run_id, figure in figures.items() if figure is not None}
    metric = "macro F1" if data.targets.exclusive else "macro AUROC"
    table = progress_table(runs, summaries, defined, f"{metric}, {headline}")
    left = remaining_seconds(runs, summaries)
    status = f"{len(summaries)} of {len(runs)} runs have ended; left: {'unknown' if left is None else in_words(left)}."
    tqdm.write(f"\n{table}\n{status}\n")
    write_text(out / PROGRESS, f"{table}\n\n{status}\n")


def report(out: Path, experiment: ExperimentArguments, runs: Sequence[ExperimentRun], data: ExperimentData) -> None:
    """Measure all finished runs on the same rows, and write what was found."""
    summaries = [summary for run in runs if (summary := read_summary(run)) is not None]
    baselines = [baselines_of(fold, experiment.baselines, out / "baselines") for fold in data.folds]
    answers, left_out = pooled_answers(runs, len(data.folds))
    pooled_baselines = {}
    for name in experiment.baselines:
        pooled_baselines[name], lacking = pool_shared([of_fold[name] for of_fold in baselines])
        left_out |= {name: lacking} if lacking else {}
    results = measure_experiment(
        answers,
        pooled_baselines,
        data.targets,
        summaries,
        Resampling(experiment.num_resamples),
        experiment.headline,
        systems={run.title: describe_system(run) for run in runs},
        reference=experiment.reference or None,
    )
    results |= describe(experiment, data) | {"left_out_answers": left_out}
    results["card_text"] = card_text(results)
    write_report(results, out)
    write_json(out / RESULTS, results)  # last: where it is, the others are
    print((out / "report.md").read_text())
    badly = [summary for summary in summaries if summary["state"] != DONE]
    if badly:
        logger.warning(
            "%d of %d runs did not end well, see the report. --retry_failed starts them again.", len(badly), len(runs)
        )
    print(f"Written: {out}/results.json, report.md, report.html, figures/")


def pooled_answers(
    runs: Sequence[ExperimentRun], num_folds: int
) -> tuple[dict[str, dict[int, Answers]], dict[str, list[str]]]:
    """Read the answers of each system: of each seed, all folds together; a seed that lacks a fold is left out.

    Args:
        runs: Of the experiment.
        num_folds: How many runs of a seed make it whole.

    Returns:
        Answers by title and seed, and by title the names of answers left out because not all folds have them.
    """
    answers: dict[str, dict[int, Answers]] = {run.title: {} for run in runs}
    left_out: dict[str, list[str]] = {}
    for title, seed in dict.fromkeys((run.title, run.seed) for run in runs):
        of_seed = [run for run in runs if (run.title, run.seed) == (title, seed)]
        done = [run for run in of_seed if (summary := read_summary(run)) is not None and summary["state"] == DONE]
        if len(done) == num_folds:
            answers[title][seed], lacking = pool_shared([load_file(folder_of(run) / ANSWERS) for run in done])
            if lacking:
                left_out[title] = sorted({*left_out.get(title, ()), *lacking})
    return answers, left_out


def describe_system(run: ExperimentRun) -> dict[str, Any]:
    """What a title stands for."""
    args = run.arguments
    return {
        "system": args.objective if run.system.trained else "untrained",
        "name": run.system.name,
        "source": run.system.source,
        "deviations": run.system.deviations,
        "vision": args.vision,
        "vision_model_args": dict(args.vision_model_args),
        "projection": args.projection,
        "projection_dim": args.projection_dim,
    }


def describe(experiment: ExperimentArguments, data: ExperimentData) -> dict[str, Any]:
    """Say what was asked, of which data, by which command and when."""
    return {
        "experiment": {"name": Path(experiment.out).name, **asdict(experiment)},
        "dataset": data.describe(),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show_plan(out: Path, runs: Sequence[ExperimentRun], data: ExperimentData, accelerator: Accelerator) -> None:
    """Print and keep what the experiment would come to."""
    planned = plan_experiment(runs, data.folds, accelerator)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        where = {"device": accelerator.device.type, "num_processes": accelerator.num_processes}
        write_json(out / PLAN, {"runs": planned, **where, "dataset": data.describe()})
        print(plan_table(planned))
        print("Decoding, validation and answering come on top.")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("accelerate", "train.training.loop"):  # lines of every state and run, across the progress bars
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for noisy in (
        "protocols.calibration",
        "statistics.bootstrap",
    ):  # a line for every rare class of every run; the report says what is not
        logging.getLogger(f"train.evaluation.{noisy}").setLevel(logging.ERROR)
    try:
        main(read_experiment(sys.argv[1:]))
    except (ValueError, FileNotFoundError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on (without --overwrite).", file=sys.stderr)
        sys.exit(130)  # as a shell says that Ctrl-C ended a command
