"""Write durations, counts and commands for a model card."""

import re
import shlex
from typing import Any


def in_words(seconds: float) -> str:
    """Write a duration in seconds, minutes or hours.

    Example:
        >>> in_words(48.2), in_words(250), in_words(30000)
        ('48 s', '4.2 min', '8.3 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown_command(command: str, folder: str = "") -> str:
    """Write a command without the folders of its machine, which may name someone; and shorten a relative `folder`, too.

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
    """Shorten a path of a machine to its name, or to its place in the project; leave all else."""
    if not isinstance(value, str) or not re.match(r"/|~|\.\.|[A-Za-z]:\\", value):
        return value
    _, project, inside = value.rpartition("/train/")
    return f"train/{inside}" if project else folder_name(value)


def folder_name(path: str) -> str:
    r"""Give the last part of a path of any system.

    Example:
        >>> folder_name("runs/demo/checkpoint/"), folder_name(r"C:\runs\demo")
        ('checkpoint', 'demo')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def number(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"
