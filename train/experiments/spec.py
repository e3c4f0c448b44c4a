"""An experiment file: which systems are compared on which data, and the runs that this comes to."""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data_scripts.system.command_line import JsonMapping, parse_arguments, setting
from train.evaluation import baselines
from train.evaluation.predictions import PROBES, PROJECTED, UNPROJECTED
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.experiments.systems import SYSTEMS, System
from train.pretraining.arguments import PretrainArguments
from train.reporting.report import SYSTEM_NAMES

# Baselines that need no model; what an untrained tower gives is a system.
BASELINES = tuple(name for name in baselines.BASELINES if name != "untrained")
# What the runs answer by: remedies for rare classes are fitted to the unprojected features alone.
HEADLINES = (
    *(f"{probe}/{space}" for probe in PROBES for space in (UNPROJECTED, PROJECTED)),
    *(f"{remedy}/{UNPROJECTED}" for remedy in PROBE_LOSSES if remedy not in PROBES),
)
RUNS = "runs"
# An experiment says these once, for all of its runs.
SAID_BY_THE_EXPERIMENT = {
    "dataset": "dataset",
    "allow_leaks": "allow_leaks",
    "output_dir": "out",
    "seed": "seeds",
    "overwrite": "overwrite",
    "resume": "nothing: an experiment always goes on",
    "evaluate": "nothing: every run is measured",
    "baselines": "baselines",
}


@dataclass
class ExperimentArguments:
    """Pretrain and compare several systems on one data set."""

    description: str = setting("", "What the experiment asks, in a sentence or two; opens its report.")
    dataset: str = setting("", "Folder that data_scripts.build wrote, or a Hub id of such a dataset.")
    allow_leaks: bool = setting(
        False,
        "Take a data set whose splits share patients, studies or (near-)equal images; its figures are then marked.",
    )
    out: str = setting("", "Folder of the results; empty: experiments/ and the name of the file.")
    seeds: list[int] = setting([0], "Seeds; each system is run with each of them.")
    folds: int | None = setting(
        None, "Folds of the patients, at least 3, each the test split once; none: the data set's own splits."
    )
    settings: JsonMapping = setting(JsonMapping(), "Settings of train/pretrain.py that all runs share.")
    systems: JsonMapping = setting(
        JsonMapping(), 'Title of each system, and {"system": NAME} with settings of its own, which win over the shared.'
    )
    overrides: JsonMapping = setting(
        JsonMapping(),
        "Settings that win over those of every system, such as '{\"batch_size\": 8}' to try an experiment out.",
    )
    epochs: int | None = setting(None, "Passes over the training pairs, in place of what the file says.")
    max_updates: int | None = setting(None, "Stop each run after so many updates, in place of what the file says.")
    baselines: list[str] = setting(list(BASELINES), f"Probed beside the systems: {', '.join(BASELINES)}; none.")
    headline: str = setting("logistic/unprojected", "Probe and features that lead the tables, as PROBE/FEATURES.")
    reference: str = setting(
        "", "Title that the other systems are subtracted from; empty: the first LumbarCLIP, or the first of all."
    )
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")
    keep_checkpoints: bool = setting(False, "Keep the checkpoint of each run once it has been measured.")
    retry_failed: bool = setting(False, "Start runs again that diverged or failed; without, they stay as they are.")
    overwrite: bool = setting(False, "Delete out first, if it exists.")
    dry_run: bool = setting(False, "Train nothing: list the runs, measure their speed, estimate their time.")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        if not self.dataset:
            raise ValueError("dataset is empty: name the folder that `python -m data_scripts.build --out` wrote.")
        if not self.systems:
            raise ValueError(f"systems is empty: give titles, each with one of {', '.join(SYSTEMS)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more different numbers; got {self.seeds}.")
        if self.folds is not None and self.folds < 3:
            raise ValueError(f"folds must be at least 3 (training, validation, test), or left out; got {self.folds}.")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1; got {self.num_resamples}.")
        self.baselines = [name for name in self.baselines if name != "none"]
        for name in self.baselines:
            _check_known("baselines", name, BASELINES)
        names_of_baselines = {name.lower() for baseline in BASELINES for name in (baseline, SYSTEM_NAMES[baseline])}
        if taken := [title for title in self.systems if title.lower() in names_of_baselines]:
            raise ValueError(f"systems: {', '.join(taken)} is the name of a baseline in the report; rename the system.")
        if self.reference:
            _check_known("reference", self.reference, self.systems)
        if self.headline.count("/") != 1:
            raise ValueError(f"headline is PROBE/FEATURES, such as logistic/unprojected; got {self.headline!r}.")
        _check_known("headline", self.headline, HEADLINES)


@dataclass(frozen=True)
class ExperimentRun:
    """One system, one seed, one fold.

    Args:
        run_id: Name of its folder.
        title: Of the system in this experiment.
        system: What it is.
        seed: Of weights, order and choices.
        fold: The fold it is measured on; None where the data set's own splits are used.
        arguments: Settings of its pretraining.
    """

    run_id: str
    title: str
    system: System
    seed: int
    fold: int | None
    arguments: PretrainArguments


