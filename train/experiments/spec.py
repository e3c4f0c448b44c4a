"""An experiment file: which systems are compared on which data, and the runs that follow from it.

Imports nothing heavy: `--help` reads it.
"""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from data_scripts.system.command_line import JsonMapping, check_choices, is_settings_file, parse_arguments, setting
from train.experiments.systems import SYSTEMS, System
from train.pretraining.arguments import PretrainArguments
from train.reporting.run_report import SYSTEM_NAMES
from train.segmentation.arguments import FinetuneSegmentationArguments
from train.training.arguments import TrainingArguments

# Those of `train.evaluation.baselines` that need no model; the untrained tower is a system.
Baseline = Literal["majority", "pixel_pca", "hog", "texture", "imagenet", "no_pixels", "resolution_limit", "none"]
OF_MASKS = ("resolution_limit",)
BASELINES = tuple(name for name in get_args(Baseline) if name not in (*OF_MASKS, "none"))  # of labels and grades
ARGUMENTS: Mapping[str, type[TrainingArguments]] = {
    "pretraining": PretrainArguments,
    "segmentation": FinetuneSegmentationArguments,
}
# Corrections of class imbalance are fitted only to the unprojected features.
Headline = Literal[
    "paper/unprojected",
    "paper/projected",
    "logistic/unprojected",
    "logistic/projected",
    "knn/unprojected",
    "knn/projected",
    "paper_balanced/unprojected",
    "paper_logit_adjusted/unprojected",
]
RUN_OF = "pid_run"  # the setting that names another run: in an experiment, the title of another system
DEFAULT_HEADLINE = "logistic/unprojected"
RUNS = "runs"
# An experiment sets these once for all of its runs.
SAID_BY_THE_EXPERIMENT = {
    "dataset": "dataset",
    "labels": "labels",
    "allow_leaks": "allow_leaks",
    "output_dir": "out",
    "seed": "seeds",
    "overwrite": "overwrite",
    "resume": "nothing: an experiment always resumes",
    "evaluate": "nothing: every run is measured",
    "baselines": "baselines",
    "more_datasets": "nothing: all systems learn from the one dataset",
}


