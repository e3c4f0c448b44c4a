"""A command line from a dataclass: settings, an optional YAML file of them, help, errors in one line.

`transformers.HfArgumentParser` reads dataclasses, too, but importing it costs a second and 200 MB, also for `--help`.
"""

import argparse
import io
import json
import logging
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from data_scripts.system.disk_errors import disk_error, full_disk_error, full_disk_in_words
from data_scripts.system.markdown import printable

ArgumentsT = TypeVar("ArgumentsT")
USER_ERRORS = (ValueError, FloatingPointError, ImportError, OSError)  # printed in one line; all others are bugs
FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141  # exit codes; shells use the last two for Ctrl-C and `| head`
EXAMPLES = Path(__file__).parents[2] / "train" / "configs"
# They log a line for each saved state, for each request, and for each change of an exported graph.
NOISY = ("accelerate", "httpx", "httpx2", "onnxscript", "onnx_ir")


class _MappingError(argparse.ArgumentTypeError, ValueError):
    """A ValueError whose words argparse shows."""


class JsonMapping(dict[str, Any]):
    """A mapping in YAML, or JSON on the command line, such as '{"drop_path_rate": 0.1}'."""

    def __init__(self, value: str | dict[str, Any] = "{}") -> None:
        try:
            super().__init__(json.loads(value) if isinstance(value, str) else value)
        except (TypeError, ValueError) as error:
            raise _MappingError(
                f"{value!r} is not a mapping in JSON, such as '{{\"name\": 1}}', with the names in double quotes"
            ) from error


def setting(default: Any, text: str, **metadata: Any) -> Any:
    """Declare a setting of a dataclass with its help text.

    The default is `MISSING` for a required setting; `positional=True` makes it a positional argument.
    """
    metadata["help"] = text
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def run(main: Callable[[Any], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command: parse its arguments, call it, and print a user's or the disk's error in one line.

    `main` takes one dataclass, named by its annotation. Ctrl-C prints `WHEN_INTERRUPTED` of its module, if there is
    one, or how to resume.

    Returns:
        The exit code of `main`, whose None means success; 2 for an error; 130 after Ctrl-C; 141 if nobody reads what
        is printed any more, as after `| head`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may contain bytes that are not UTF-8
    arguments_class = arguments_class_of(main)
    settings: Any = None  # until the arguments are parsed
    resumes = "resume" in {item.name for item in fields(arguments_class)}
    how = "Rerun with --resume to continue." if resumes else "Rerun to resume."
    interrupts = _Interrupts(getattr(sys.modules[main.__module__], "WHEN_INTERRUPTED", how))
    threading.excepthook = _quiet_in_threads
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupts.handle)
    try:
        settings = parse_arguments(arguments_class, argv)
        code = main(settings) or 0
        sys.stdout.flush()  # a closed pipe or a full disk must fail here, not when the interpreter exits
        return code
    except (KeyboardInterrupt, Exception) as error:
        _end_progress_bars()
        if isinstance(error, KeyboardInterrupt) or interrupts.count:  # some libraries raise their own error instead
            interrupts.say()
            return INTERRUPTED
        message = _in_one_line(error, settings)
        if _drop_unwritable_output():
            if isinstance(error, BrokenPipeError):
                return PIPE_CLOSED
            if isinstance(error, OSError) and error.filename is None:
                message = f"Cannot write to standard output: {disk_error(error)}"
        if message is None:
            raise
        if settings is None and os.environ.get("RANK", "0") != "0":
            return FAILED  # all processes of a launch parse the same words, and the first says what is wrong
        print(f"error: {printable(message)}", file=sys.stderr)
        return FAILED
    finally:
        interrupts.count += 1  # a later Ctrl-C ends the process at once


class _Interrupts:
    """Handles Ctrl-C: the first raises a KeyboardInterrupt, the second ends the process, whatever it is doing."""

    def __init__(self, way_out: str) -> None:
        # Only one of several processes says it.
        self._words = f"Interrupted. {way_out}\n" if os.environ.get("RANK", "0") == "0" else ""
        self.count = 0

    def handle(self, *_: object) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt
        self.say()
        os._exit(INTERRUPTED)

    def say(self) -> None:
        """Say once what to do next."""
        words, self._words = self._words, ""
        sys.stderr.write(words)
        sys.stderr.flush()


def _quiet_in_threads(failed: Any) -> None:
    """Print no traceback for a disk error in a thread that writes: the main thread raises it again."""
    if disk_error(failed.exc_value) is None:
        threading.__excepthook__(failed)


def _in_one_line(error: Exception, settings: Any) -> str | None:
    """Describe a disk error or a user error; None for a bug."""
    if (full := full_disk_error(error)) is not None:
        return full_disk_in_words(full, settings)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:200]!r} is not UTF-8: rename the file or folder"
    if isinstance(error, USER_ERRORS) and not (isinstance(error, OSError) and error.errno is not None):
        return str(error)
    return disk_error(error)


