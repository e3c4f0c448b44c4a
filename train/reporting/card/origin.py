"""Find what a model was made from and the licence that follows; name it without the folders of a machine."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.checkpoints.packaged_towers import is_packaged

HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
CODE_LICENSE = "apache-2.0"
# They set no condition for models learned from the data, or none beyond those of the code's licence.
UNCONDITIONAL_LICENSES = {CODE_LICENSE, "cc0-1.0", "pddl", "cdla-permissive-1.0", "cdla-permissive-2.0"}


def starting_checkpoint(arguments: Mapping[str, Any]) -> str:
    """Name the checkpoint that a run started from, a folder or Hub id; empty if it started from towers."""
    return arguments.get("init_checkpoint") or arguments.get("checkpoint") or ""  # the second: of a classifier


def starting_models(arguments: Mapping[str, Any]) -> list[str]:
    """List the checkpoint or the towers that a run started from: Hub ids, timm names or folders.

    Example:
        >>> starting_models({"init_checkpoint": "", "vision": "resnet18", "text": "a/bert", "pretrained": True})
        ['resnet18', 'a/bert']
    """
    if checkpoint := starting_checkpoint(arguments):
        return [checkpoint]
    towers = [arguments.get("vision", ""), arguments.get("text", "")]
    return [name for name in towers if arguments["pretrained"] or is_packaged(name)]


def starting_folder(run: Mapping[str, Any]) -> str:
    """Name the checkpoint that a run started from if it is a folder of some machine; else an empty string.

    Example:
        >>> starting_folder({"arguments": {"init_checkpoint": "demo/checkpoint"}, "start": {"is_folder": True}})
        'demo/checkpoint'
    """
    return starting_checkpoint(run["arguments"]) if run["start"] and run["start"]["is_folder"] else ""


def shown_models(run: Mapping[str, Any]) -> list[str]:
    """List the starting models as a card shows them: without the folders of a machine."""
    folder = starting_folder(run)
    return [folder_name(folder)] if folder else [without_folders(name) for name in starting_models(run["arguments"])]


def starting_hub_ids(run: Mapping[str, Any]) -> list[str] | None:
    """List the starting models that are on the Hub."""
    if checkpoint := starting_checkpoint(run["arguments"]):
        return None if starting_folder(run) else [checkpoint]
    models = starting_models(run["arguments"])
    packaged = {tower["name"]: tower["hub_id"] for tower in run.get("packaged_towers", [])}
    named = [packaged.get(name, name) or "" for name in models]
    return [name for name in named if re.fullmatch(HUB_ID, name) and not Path(name).exists()] or None


def model_license(data: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Choose the licence of the weights, by its id on the Hub.

    The licence of the code, if the data may be shared, their licence sets no condition for models learned from them,
    and the weights were random at the start. Otherwise `other`: the card names what the model was made from, and its
    users judge which conditions reach the weights.

    Example:
        >>> model_license({"license": "cc0-1.0", "may_be_shared": True}, {"pretrained": False})
        'apache-2.0'
        >>> model_license({"license": "cc-by-4.0", "may_be_shared": True}, {"pretrained": False})
        'other'
        >>> model_license({"license": "cc0-1.0", "may_be_shared": True}, {"checkpoint": "someone/base"})
        'other'
    """
    is_free = data["license"] in UNCONDITIONAL_LICENSES and data["may_be_shared"]
    return CODE_LICENSE if is_free and not starting_models(arguments) else "other"


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
    r"""Take the last part of a path from any operating system.

    Example:
        >>> folder_name("runs/demo/checkpoint/"), folder_name(r"C:\runs\demo")
        ('checkpoint', 'demo')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
