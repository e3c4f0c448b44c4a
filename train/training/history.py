"""Read the history of a training run, and its training time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

HISTORY = "history.jsonl"
NUMBERS = ("loss", "validation_loss", "pairs_per_second")  # used in computations or shown on a card

WEIGHT, ERROR = "fn_weight/", "error/"  # before the name of a class: weight of its false negatives, error of an epoch


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the updates that a training run has logged in its folder; empty without a history.

    Raises:
        ValueError: If a line is not a valid update; the message names file and line.
    """
    path, lines = folder / HISTORY, []
    for number, line in enumerate(path.read_text(errors="replace").splitlines() if path.exists() else [], start=1):
        try:
            lines.append(_read_update(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is not an update of a run ({error}): it was edited or the copy is incomplete. "
                "Restore the file from a complete copy of the run. If you delete that line, training time is an "
                "estimate; if it is the last one, the card's updates, time and energy are too low."
            ) from error
    return lines


def _read_update(line: str) -> dict[str, Any]:
    update = json.loads(line)
    if not isinstance(update, dict) or not isinstance(update.get("update"), int):
        raise ValueError("it has no integer `update`")
    # Only these numbers: when a run diverges, the temperature may be NaN before its loss is.
    for name in NUMBERS:
        value = update.get(name, 1.0)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"its {name} is {value!r}, not a finite number")
    if update.get("pairs_per_second", 1.0) <= 0:
        raise ValueError(f"its pairs_per_second is {update['pairs_per_second']}, which is not above 0")
    return update


def training_seconds(history: list[dict[str, Any]], pairs_of_update: int) -> float:
    """Add up the seconds of all updates, across interruptions, without validation and start.

    Updates repeated after an interruption count once, since resuming deletes their first lines.

    Example:
        >>> lines = [{"update": 10, "pairs_per_second": 64.0}, {"update": 20, "pairs_per_second": 32.0}]
        >>> training_seconds(lines, pairs_of_update=64)
        30.0
    """
    updates = np.diff([0, *(line["update"] for line in history)])
    return float(sum(updates * pairs_of_update / np.array([line["pairs_per_second"] for line in history])))