def _end_progress_bars() -> None:
    """Close the progress bars, so that an error starts on a new line."""
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.close()


def _drop_unwritable_output() -> bool:
    """Whether standard output can no longer be written; if so, discard what is left to print."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)
        if not poll.poll(0):
            sys.stdout.flush()
            return False
    except io.UnsupportedOperation:
        return False  # it has no file descriptor
    except OSError:
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def arguments_class_of(main: Callable[[Any], Any]) -> type:
    """Return the dataclass that a command takes."""
    (arguments_class,) = (hint for name, hint in get_type_hints(main).items() if name != "return")
    return arguments_class


def parse_arguments(
    arguments_class: type[ArgumentsT],
    argv: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ArgumentsT:
    """Read `[config.yaml] [--name value ...]`; the command line wins over YAML, and YAML over `defaults`.

    Raises:
        ValueError: If a word or a YAML key names no setting (the message names the nearest one), a value is not of the
            setting's type or choices, or the YAML cannot be read (the message names the line).
        FileNotFoundError: If the YAML file is missing.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(arguments_class)
    if all(action.option_strings for action in parser._actions):  # for the help: words[0] is read before the options
        parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="Settings in YAML; options win over them.")
    given = dict(defaults or {})
    if words and is_settings_file(words[0]):
        given |= read_settings(Path(words.pop(0)), arguments_class)
    parser.set_defaults(**given)
    for action in parser._actions:
        action.required = action.required and action.dest not in given
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        nearest = get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        if files := [word for word in (*unknown, getattr(namespace, "config", None) or "") if is_settings_file(word)]:
            hint = f" A settings file comes first, without an option: {files[0]}."
        raise ValueError(f"{' '.join(unknown)}: no such setting.{hint} --help lists all settings.")
    values = vars(namespace)
    if word := values.pop("config", None):
        if is_settings_file(word):
            _check_settings_file(Path(word))
            raise ValueError(f"{word}: one settings file may be given, as the first word, before the options.")
        hint = f"{_nearest_settings(Path(word))} --help lists all settings."
        raise ValueError(f"{word} is neither an option nor a .yaml file of settings.{hint}")
    # Defaults are left to the dataclass, which makes a new list or mapping each time.
    settings = arguments_class(**{name: value for name, value in values.items() if value is not MISSING})
    check_choices(settings)
    return settings


def is_settings_file(word: str) -> bool:
    """Whether a word of the command line names a YAML file."""
    return word.lower().endswith((".yaml", ".yml")) and not word.startswith("-")


def _check_settings_file(path: Path) -> None:
    """Raise a FileNotFoundError with the way out if there is no such file."""
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a settings file.{_nearest_settings(path)}")
    if not path.is_file():
        raise FileNotFoundError(
            f"No settings file {path}.{_nearest_settings(path)} --help lists what it may set; examples are in "
            "train/configs."
        )


def _nearest_settings(path: Path) -> str:
    """Name the settings file that was probably meant: in the same folder, or an example of this project."""
    folders = (path.parent, EXAMPLES, EXAMPLES / "experiments")
    files = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.y*ml") if file.is_file()}
    nearest = get_close_matches(path.stem, files, n=1)
    return f" Did you mean {os.path.relpath(files[nearest[0]])}?" if nearest else ""


