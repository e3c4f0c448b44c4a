"""Check that a checkpoint works without this project."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from peft.utils import CONFIG_NAME
from safetensors.numpy import load_file

from train.checkpoints.golden_outputs import TOLERANCE, deviation

SCRIPT = Path(__file__).with_name("load_alone.py")


def check_loadable(folder: Path, golden: Path) -> None:
    """Load a checkpoint with its own code in a new process that cannot import our packages, and compare its outputs.

    The process is clean, not confined: call `checks.check_code` first.

    Args:
        folder: A checkpoint, or an adapter whose base is on the Hub.
        golden: Its golden outputs; for an adapter, those of the checkpoint it was merged into.

    Raises:
        ValueError: If it does not load there, or its outputs differ from the golden ones.
    """
    with tempfile.TemporaryDirectory() as empty:
        answers = Path(empty, "answers.safetensors")
        environment = {**os.environ, "HF_MODULES_CACHE": str(Path(empty, "modules"))}
        is_adapter = (folder / CONFIG_NAME).exists()
        if not is_adapter:  # whose base is downloaded
            environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": empty}
            environment.pop("HF_TOKEN", None)
        done = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), *map(str, (folder.resolve(), golden.resolve(), answers))],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
            raise ValueError(f"{folder} does not load in a process that has only this folder: {reason.strip()}")
        recorded, answered = load_file(golden), load_file(answers)
    way_out = (
        "the base on the Hub is not the one it was trained on. Publish that one, and name it with --adapter_base."
        if is_adapter
        else "its code is from another version. Save it again with this version."
    )
    for name in sorted(name.removeprefix("output.") for name in recorded if name.startswith("output.")):
        value = answered.get(name)
        distance = float("inf") if value is None else deviation(recorded[f"output.{name}"], value)
        if not distance <= TOLERANCE:
            raise ValueError(
                f"{folder} gives other outputs in a process that has only this folder: its {name} differs by "
                f"{distance:.2g} of its length from {golden}; {way_out}"
            )
