"""The folder of a run: its settings and start, its history, and whether it may be resumed."""

import json
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from data_scripts.system.staging import HIDDEN_LOCK_NAME, holds_nothing, only_process
from data_scripts.system.whole_files import read_json, write_json, write_text
from train.checkpoints.packaged_towers import describe_packaged
from train.training.arguments import TrainingArguments
from train.training.history import read_history

RUN = "run.json"
DELETED_RUN = ".run.json.deleted"  # what `RUN` is called while the rest of its run is deleted
DRY_RUN = ".dry_run"  # what a finished run leaves, written and deleted before the first update
_LEFT_BY_A_KILL = (HIDDEN_LOCK_NAME, f".{RUN}.unfinished", DELETED_RUN, DRY_RUN)
PACKAGES = (
    *("lumbarclip", "torch", "torchvision", "timm", "transformers", "datasets"),
    *("accelerate", "tokenizers", "numpy"),
)
# Settings that may change when a run is resumed, because no trained weight depends on them.
FREE_SETTINGS = (
    *("resume", "overwrite", "output_dir", "dataset", "num_workers", "save_every", "report_to", "evaluate"),
    *("baselines", "push_to_hub", "hub_repo_id", "hub_tag", "num_resamples", "compare_with"),
)
# What runs did before these settings existed, so that older runs and experiments can be resumed.
BEFORE_SETTINGS = {
    **{"labels": "findings", "texts_per_pair": 1, "minority_share": 0.5, "layer_decay": 1.0},
    **{"polarity_temperature": 0.15, "grade_weights": "none", "rich_descriptions": False},
    **{"freeze": [], "lora_towers": ["vision", "text"]},
}


def check_output(output_dir: Path, run: dict[str, Any], args: TrainingArguments) -> None:
    """Check that a run may write to a folder, before anything is loaded; change nothing.

    Raises:
        ValueError: If it is not empty and neither --resume nor --overwrite was given, if the run to resume has other
            settings, or if what --overwrite would delete is not a run.
    """
    if not output_dir.exists() or _is_half_deleted(output_dir) or holds_nothing(output_dir, _LEFT_BY_A_KILL):
        return
    if args.resume and (output_dir / RUN).exists():
        check_same_settings(read_run(output_dir), run, output_dir)
    elif not args.overwrite:
        raise ValueError(f"{output_dir} is not empty: --resume continues the run in it, --overwrite deletes it.")
    elif not (output_dir / RUN).exists():
        raise ValueError(f"{output_dir} is not a run (no {RUN}), so --overwrite keeps it; remove it yourself.")


def make_output(output_dir: Path, run: dict[str, Any], args: TrainingArguments, accelerator: Accelerator) -> None:
    """Make the folder of the run, or keep the one to resume, after `check_output`."""
    accelerator.wait_for_everyone()  # all have checked
    if accelerator.is_main_process:
        if (args.overwrite and (output_dir / RUN).exists()) or _is_half_deleted(output_dir):
            delete_run(output_dir)
        if not (output_dir / RUN).exists():
            output_dir.mkdir(parents=True, exist_ok=True)
            write_json(output_dir / RUN, run)
    accelerator.wait_for_everyone()


@contextmanager
def only_run(output_dir: Path, accelerator: Accelerator) -> Iterator[None]:
    """Lock the folder of a run or an experiment, on the first process for all.

    Raises:
        ValueError: If another run writes to it; on all processes.
        OSError: If it cannot be made.
    """
    with ExitStack() as held:
        problem: list[Exception | None] = [None]
        if accelerator.is_main_process:
            try:
                held.enter_context(only_process(output_dir))
            except (ValueError, OSError) as error:
                problem = [error]
        broadcast_object_list(problem)
        if problem[0] is not None:
            raise problem[0]
        yield


def delete_run(output_dir: Path) -> None:
    """Delete a run, but not its lock. `RUN` is renamed first: after a kill, it tells that the rest is to be deleted."""
    if (output_dir / RUN).exists():
        (output_dir / RUN).replace(output_dir / DELETED_RUN)
    for path in output_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (HIDDEN_LOCK_NAME, DELETED_RUN):
            path.unlink()
    (output_dir / DELETED_RUN).unlink(missing_ok=True)


def _is_half_deleted(output_dir: Path) -> bool:
    return (output_dir / DELETED_RUN).exists() and not (output_dir / RUN).exists()