def build_parser(arguments_class: type, parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make, or extend, the parser of a dataclass, with a group for each dataclass that it inherits from."""
    about = (arguments_class.__doc__ or "").split("\n\n")[0]
    parser = parser or _Parser(description=about, allow_abbrev=False, formatter_class=_HelpFormatter)
    groups: dict[str, Any] = {}
    hints = get_type_hints(arguments_class)
    for item in fields(arguments_class):
        owner = _owner(arguments_class, item.name)
        title = (owner.__doc__ or owner.__name__).split("\n")[0].rstrip(".")
        if owner is not arguments_class and title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_setting(groups.get(title, parser), item, hints[item.name])
    return parser


def check_choices(settings: Any) -> None:
    """Raise a ValueError if a setting with choices holds another value, wherever it comes from."""
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        choices = _choices(hints[item.name])
        value = getattr(settings, item.name)
        for one in value if isinstance(value, list) else [value]:
            if choices and one is not None and one not in choices:
                raise ValueError(f"{item.name} must be one of {', '.join(map(str, choices))}; got {one!r}.")


def read_settings(path: Path, arguments_class: type) -> dict[str, Any]:
    """Read settings from a YAML file.

    Raises:
        ValueError: If it cannot be read, or a key or the type of its value does not fit the dataclass.
    """
    import yaml

    class UniqueKeysLoader(yaml.SafeLoader):
        """Refuses a repeated key; YAML would silently keep its last value."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            """Check the keys as written, before those of `<<`, which may be overridden, are merged in."""
            node = super().compose_mapping_node(anchor)
            scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen = set()
            for key in (key for key in scalars if not key.tag.endswith(":merge")):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is given twice in one mapping; remove one", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
            return node

    _check_settings_file(path)
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), UniqueKeysLoader) or {}
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{path}{line}: {words}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a character that UTF-8 or YAML does not allow
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} contains {settings!r:.60}, not settings: write lines such as `batch_size: 8`.")
    hints = get_type_hints(arguments_class)
    for name, value in settings.items():
        if name not in hints:
            nearest = get_close_matches(str(name), hints, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{path} sets {name!r}, which is not a setting.{hint}")
        kind = None if _is_list(hints[name]) else _one_type(hints[name])
        if value is None and kind is not str and NoneType not in get_args(hints[name]):
            raise ValueError(f"{path} sets {name} to nothing: give it a value, or remove the line.")
        if kind is str and not isinstance(value, str | NoneType):
            raise ValueError(f"{path} sets {name} to {value!r}, which YAML does not read as text: put it in quotes.")
        if kind in (int, float) and isinstance(value, list | dict):
            raise ValueError(f"{path} sets {name} to {value!r}: it takes one number.")
    # YAML 1.1 reads 1e-4 as a string; argparse converts string defaults by the type of the field.
    return settings


class _HelpFormatter(argparse.HelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.help or ""
        default = getattr(action, "shown_default", None)
        if default in (None, "", MISSING) or default in ([], {}):
            return shown
        words = {True: "on", False: "off"}.get(default, default) if isinstance(default, bool) else default
        return f"{shown} (default: {' '.join(map(str, words)) if isinstance(words, list) else words})"


class _Parser(argparse.ArgumentParser):
    """Raises errors that argparse would print with the usage."""

    def error(self, message: str) -> NoReturn:
        hint, choice = "", re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice and (nearest := get_close_matches(choice[1], re.findall(r"[^', ]+", choice[2]), n=1)):
            hint = f" Did you mean {nearest[0]}?"
        raise ValueError(f"{message}.{hint} --help lists all settings.")


class _OnOrOff(argparse.Action):
    """`--name` and `--no_name`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__([*option_strings, f"--no_{dest}"], dest, nargs=0, **settings)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not str(option_string).startswith("--no_"))


def _add_setting(parser: Any, item: Field[Any], hint: Any) -> None:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    words: dict[str, Any] = {"help": item.metadata.get("help", "").replace("%", "%%"), "default": MISSING}
    kind, choices = _one_type(hint), _choices(hint)
    if item.metadata.get("positional"):
        parser.add_argument(item.name, help=words["help"], **({} if default is MISSING else {"nargs": "?"}))
        return
    if kind is bool:
        words["action"] = _OnOrOff
    else:
        words |= {"type": kind, "choices": choices, "required": default is MISSING}
        words["metavar"] = None if choices else "JSON" if kind is JsonMapping else item.name.rpartition("_")[2].upper()
        if _is_list(hint):
            words["nargs"] = "+"
    action = parser.add_argument(f"--{item.name}", **words)
    action.shown_default = default


def _owner(arguments_class: type, name: str) -> type:
    return next(cls for cls in arguments_class.__mro__ if is_dataclass(cls) and name in get_annotations(cls))


def _one_type(hint: Any) -> Any:
    """Return the type of a value, or of an element of a list, without `None`."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) in (list, tuple):
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0])
    return hint


def _is_list(hint: Any) -> bool:
    return get_origin(hint) in (list, tuple)


def _choices(hint: Any) -> list[Any] | None:
    return next((list(get_args(one)) for one in (hint, *get_args(hint)) if get_origin(one) is Literal), None)
