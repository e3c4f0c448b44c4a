"""A new process where our package is not installed, so that only the code in a checkpoint is at hand."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
# An editable install would make our packages importable: leave out its finder and the project folder.
HIDE = f"""
import sys
sys.path[:] = [path for path in sys.path if path != {str(PROJECT)!r}]
editable = lambda finder: "editable" in getattr(finder, "__module__", type(finder).__module__)
sys.meta_path[:] = [finder for finder in sys.meta_path if not editable(finder)]
from importlib.util import find_spec
assert find_spec("train") is None and find_spec("modeling_lumbarclip") is None
"""


def last_line(script: str, *words: object, folder: Path) -> str:
    """Run a script on its arguments, in an empty folder made in `folder`; return the last line it printed."""
    (folder / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", HIDE + script, *map(str, words)],
        cwd=folder / "empty",
        env={**os.environ, "PYTHONPATH": "", "HF_MODULES_CACHE": str(folder / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return ["", *done.stdout.splitlines()][-1]