def describe_run(args: TrainingArguments, accelerator: Accelerator, rows_of_split: dict[str, str]) -> dict[str, Any]:
    """Describe everything needed to repeat the run; `rows_of_split` identifies the rows of each split."""
    device = accelerator.device
    return {
        "system": args.SYSTEM,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": asdict(args),
        "rows_sha256": rows_of_split,
        "num_processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "device": device.type,
        # Python knows the architecture of a CPU everywhere, but not its model.
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "packaged_towers": describe_packaged(asdict(args)),
    }


def describe_start(checkpoint: str, rows_sha256: dict[str, str]) -> dict[str, Any]:
    """Describe the checkpoint, a folder or Hub id, that a run starts from, and the rows it was trained on.

    Returns:
        `checkpoint`; `is_folder`, since `demo/checkpoint` could later be either; and `rows`, from the run next to the
        checkpoint: `same` if it, and the run it started from, had the splits `rows_sha256`, so that no test patient was
        learned from; `other` if the splits differ; `unknown` without such a run.
    """
    folder = Path(checkpoint).resolve()
    path, rows = folder.parent / RUN, "unknown"
    if folder.is_dir() and path.exists():
        run = read_run(folder.parent)
        rows = (run.get("start") or {"rows": "same"})["rows"] if run.get("rows_sha256") == rows_sha256 else "other"
    return {"checkpoint": checkpoint, "is_folder": folder.is_dir(), "rows": rows}


def read_start(output_dir: Path) -> dict[str, Any] | None:
    """Read what `describe_start` found when a run began; None if it began from towers or there is no run."""
    return read_run(output_dir).get("start") if (output_dir / RUN).exists() else None


def read_run(output_dir: Path) -> dict[str, Any]:
    """Read `run.json`; raise a ValueError with the way out if it is damaged."""
    way_out = "Restore the file from a copy of the run, or start again with --overwrite."
    return read_json(output_dir / RUN, way_out)


def check_same_settings(before: dict[str, Any], now: dict[str, Any], output_dir: Path) -> None:
    """Raise if resuming would mix two different runs."""
    if changed := changed_settings(before, now):
        raise ValueError(
            f"{output_dir} is a run with other settings ({'; '.join(changed)}). Resume with the same settings, or "
            "choose another output_dir."
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the differences between two runs, from `describe_run`, that would change the weights.

    Example:
        >>> run = {"arguments": {"batch_size": 8, "seed": 0}, "num_processes": 1, "rows_sha256": {}}
        >>> changed_settings(run, {**run, "arguments": {"batch_size": 8, "seed": 1}})
        ['seed: 0 then, 1 now']
    """
    if lacking := {"arguments", "num_processes", "rows_sha256"} - before.keys():
        return [f"{name}: not recorded then" for name in sorted(lacking)]
    # Two processes with half the batch are the same run.
    old, new = (
        {
            **BEFORE_SETTINGS,
            **_with_objectives(run["arguments"]),
            "pairs of a step": run["num_processes"] * run["arguments"]["batch_size"],
        }
        for run in (before, now)
    )
    changed = [
        f"{key}: {old.get(key)!r} then, {new[key]!r} now"
        for key in new.keys() - {*FREE_SETTINGS, "batch_size"}
        if old.get(key) != new[key]
    ]
    if before.get("system") != now.get("system"):
        changed.append(f"system: {before.get('system')} then, {now.get('system')} now")
    precision = now.get("mixed_precision")
    if before.get("mixed_precision", precision) != precision:  # the oldest runs did not record it
        changed.append(f"mixed_precision: {before['mixed_precision']} then, {precision} now")
    changed += [
        f"rows of {split}: changed"
        for split, rows in now["rows_sha256"].items()
        if before["rows_sha256"].get(split) != rows
    ]
    return sorted(changed)


def _with_objectives(arguments: dict[str, Any]) -> dict[str, Any]:
    """Name the only objective of an older run as today's runs do."""
    others = {name: value for name, value in arguments.items() if name != "objective"}
    return {**others, "objectives": {arguments["objective"]: 1.0}} if "objective" in arguments else others


def keep_history(path: Path, last_update: int, accelerator: Accelerator) -> None:
    """Remove the lines of updates that the resumed run will repeat."""
    if accelerator.is_main_process and path.exists():
        text = path.read_text(errors="replace")
        write_text(path, text[: text.rfind("\n") + 1])  # a kill may have cut the last line
        kept = [line for line in read_history(path.parent) if line["update"] <= last_update]
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in kept))
