"""The log of a training run: one line an update or a few, and what it says of the time."""

import json
from pathlib import Path
from typing import Any

import numpy as np

HISTORY = "history.jsonl"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the updates that a training run has logged in its folder; empty if it is no such folder.

    Raises:
        ValueError: If a line is no JSON; the message names file and line.
    """
    path, lines = folder / HISTORY, []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is no JSON ({error}): the copy was cut off, or it was edited. Take the file "
                "from a whole copy of the run, or remove that line: the time of training is then an estimate."
            ) from error
    return lines


def training_seconds(history: list[dict[str, Any]], pairs_of_update: int) -> float:
    """Add up the seconds of all updates, those before an interruption too; validation and start are not counted.

    Updates that were done again after an interruption count once: their first lines are forgotten at the resumption.

    Example:
        >>> lines = [{"update": 10, "pairs_per_second": 64.0}, {"update": 20, "pairs_per_second": 32.0}]
        >>> training_seconds(lines, pairs_of_update=64)
        30.0
    """
    updates = np.diff([0, *(line["update"] for line in history)])
    return float(sum(updates * pairs_of_update / np.array([line["pairs_per_second"] for line in history])))
