"""Pretrain several systems on the same data, and test which is better, with intervals.

    accelerate launch train/compare_systems.py train/configs/experiments/small_cpu.yaml
    accelerate launch train/compare_systems.py train/configs/experiments/spider_folds.yaml
    accelerate launch train/compare_systems.py train/configs/experiments/paper.yaml --dry_run
    accelerate launch train/compare_systems.py train/configs/experiments/paper.yaml --max_updates 2 --out runs/short

Rerun to resume: a finished run is never repeated, an interrupted one continues from its last state. Systems take turns,
so that early results compare; `progress.md` in the experiment's folder shows them. At the end the folder has
`results.json`, `report.md`, `report.html` and `figures/`. With `folds: 5` an experiment is a cross-validation.
"""

import logging
import sys

from data_scripts.system.command_line import run
from train.experiments.spec import ExperimentArguments, default_folder, plan_runs

WHEN_INTERRUPTED = "Rerun without --overwrite to resume."  # what Ctrl-C says


def main(args: ExperimentArguments) -> None:
    """Name the folder, check all settings, run the experiment."""
    args.out = args.out or default_folder(sys.argv[1:])
    plan_runs(args)  # find a mistake in the last system before the first is trained

    from train.experiments.experiment import run_experiment

    logging.getLogger("train.training.loop").setLevel(logging.WARNING)  # its lines would break the progress bars
    for noisy in ("protocols.calibration", "statistics.bootstrap"):  # they log a line for every rare class of every run
        logging.getLogger(f"train.evaluation.{noisy}").setLevel(logging.ERROR)
    run_experiment(args)


if __name__ == "__main__":
    sys.exit(run(main))
