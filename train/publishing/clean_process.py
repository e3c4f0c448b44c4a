"""Whether a checkpoint works for someone who has it and not this project."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

from modeling_lumbarclip.golden_outputs import GOLDEN_TENSORS, TOLERANCE, deviation

SCRIPT = Path(__file__).with_name("load_alone.py")


def refuse_unloadable(folder: Path) -> None:
    """Load a checkpoint with its own code in a new process, where our package cannot be imported, and compare answers.

    Args:
        folder: A checkpoint, or an adapter whose base is on the Hub.

    Raises:
        ValueError: If it does not load there, or answers its golden inputs in another way.
    """
    with tempfile.TemporaryDirectory() as empty:
        answers = Path(empty, "answers.safetensors")
        environment = {**os.environ, "HF_MODULES_CACHE": str(Path(empty, "modules"))}
        if not (folder / "adapter_config.json").exists():  # whose base is downloaded
            environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": empty}
            environment.pop("HF_TOKEN", None)
        done = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), str(folder.resolve()), str(answers)],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
            raise ValueError(f"{folder} does not load in a process that has only this folder: {reason.strip()}")
        if not answers.exists():
            return
        recorded, now = load_file(folder / GOLDEN_TENSORS), load_file(answers)
    for name, value in now.items():
        before = recorded.get(f"output.{name}")
        if before is not None and not (distance := deviation(before, value)) <= TOLERANCE:
            raise ValueError(
                f"{folder} answers in another way with the code that lies in it: its {name} differs by {distance:.2g} "
                f"of its length from {GOLDEN_TENSORS}. Save it again with the code of this version."
            )
