"""Settings of a command: a dataclass, filled from a YAML file and overridden on the command line."""

import difflib
import json
import sys
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from transformers import HfArgumentParser

from data_scripts.command_line import parse_words

ArgumentsT = TypeVar("ArgumentsT")
NUMBERS = (int, float, int | None, float | None)  # types of settings


class UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys as written, before those of `<<` are merged in: these may be written over."""
        node = super().compose_mapping_node(anchor)
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen = set()
        for key in (key for key in scalars if not key.tag.endswith(":merge")):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} stands twice in one mapping; leave one", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


class JsonMapping(dict[str, Any]):
    """A mapping in YAML, or JSON on the command line, such as '{"drop_path_rate": 0.1}'."""

    def __init__(self, value: str | dict[str, Any] = "{}") -> None:
        super().__init__(json.loads(value) if isinstance(value, str) else value)


def setting(default: Any, text: str) -> Any:
    """Declare a setting of a dataclass with its meaning, which --help shows."""
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def parse_arguments(arguments_class: type[ArgumentsT], argv: list[str] | None = None) -> ArgumentsT:
    """Read `[config.yaml] [--name value ...]`; the command line wins.

    Args:
        arguments_class: Dataclass of the settings.
        argv: Words of the command line; None: those of the process.

    Returns:
        The settings.

    Raises:
        ValueError: If the YAML cannot be read, the message names the line; if it names a setting that does not exist,
            the message names the nearest one; or if a value is of another kind than the setting.
        FileNotFoundError: If there is no such YAML file.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(cast(Any, arguments_class), description=arguments_class.__doc__)
    if words and words[0].endswith((".yaml", ".yml")):
        parser.set_defaults(**_read_settings(Path(words.pop(0)), arguments_class))
    return parse_words(parser, words)


def _read_settings(path: Path, arguments_class: type) -> dict[str, Any]:
    try:
        settings = yaml.load(path.read_text(), UniqueKeysLoader) or {}
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{path}{line}: {words}.") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ValueError(f"{path} is no YAML: {error}") from error
    known = {item.name: item for item in fields(arguments_class)}
    for name, value in settings.items():
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{path} sets {name!r}, which is no setting.{hint}")
        if known[name].type is str and not isinstance(value, str):
            raise ValueError(f"{path} sets {name} to {value!r}, which YAML does not read as text: put it in quotes.")
        if known[name].type in NUMBERS and isinstance(value, list | dict):
            raise ValueError(f"{path} sets {name} to {value!r}: it takes one number.")
    # YAML 1.1 reads 1e-4 as a string; argparse converts string defaults by the type of the field.
    return settings
