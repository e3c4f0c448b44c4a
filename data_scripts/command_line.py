"""Words of a command line to a dataclass of settings; an option that does not exist is told with the nearest."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any


def parse_words(parser: Any, words: Sequence[str] | None = None) -> Any:
    """Read the settings of a command.

    Args:
        parser: `HfArgumentParser` of one dataclass; importing it takes a second, which no worker should spend.
        words: Of the command line; None: those of the process.

    Returns:
        The dataclass, filled.

    Raises:
        ValueError: If a word belongs to no setting.
    """
    words = list(sys.argv[1:] if words is None else words)
    settings, *_, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        known = [f"--{field.name}" for field in fields(settings)]
        nearest = get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"{' '.join(unknown)}: no such setting.{hint} --help lists all.")
    return settings