@dataclass
class ExperimentArguments:
    """Pretrain and compare several systems on one dataset."""

    description: str = setting("", "The question of the experiment, in a sentence or two; opens its report.")
    dataset: str = setting("", "Folder that data_scripts.build wrote, or a Hub id of such a dataset.")
    labels: Literal["findings", "paper"] = setting(
        "findings", "Classes of all runs: those of the dataset; or as in the paper, LBP for any finding, or No Finding."
    )
    allow_leaks: bool = setting(
        False, "Accept splits that share patients, studies or (near-)equal images, and mark the results."
    )
    out: str = setting("", "Folder of the experiment; empty: experiments/ and the name of the file.")
    seeds: list[int] = setting([0], "Seeds; each system is run with each of them.")
    folds: int | None = setting(
        None, "Folds of the patients, at least 3, each the test split once; none: the dataset's own splits."
    )
    settings: JsonMapping = setting(
        JsonMapping(), "Settings of train/pretrain.py, or of train/finetune_segmentation.py, that all runs share."
    )
    systems: JsonMapping = setting(
        JsonMapping(), 'Title of each system, and {"system": NAME} with its own settings, which override the shared.'
    )
    overrides: JsonMapping = setting(
        JsonMapping(), "Settings that override those of every system, such as '{\"batch_size\": 8}' for a trial."
    )
    epochs: int | None = setting(None, "Passes over the training pairs; replaces the setting of the file.")
    max_updates: int | None = setting(None, "Stop each run after this many updates; replaces the setting of the file.")
    baselines: list[Baseline] = setting(
        [], "Baselines to measure in addition to the systems; empty: all of their kind; none: none."
    )
    headline: Headline = setting(
        DEFAULT_HEADLINE, "Probe and features that lead the tables, as PROBE/FEATURES; of masks, macro Dice leads."
    )
    reference: str = setting(
        "", "Title that the other systems are subtracted from; empty: the first LumbarCLIP, or the first of all."
    )
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")
    keep_checkpoints: bool = setting(False, "Keep the checkpoint of each run once it has been measured.")
    retry_failed: bool = setting(False, "Start runs that diverged or failed again.")
    overwrite: bool = setting(False, "Delete out first, if it exists.")
    dry_run: bool = setting(False, "Train nothing: list the runs, measure their speed, estimate their time.")

    def __post_init__(self) -> None:
        """Check the values before anything is loaded."""
        check_choices(self)
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
        of_kind = list(OF_MASKS if self.kind == "segmentation" else BASELINES)
        if others := [name for name in self.baselines if name not in (*of_kind, "none")]:
            raise ValueError(f"baselines: {', '.join(others)} cannot be measured here; choose of {', '.join(of_kind)}.")
        self.baselines = [name for name in self.baselines or of_kind if name != "none"]
        if self.kind == "segmentation" and self.headline != DEFAULT_HEADLINE:
            raise ValueError(f"headline {self.headline} is a probe; segmentation is led by macro Dice: leave it out.")
        names = {name.lower() for baseline in (*BASELINES, *OF_MASKS) for name in (baseline, SYSTEM_NAMES[baseline])}
        if taken := [title for title in self.systems if title.lower() in names]:
            raise ValueError(f"systems: {', '.join(taken)} is the name of a baseline in the report; rename the system.")
        if self.reference:
            _check_known("reference", self.reference, self.systems)

    @property
    def kind(self) -> str:
        """What the systems are: `pretraining` or `segmentation`.

        Raises:
            ValueError: If they are not of one kind.
        """
        kinds = {title: _system_of(f"systems: {title!r}", entry).kind for title, entry in self.systems.items()}
        if len(set(kinds.values())) > 1:
            each = ", ".join(f"{title} ({kind})" for title, kind in kinds.items())
            raise ValueError(f"systems: {each} cannot be measured together: give each kind an experiment of its own.")
        return next(iter(kinds.values()))


@dataclass(frozen=True)
class ExperimentRun:
    """One system, one seed, one fold."""

    run_id: str  # name of its folder
    title: str  # of the system in this experiment
    system: System
    seed: int  # of weights, order and choices
    fold: int | None  # the fold it is measured on; None for the dataset's own splits
    arguments: Any  # settings of its training, of the class in `ARGUMENTS`


def default_folder(words: Iterable[str]) -> str:
    """Name the folder of an experiment after its file, one of the words of the command line.

    Raises:
        ValueError: If none of them is a YAML file.

    Example:
        >>> default_folder(["train/configs/experiments/spider.yaml", "--dry_run"])
        'experiments/spider'
    """
    for word in words:
        if is_settings_file(word):
            return f"experiments/{Path(word).stem}"
    raise ValueError("out is empty: name a folder with --out, such as experiments/mine, or give an experiment file.")


