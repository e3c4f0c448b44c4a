"""Words of a model card: durations, counts, commands and the text of others."""

import re
import shlex
from collections.abc import Mapping
from typing import Any


def in_words(seconds: float) -> str:
    """Write a duration in the unit that it is read in.

    Example:
        >>> in_words(48.2), in_words(250), in_words(30000)
        ('48 s', '4.2 min', '8.3 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown_command(command: str, folder: str = "") -> str:
    """A command without the folders of the machine it ran on: they say nothing to others, and may name someone.

    Args:
        command: As it was given.
        folder: A relative one that is to be shortened to its name, too.

    Example:
        >>> shown_command("python /mnt/smith/project/train/pretrain.py train/configs/demo.yaml --dataset=../raw/mri")
        'python train/pretrain.py train/configs/demo.yaml --dataset=mri'
    """
    words = []
    for word in shlex.split(command):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(f"{option}{equals}{folder_name(value) if value == folder else without_folders(value)}")
    return shlex.join(words)


def without_folders(value: Any) -> Any:
    """A path of this machine shortened to its name, or to what follows the project's folder; all else as it is."""
    if not isinstance(value, str) or not re.match(r"/|~|\.\.|[A-Za-z]:\\", value):
        return value
    _, project, inside = value.rpartition("/train/")
    return f"train/{inside}" if project else folder_name(value)


def folder_name(path: str) -> str:
    r"""The last part of a path of any system.

    Example:
        >>> folder_name("runs/demo/checkpoint/"), folder_name(r"C:\runs\demo")
        ('checkpoint', 'demo')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def counted(rows: Mapping[str, int]) -> str:
    """Counts by name, in one line."""
    return ", ".join(f"{name} ({count})" for name, count in rows.items())


def one_line(text: str) -> str:
    """Text of others as one line, so that it opens no heading, list or block of its own."""
    return " ".join(text.split())


def number(count: int, one: str, many: str = "") -> str:
    """A count with its noun, in the singular for one."""
    return f"{count} {one if count == 1 else many or one + 's'}"
