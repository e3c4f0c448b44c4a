"""The folder of a run: what it was started with, its history, and whether it may be resumed."""

import json
import platform
import shlex
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from accelerate import Accelerator

from data_scripts.system.whole_files import write_json, write_text

RUN = "run.json"
PACKAGES = (
    "lumbarclip",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "datasets",
    "accelerate",
    "tokenizers",
    "numpy",
)
# Settings that may change between a run and its resumption, because no trained weight depends on them.
FREE_SETTINGS = (
    "resume",
    "overwrite",
    "output_dir",
    "dataset",
    "num_workers",
    "save_every",
    "report_to",
    "evaluate",
    "baselines",
    "push_to_hub",
    "hub_repo_id",
    "hub_tag",
    "num_resamples",
)


class RunArguments(Protocol):
    """What the settings of every system have: a dataclass with these fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    output_dir: str
    resume: bool
    overwrite: bool


def check_output(output_dir: Path, run: dict[str, Any], args: RunArguments) -> None:
    """Refuse a folder that holds something else, before anything is loaded; changes nothing.

    Raises:
        ValueError: If it exists and neither --resume nor --overwrite was given, if the run to resume had other
            settings, or if what --overwrite would delete is no run.
    """
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    if args.resume and (output_dir / RUN).exists():
        check_same_settings(json.loads((output_dir / RUN).read_text()), run, output_dir)
    elif not args.overwrite:
        raise ValueError(
            f"{output_dir} exists and is not empty: --resume goes on with the run in it, --overwrite deletes it."
        )
    elif not (output_dir / RUN).exists():
        raise ValueError(
            f"{output_dir} is no earlier run (it has no {RUN}), so --overwrite leaves it; remove it yourself."
        )


def make_output(output_dir: Path, run: dict[str, Any], args: RunArguments, accelerator: Accelerator) -> None:
    """Make the folder of the run, or leave that of the run to resume; `check_output` has allowed it."""
    accelerator.wait_for_everyone()  # all have checked
    if accelerator.is_main_process:
        if args.overwrite:
            shutil.rmtree(output_dir, ignore_errors=True)
        if not (output_dir / RUN).exists():
            output_dir.mkdir(parents=True, exist_ok=True)
            write_json(output_dir / RUN, run)
    accelerator.wait_for_everyone()


def describe_run(args: RunArguments, accelerator: Accelerator, rows_of_split: dict[str, str]) -> dict[str, Any]:
    """Everything needed to repeat the run.

    Args:
        args: Settings.
        accelerator: Knows processes and precision.
        rows_of_split: Identity of the rows of each split.
    """
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": asdict(args),
        "rows_sha256": rows_of_split,
        "num_processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "device_name": device_name(accelerator.device),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def describe_start(checkpoint: str, rows_sha256: dict[str, str]) -> dict[str, Any]:
    """Say what the weights that a run starts from were trained on, as far as the run beside them tells.

    Args:
        checkpoint: Folder, or Hub id.
        rows_sha256: Identity of the rows of each split of this run.

    Returns:
        `checkpoint`; `is_folder`, which nobody can tell later from elsewhere: `demo/checkpoint` may be either; and
        `rows`: `same` if its run had the same splits, and so did what that run started from, so that no test patient
        was learned from; `other` if it had other ones; `unknown` without such a run.
    """
    folder = Path(checkpoint).resolve()
    return {"checkpoint": checkpoint, "is_folder": folder.is_dir(), "rows": _compare_rows(folder, rows_sha256)}


def _compare_rows(checkpoint: Path, rows_sha256: dict[str, str]) -> str:
    """`rows` of `describe_start`."""
    path = checkpoint.parent / RUN
    if not checkpoint.is_dir() or not path.exists():
        return "unknown"
    run = json.loads(path.read_text())
    if run.get("rows_sha256") != rows_sha256:
        return "other"
    start = run.get("start")
    if start is None and run["arguments"].get("init_checkpoint"):  # of a version that did not look
        return "unknown"
    return str(start["rows"]) if start else "same"


def read_start(output_dir: Path) -> dict[str, Any] | None:
    """What `describe_start` found when the run in a folder began; None if it began from towers, or is no run."""
    path = output_dir / RUN
    return json.loads(path.read_text()).get("start") if path.exists() else None


def device_name(device: torch.device) -> str:
    """Name a GPU by its model, a CPU by its architecture, which is all that Python knows of it everywhere."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def check_same_settings(before: dict[str, Any], now: dict[str, Any], output_dir: Path) -> None:
    """Raise if resuming would mix two different runs."""
    if changed := changed_settings(before, now):
        raise ValueError(
            f"{output_dir} holds a run with other settings ({'; '.join(changed)}). Resume with the same ones, or "
            "choose another output_dir."
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what of two runs, as `describe_run` gives them, would make their weights differ.

    Example:
        >>> run = {"arguments": {"batch_size": 8, "seed": 0}, "num_processes": 1, "rows_sha256": {}}
        >>> changed_settings(run, {**run, "arguments": {"batch_size": 8, "seed": 1}})
        ['seed: 0 then, 1 now']
    """
    old = {**before["arguments"], "pairs of a step": before["num_processes"] * before["arguments"]["batch_size"]}
    new = {**now["arguments"], "pairs of a step": now["num_processes"] * now["arguments"]["batch_size"]}
    ignored = {*FREE_SETTINGS, "batch_size"}  # two processes with half the batch are the same run
    changed = [
        f"{key}: {old.get(key)!r} then, {new[key]!r} now" for key in new.keys() - ignored if old.get(key) != new[key]
    ]
    changed += [
        f"rows of {split}: others"
        for split, rows in now["rows_sha256"].items()
        if before["rows_sha256"].get(split) != rows
    ]
    return sorted(changed)


def keep_history(path: Path, last_update: int, accelerator: Accelerator) -> None:
    """Forget the lines of updates that the resumed run will do again."""
    if accelerator.is_main_process and path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line.strip() for line in lines if line.endswith("\n")]  # a kill may have torn the last one
        kept = [line for line in whole if json.loads(line)["update"] <= last_update]
        write_text(path, "".join(f"{line}\n" for line in kept))
