"""Processes that die at a chosen change of the file system, as if killed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHANGES = ("mkdir", "unlink", "rmdir", "rename", "replace")
KILLED = 9


def outcomes_of_kills(tmp_path: Path, prepare: Callable[[Path], Any], change: Callable[[Path], Any]) -> Iterator[Path]:
    """Prepare a folder and change it in a process that dies after one, two, three changes; yield each outcome."""
    step, exit_code = 0, KILLED
    while exit_code == KILLED:
        step += 1
        folder = tmp_path / f"killed-{step}"
        folder.mkdir()
        prepare(folder)
        exit_code = _exit_code_of(folder, change, step)
        assert exit_code in (0, KILLED)
        yield folder
        shutil.rmtree(folder)
    assert step > 2


def _exit_code_of(folder: Path, change: Callable[[Path], Any], step: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        left = [step]
        for name in CHANGES:
            setattr(os, name, _dying(getattr(os, name), left))
        change(folder)
        os._exit(0)
    finally:
        os._exit(1)


def _dying(operation: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def operate(*args: Any, **kwargs: Any) -> Any:
        result = operation(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            os._exit(KILLED)
        return result

    return operate
