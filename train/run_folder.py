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
from typing import Any

from accelerate import Accelerator

from train.arguments import PretrainArguments
from train.checkpoints import write_json, write_text

HISTORY = "history.jsonl"
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
    "num_workers",
    "save_every",
    "report_to",
    "evaluate",
    "baselines",
    "num_resamples",
)


def open_output(output_dir: Path, run: dict[str, Any], args: PretrainArguments, accelerator: Accelerator) -> None:
    """Make the folder of the run; refuse one that holds something else.

    Raises:
        ValueError: If it exists and neither --resume nor --overwrite was given, or if the run to resume had other
            settings.
    """
    if accelerator.is_main_process:
        if args.overwrite:
            shutil.rmtree(output_dir, ignore_errors=True)
        if (output_dir / RUN).exists() and args.resume:
            refuse_other_settings(json.loads((output_dir / RUN).read_text()), run, output_dir)
        elif output_dir.exists() and any(output_dir.iterdir()):
            raise ValueError(
                f"{output_dir} exists and is not empty: --resume goes on with the run in it, --overwrite deletes it."
            )
        else:
            output_dir.mkdir(parents=True, exist_ok=True)
            write_json(output_dir / RUN, run)
    accelerator.wait_for_everyone()


def describe_run(args: PretrainArguments, accelerator: Accelerator) -> dict[str, Any]:
    """Everything needed to repeat the run."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": asdict(args),
        "num_processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def refuse_other_settings(before: dict[str, Any], now: dict[str, Any], output_dir: Path) -> None:
    """Raise if resuming would mix two different runs."""
    old = {**before["arguments"], "pairs of a step": before["num_processes"] * before["arguments"]["batch_size"]}
    new = {**now["arguments"], "pairs of a step": now["num_processes"] * now["arguments"]["batch_size"]}
    ignored = {*FREE_SETTINGS, "batch_size"}  # two processes with half the batch are the same run
    changed = [
        f"{key}: {old.get(key)!r} then, {new[key]!r} now" for key in new.keys() - ignored if old.get(key) != new[key]
    ]
    if changed:
        raise ValueError(
            f"{output_dir} holds a run with other settings ({'; '.join(sorted(changed))}). Resume with the same "
            "ones, or choose another output_dir."
        )


def keep_history(path: Path, last_update: int, accelerator: Accelerator) -> None:
    """Forget the lines of updates that the resumed run will do again."""
    if accelerator.is_main_process and path.exists():
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["update"] <= last_update]
        write_text(path, "".join(f"{line}\n" for line in kept))