def plan_runs(experiment: ExperimentArguments) -> list[ExperimentRun]:
    """List the runs of an experiment in their order: every system runs once before any runs a second time.

    Raises:
        ValueError: If a system or a setting is unknown, a setting cannot work, or two titles make one folder name.

    Example:
        >>> asked = ExperimentArguments(dataset="d", out="s", seeds=[0, 1], systems={"A": {"system": "clip"},
        ...     "B": {"system": "lumbarclip", "projection_dim": 64}})
        >>> [(run.run_id, run.arguments.projection_dim, run.arguments.alpha) for run in plan_runs(asked)]
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
    """Make a folder name from a title.

    Example:
        >>> slug("LumbarCLIP, ViT (256)")
        'lumbarclip-vit-256'
    """
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")


def _system_of(where: str, entry: Any) -> System:
    if not isinstance(entry, Mapping) or "system" not in entry:
        raise ValueError(f"{where} must be a mapping with `system`, one of {', '.join(SYSTEMS)}; got {entry!r}.")
    _check_known(f"{where} names the system", entry["system"], SYSTEMS)
    return SYSTEMS[entry["system"]]


def _plan_run(experiment: ExperimentArguments, title: str, entry: Any, seed: int, fold: int | None) -> ExperimentRun:
    where = f"systems: {title!r}"
    system = _system_of(where, entry)
    known = ARGUMENTS[system.kind]
    own = {name: value for name, value in entry.items() if name != "system"}
    for place, given in (("settings", experiment.settings), (where, own), ("overrides", experiment.overrides)):
        _check_settings(place, given, known)

    run_id = run_name(title, seed, fold)
    given_budget = {"epochs": experiment.epochs, "max_updates": experiment.max_updates}
    budget = {name: value for name, value in given_budget.items() if value is not None}
    of_experiment = {
        "dataset": experiment.dataset,
        "labels": experiment.labels,
        "allow_leaks": experiment.allow_leaks,
        "output_dir": str(Path(experiment.out) / RUNS / run_id),
        "seed": seed,
        "resume": True,
    }
    if system.kind == "pretraining":
        of_experiment |= {"evaluate": False, "baselines": False}
    merged = {**experiment.settings, **system.settings, **own, **experiment.overrides, **budget, **of_experiment}
    if system.kind == "pretraining":
        merged.setdefault("objectives", system.objective)
    if other := merged.get(RUN_OF):
        merged[RUN_OF] = str(
            Path(experiment.out) / RUNS / run_name(_earlier(where, title, other, experiment), seed, fold)
        )
    try:  # through the parser of the command line, because YAML 1.1 reads 1e-4 as a string
        arguments: Any = parse_arguments(known, [], defaults=merged)
    except (ValueError, TypeError, ArgumentError) as error:
        raise ValueError(f"{where} cannot be run: {error}") from error
    if system.kind == "pretraining" and system.trained and system.objective not in arguments.objectives:
        raise ValueError(
            f"{where} is {system.name}, but sets the objectives {', '.join(arguments.objectives)}: leave them out, add "
            f"{system.objective}, or name the system that has them."
        )
    return ExperimentRun(run_id, title, system, seed, fold, arguments)


def run_name(title: str, seed: int, fold: int | None) -> str:
    """Name the folder of a run.

    Example:
        >>> run_name("U-Net", 0, 2)
        'u-net-seed0-fold2'
    """
    return slug(title) + f"-seed{seed}" + ("" if fold is None else f"-fold{fold}")


def _earlier(where: str, title: str, other: str, experiment: ExperimentArguments) -> str:
    """Check that a system whose run another one reads is done before it."""
    before = list(experiment.systems)[: list(experiment.systems).index(title)]
    if other not in before:
        raise ValueError(
            f"{where} sets {RUN_OF} to {other!r}: name a system listed above it, whose run of the same seed and fold "
            f"it reads ({', '.join(before) or 'there is none'})."
        )
    return other


def _check_settings(where: str, given: Mapping[str, Any], known: type[TrainingArguments]) -> None:
    for name in given:
        if name in SAID_BY_THE_EXPERIMENT:
            raise ValueError(
                f"{where} sets {name!r}, which an experiment sets once for all runs: {SAID_BY_THE_EXPERIMENT[name]}."
            )
        _check_known(f"{where} sets", name, [item.name for item in fields(known)])


def _check_known(where: str, name: str, known: Iterable[str]) -> None:
    if name not in (known := list(known)):
        of_lower_case = {word.lower(): word for word in known}
        nearest = difflib.get_close_matches(str(name).lower(), of_lower_case, n=1)
        hint = f"Did you mean {of_lower_case[nearest[0]]}?" if nearest else f"Known: {', '.join(known)}."
        raise ValueError(f"{where} {name!r}, which is not known. {hint}")
