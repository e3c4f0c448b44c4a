"""The log of a training run: one line an update or a few, and what it says of the time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

HISTORY = "history.jsonl"
FIGURES = ("loss", "validation_loss", "pairs_per_second")  # what is computed with, or told on a card


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the updates that a training run has logged in its folder; empty if it is no such folder.

    Raises:
        ValueError: If a line is no JSON or no update, or a figure is none; the message names file and line.
    """
    path, lines = folder / HISTORY, []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            lines.append(_read_update(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is no update of a run ({error}): the copy was cut off, or it was edited. Take "
                "the file from a whole copy of the run. Without that line, the time of training is an estimate; and "
                "without the last one, its updates are missing from the number, time and energy that a card tells."
            ) from error
    return lines


def _read_update(line: str) -> dict[str, Any]:
    update = json.loads(line)
    if not isinstance(update, dict) or not isinstance(update.get("update"), int):
        raise ValueError("it has no `update` that is a whole number")
    # Only these figures: of a run that diverged, the temperature may have been NaN before its loss was.
    for name in FIGURES:
        value = update.get(name, 1.0)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"its {name} is {value!r}, which is no number")
    if update.get("pairs_per_second", 1.0) <= 0:
        raise ValueError(f"its pairs_per_second is {update['pairs_per_second']}, which is not above 0")
    return update


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