def read_experiment(argv: list[str]) -> ExperimentArguments:
    """Read `EXPERIMENT.yaml [--name value ...]`; the command line wins.

    Args:
        argv: Words of the command line.

    Returns:
        The experiment; `out` is filled in.

    Raises:
        ValueError: If something in it is unknown or cannot work; the message names the nearest known word.
        FileNotFoundError: If there is no such file.
    """
    experiment = parse_arguments(ExperimentArguments, argv)
    if not experiment.out:
        if not argv or not argv[0].endswith((".yaml", ".yml")):
            raise ValueError(
                "out is empty: name a folder, such as experiments/mine, or give the YAML of an experiment."
            )
        experiment.out = f"experiments/{Path(argv[0]).stem}"
    plan_runs(experiment)  # a mistake in the last system should not wait for the first to be trained
    return experiment


def plan_runs(experiment: ExperimentArguments) -> list[ExperimentRun]:
    """List the runs of an experiment, in the order in which they are done: every system once before any a second time.

    Args:
        experiment: The experiment.

    Returns:
        The runs.

    Raises:
        ValueError: If a system or a setting is unknown, a setting cannot work, or two titles make one folder name.

    Example:
        >>> experiment = ExperimentArguments(dataset="d", out="s", seeds=[0, 1], systems={"A": {"system": "clip"},
        ...     "B": {"system": "lumbarclip", "projection_dim": 64}})
        >>> [(run.run_id, run.arguments.projection_dim, run.arguments.alpha) for run in plan_runs(experiment)]
        [('a-seed0', 256, 1.0), ('b-seed0', 64, 0.5), ('a-seed1', 256, 1.0), ('b-seed1', 64, 0.5)]
    """
    slugs = [slug(title) for title in experiment.systems]
    if repeated := {of_title for of_title in slugs if slugs.count(of_title) > 1}:
        raise ValueError(f"Several systems would share the folder name {', '.join(sorted(repeated))}; rename them.")
    folds: Iterable[int | None] = [None] if experiment.folds is None else range(experiment.folds)
    return [
        _plan_run(experiment, title, entry, seed, fold)
        for seed in experiment.seeds
        for fold in folds
        for title, entry in experiment.systems.items()
    ]


def slug(title: str) -> str:
    """Make a folder name of a title.

    Example:
        >>> slug("LumbarCLIP, ViT (256)")
        'lumbarclip-vit-256'
    """
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")


def _plan_run(experiment: ExperimentArguments, title: str, entry: Any, seed: int, fold: int | None) -> ExperimentRun:
    where = f"systems: {title!r}"
    if not isinstance(entry, Mapping) or "system" not in entry:
        raise ValueError(f"{where} must be a mapping with `system`, one of {', '.join(SYSTEMS)}; got {entry!r}.")
    _check_known(f"{where} names the system", entry["system"], SYSTEMS)
    system = SYSTEMS[entry["system"]]
    own = {name: value for name, value in entry.items() if name != "system"}
    for place, given in (("settings", experiment.settings), (where, own), ("overrides", experiment.overrides)):
        _check_settings(place, given)

    run_id = slug(title) + f"-seed{seed}" + ("" if fold is None else f"-fold{fold}")
    budget = {
        name: getattr(experiment, name) for name in ("epochs", "max_updates") if getattr(experiment, name) is not None
    }
    of_experiment = {
        "dataset": experiment.dataset,
        "allow_leaks": experiment.allow_leaks,
        "output_dir": str(Path(experiment.out) / RUNS / run_id),
        "seed": seed,
        "resume": True,
        "evaluate": False,
        "baselines": False,
    }
    merged = {**experiment.settings, **system.settings, **own, **experiment.overrides, **budget, **of_experiment}
    if "objective" in system.settings and merged["objective"] != system.settings["objective"]:
        raise ValueError(
            f"{where} is {system.name}, but is given the objective {merged['objective']!r}: leave that out, or name "
            "the system that has it."
        )
    try:
        arguments = _as_arguments(merged)
    except (ValueError, TypeError, ArgumentError) as error:
        raise ValueError(f"{where} cannot be run: {error}") from error
    return ExperimentRun(run_id, title, system, seed, fold, arguments)


def _as_arguments(settings: Mapping[str, Any]) -> PretrainArguments:
    """Through the parser of the command line, because YAML 1.1 reads 1e-4 as a string."""
    return parse_arguments(PretrainArguments, [], defaults=settings)


def _check_settings(where: str, given: Mapping[str, Any]) -> None:
    for name in given:
        if name in SAID_BY_THE_EXPERIMENT:
            raise ValueError(
                f"{where} sets {name!r}, which an experiment says once for all runs: {SAID_BY_THE_EXPERIMENT[name]}."
            )
        _check_known(f"{where} sets", name, [item.name for item in fields(PretrainArguments)])


def _check_known(where: str, name: str, known: Iterable[str]) -> None:
    if name not in (known := list(known)):
        of_lower_case = {word.lower(): word for word in known}
        nearest = difflib.get_close_matches(str(name).lower(), of_lower_case, n=1)
        hint = f"Did you mean {of_lower_case[nearest[0]]}?" if nearest else f"Known: {', '.join(known)}."
        raise ValueError(f"{where} {name!r}, which is not known. {hint}")


__all__ = [
    "BASELINES",
    "HEADLINES",
    "RUNS",
    "ExperimentArguments",
    "ExperimentRun",
    "plan_runs",
    "read_experiment",
    "slug",
]
