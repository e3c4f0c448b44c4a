"""What a model was made from, weights and data, and what follows: its licence, and whose figures it may show."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.reporting.card.words import folder_name, without_folders

HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
CODE_LICENSE = "apache-2.0"
# They ask nothing of what is learned from the data, or no more than the licence of the code does.
UNCONDITIONAL_LICENSES = {CODE_LICENSE, "cc0-1.0", "pddl", "cdla-permissive-1.0", "cdla-permissive-2.0"}
# What is said of the rows that the starting weights were trained on, by how they compare with those of the run.
START_OVERLAP = {
    "same": "",
    "other": "Its starting weights were trained on other rows of unknown overlap: they may have seen these test "
    "patients.",
    "unknown": "What its starting weights were trained on was not recorded: whether they have seen these test patients "
    "is unknown.",
}


def starting_models(arguments: Mapping[str, Any]) -> list[str]:
    """The checkpoint or the towers that a run started from: Hub ids, names of timm, or folders; empty for random ones.

    Example:
        >>> starting_models({"init_checkpoint": "", "vision": "resnet18", "text": "a/bert", "pretrained": True})
        ['resnet18', 'a/bert']
    """
    if checkpoint := starting_checkpoint(arguments):
        return [checkpoint]
    return [arguments["vision"], arguments["text"]] if arguments["pretrained"] else []


def starting_weights(run: Mapping[str, Any]) -> str:
    """What a run started from, in words.

    Example:
        >>> starting_weights({"arguments": {"init_checkpoint": "runs/demo/checkpoint"}})
        'the weights of `checkpoint` (a checkpoint that is not on the Hub)'
    """
    if folder := starting_folder(run):
        return f"the weights of `{folder_name(folder)}` (a checkpoint that is not on the Hub)"
    models = starting_models(run["arguments"])
    return (
        f"the weights of {' and '.join(f'`{without_folders(name)}`' for name in models)}"
        if models
        else "random weights"
    )


def starting_folder(run: Mapping[str, Any]) -> str:
    """The checkpoint that a run started from, if it is a folder of some machine; empty for a Hub id or towers.

    Args:
        run: `run.json`. Its `start` says whether it was a folder; of an earlier version, its name and the current
            folder do, which a card written elsewhere may get wrong.

    Example:
        >>> starting_folder({"arguments": {"init_checkpoint": "demo/checkpoint"}, "start": {"is_folder": True}})
        'demo/checkpoint'
    """
    checkpoint = starting_checkpoint(run["arguments"])
    is_folder = (run.get("start") or {}).get("is_folder", not _is_on_hub(checkpoint))
    return checkpoint if is_folder else ""


def starting_hub_ids(run: Mapping[str, Any]) -> list[str] | None:
    """Those of the starting models that are on the Hub."""
    if checkpoint := starting_checkpoint(run["arguments"]):
        return None if starting_folder(run) else [checkpoint]
    return [name for name in starting_models(run["arguments"]) if _is_on_hub(name)] or None


def start_overlap(run: Mapping[str, Any]) -> str:
    """Say whether the starting weights may have seen the test patients; empty if they have not.

    Args:
        run: `run.json`. Without a `start` it started from towers, or, if it names a checkpoint, it is of an earlier
            version, which did not look.
    """
    if start := run.get("start"):
        return START_OVERLAP[start["rows"]]
    return START_OVERLAP["unknown"] if starting_checkpoint(run["arguments"]) else ""


def is_measured_elsewhere(run: Mapping[str, Any], metrics: Mapping[str, Any], data_name: str) -> bool:
    """Whether figures are of other rows than those that the run knew; without a record of the rows, by the name.

    Example:
        >>> run = {"rows_sha256": {"train": "a", "test": "b"}}
        >>> is_measured_elsewhere(run, {"dataset": {"name": "spider", "rows_sha256": {"test": "c"}}}, "spider")
        True
    """
    known, measured = run.get("rows_sha256"), metrics["dataset"].get("rows_sha256")
    if known and measured:
        return any(known.get(split) != rows for split, rows in measured.items())
    return bool(metrics["dataset"]["name"] != data_name)


def model_license(data: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Choose the licence of the weights, as the Hub calls it.

    That of the code, if the data may be shared, their licence sets no condition for what is learned from them, and the
    weights were random at the start. Else `other`, and the card names what the model was made from: which conditions
    reach its weights is for whoever uses them to judge, not for a program.

    Args:
        data: What the run recorded of its data set.
        arguments: Settings of the run.

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


def license_statement(data: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Say which licence the weights have, and why."""
    if model_license(data, run["arguments"]) == CODE_LICENSE:
        return f"`{CODE_LICENSE}`, that of the code. The data ask for no more, and no other weights are in it."
    of_weights = f" and those of {starting_weights(run)}" if starting_models(run["arguments"]) else ""
    attribution = (
        " That of the data asks for attribution: name their source, which is cited here, with whatever you make of the "
        "model."
        if (data["license"] or "").startswith("cc-by")
        else ""
    )
    return f"none of its own. Keep to the licences of what it was made from: that of the data{of_weights}.{attribution}"


def starting_checkpoint(arguments: Mapping[str, Any]) -> str:
    """The checkpoint that a run started from, a folder or Hub id; empty if it started from towers."""
    return arguments.get("init_checkpoint") or arguments.get("checkpoint") or ""  # the second: of a classifier


def _is_on_hub(name: str) -> bool:
    return re.fullmatch(HUB_ID, name) is not None and not Path(name).exists()
