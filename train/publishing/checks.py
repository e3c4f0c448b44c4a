"""Check a folder before it is published: weights that run code, missing code, local paths."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

from data_scripts.hub.upload import paths_of_this_machine
from train.checkpoints.loading import PICKLE_SUFFIXES, check_references, json_values, read_settings
from train.checkpoints.manifest import other_code

# They record how a folder was loaded: a loader that reads them would look for files on this machine.
STRAY_KEYS = ("is_local", "local_files_only")
VOCABULARIES = ("tokenizer.json", "vocab.json")  # some of their tokens look like paths
_ABSOLUTE = re.compile(r"(?:file://|~/|[A-Za-z]:[\\/]|/[^/]+/).*")  # names of folders may have blanks


def check_fit(folder: Path) -> None:
    """Check that a checkpoint or an adapter, with or without its card, is fit to be published.

    Raises:
        ValueError: If anything is wrong; the message lists every file and value.
    """
    problems = [*unsafe_files(folder), *missing_code(folder), *local_paths(folder)]
    if problems:
        raise ValueError(f"{folder} cannot be published:\n" + "\n".join(f"- {problem}" for problem in problems))


def check_code(folder: Path, name: str) -> None:
    """Check that the code of a checkpoint is the installed package's, which may run; `name` is for the message.

    The run may be someone else's, and publishing runs its code, to find out whether others could use it.

    Raises:
        ValueError: If a Python file differs from the package's, or code lies in another repository.
    """
    for path in sorted(folder.glob("*config.json")):
        check_references(path, read_settings(path))
    if other := other_code(folder):
        raise ValueError(
            f"The code of {name} differs from the installed package ({', '.join(other[:3])}), so publishing does not "
            "run it. If it is yours, from another version, publish with that version, or save it again with this one: "
            "`from train.checkpoints.checkpoint import *; save_checkpoint(*load_checkpoint(folder), Path(folder))`."
        )


def unsafe_files(folder: Path) -> Iterator[str]:
    """List files that can run code when loaded, by name and by content; require safetensors."""
    for path in _files(folder):
        if path.suffix in PICKLE_SUFFIXES or _is_pickled(path):
            yield (
                f"{_name(path, folder)} may run code when it is loaded; only safetensors are published. Remove it, or "
                "save the checkpoint again."
            )
    if not any(path.suffix == ".safetensors" for path in _files(folder)):
        yield "the folder has no weights: no file is named *.safetensors."


def missing_code(folder: Path) -> Iterator[str]:
    """List code that `trust_remote_code=True` would look for and not find."""
    for path in folder.glob("*config.json"):
        for auto_class, references in read_settings(path).get("auto_map", {}).items():
            # A tokenizer has two, and one of them may be null.
            for reference in references if isinstance(references, list) else [references]:
                if reference is not None:
                    yield from _missing_of(folder, f"{path.name}: auto_map: {auto_class}: {reference}", reference)
    config = folder / "config.json"
    if config.exists() and "auto_map" not in read_settings(config):
        yield "config.json has no auto_map: the code was not saved with the weights. Save the checkpoint again."


def _missing_of(folder: Path, entry: str, reference: str) -> Iterator[str]:
    if "--" in reference:
        yield f"{entry}: the code is in another repository, which may change; save it with the weights."
        return
    module, _, class_name = reference.rpartition(".")
    file = folder / f"{module}.py"
    if not file.exists():
        yield f"{entry}: {file.name} is missing."
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if class_name not in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}:
        yield f"{entry}: {file.name} defines no class {class_name}."
    try:
        imported = get_relative_import_files(file)
    except FileNotFoundError as error:  # of one of them
        yield f"{entry}: {Path(error.filename).name} is imported but missing."
        return
    for path in map(Path, imported):
        if not path.exists():
            yield f"{entry}: {path.name} is imported but missing."


def local_paths(folder: Path) -> Iterator[str]:
    """List values of JSON files, and paths in the card, that are paths of a machine."""
    for path in _files(folder):
        name = _name(path, folder)
        if path.suffix == ".json" and path.name not in VOCABULARIES:
            for key, value in json_values(read_settings(path)):
                last = key.rpartition(".")[2]
                if last in STRAY_KEYS:
                    yield f"{name}: {key} = {value!r} records how it was loaded here: remove it."
                elif isinstance(value, str) and _is_local(last, value):
                    yield f"{name}: {key} = {value!r} is a path on this machine: use a Hub id, or remove it."
        elif path.name == "README.md":
            for found in paths_of_this_machine(path.read_text(encoding="utf-8")):
                yield f"{name}: {found!r} is a path on this machine: remove it."


def _is_local(key: str, value: str) -> bool:
    if key.endswith("name_or_path"):
        return value != "" and (bool(_ABSOLUTE.match(value)) or value.startswith(".") or Path(value).exists())
    is_path = _ABSOLUTE.fullmatch(value) or paths_of_this_machine(value)
    return bool(is_path) or ("/" in value and len(value) < 256 and Path(value).exists())


def _is_pickled(path: Path) -> bool:
    """Whether a file starts like a pickle, or like the zip of one that torch.save writes."""
    if path.suffix == ".safetensors":
        return False  # starts with a length, which may be any bytes; loading it finds out
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
