"""Commands reject what they do not know, without a traceback, and name what may have been meant."""

import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from data_scripts import audit, build, deidentify, paraphrase, parse_reports, publish_dataset
from data_scripts.system.command_line import parse_arguments, run, setting
from tests.conftest import PROJECT

NEEDED = {
    build: ["--source", "folder", "--out", "x"],
    publish_dataset: ["--dataset", "x", "--repo_id", "me/x"],
    audit: ["--dataset", "x"],
    paraphrase: ["--dataset", "x", "--out", "y", "--model", "embedded"],
    deidentify: ["--raw", "x", "--out", "y"],
    parse_reports: ["--notes", "x", "--out", "y"],
}
MISSPELT = {build: ("--licence", "--license"), publish_dataset: ("--num_procs", "--num_proc")}


@pytest.mark.parametrize("command", NEEDED, ids=lambda command: command.__name__.rpartition(".")[2])
def test_an_option_that_does_not_exist(command, capsys):
    option, meant = MISSPELT.get(command, ("--outt", ""))
    assert run(command.main, [*NEEDED[command], option, "value"]) == 2
    said = capsys.readouterr().err
    assert f"error: {option}: no such setting." in said
    assert f"Did you mean {meant}?" in said or not meant


@dataclass
class Colours:
    """Choose colours."""

    colour: Literal["red", "green"] = setting("red", "Of the sky.")
    resume: bool = setting(False, "Go on.")


def paint(args: Colours) -> None:
    raise KeyboardInterrupt


def test_settings_files_are_in_the_help_and_missing_ones_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(Colours, ["--help"])
    assert "[CONFIG.yaml]" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"No settings file nowhere\.yaml\."):
        parse_arguments(Colours, ["nowhere.yaml"])
    with pytest.raises(ValueError, match=r"config is neither an option nor a \.yaml file"):
        parse_arguments(Colours, ["config"])


@pytest.mark.parametrize(
    "words, said",
    [
        (["demoo.yaml"], r"No settings file demoo\.yaml\. Did you mean .*train/configs/demo\.yaml\?"),
        (["train/config/smoke.yaml"], r"Did you mean .*train/configs/smoke\.yaml\?"),
        (["small_cpuu.yml"], r"Did you mean .*experiments/small_cpu\.yaml\?"),
        (["colourz.yaml"], r"Did you mean .*colours\.yaml\?"),  # in the same folder
        (["NOWHERE.YAML"], r"No settings file NOWHERE\.YAML\. --help"),
        (["--colour", "red", "nowhere.yaml"], r"No settings file nowhere\.yaml\."),
        (["--colour", "red", "colours.yaml"], r"colours\.yaml: one settings file may be given, as the first word"),
        (["colours.yaml", "colours.yaml"], r"one settings file may be given"),
        (["--config", "colours.yaml"], r"A settings file comes first, without an option: colours\.yaml"),
        (["--config_file=colours.yaml"], r"no such setting"),
        (["colours"], r"neither an option nor a \.yaml file of settings\. Did you mean colours\.yaml\?"),
        (["folder.yaml"], r"folder\.yaml is a folder"),
        (["broken.yaml"], r"No settings file broken\.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_settings_file_that_cannot_be_read_is_named_with_the_way_out(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    Path("colours.yaml").write_text("colour: green\n")
    Path("folder.yaml").mkdir()
    Path("broken.yaml").symlink_to("gone.yaml")
    assert run(paint, words) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.startswith("error: ") and error.count("\n") == 1


def test_of_several_processes_the_first_says_what_is_wrong(monkeypatch, capsys):
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert run(paint, ["nowhere.yaml"]) == 2
        assert capsys.readouterr().err.count("\n") == lines


def test_a_misspelt_choice_names_the_nearest():
    with pytest.raises(ValueError, match=r"invalid choice: 'gren' .*Did you mean green\?"):
        parse_arguments(Colours, ["--colour", "gren"])


def test_ctrl_c_says_what_the_command_leaves(monkeypatch, capsys):
    assert run(paint, []) == 130
    monkeypatch.setitem(globals(), "WHEN_INTERRUPTED", "Nothing was painted.")
    assert run(paint, []) == 130
    assert (
        capsys.readouterr().err == "Interrupted. Rerun with --resume to continue.\nInterrupted. Nothing was painted.\n"
    )


SCRIPT = """
import sys
from dataclasses import dataclass
from functools import partial
from data_scripts.system.command_line import run, setting

@dataclass
class Arguments:
    pipe: str = setting("stdout", "Which pipe is closed.")

def main(args: Arguments) -> None:
    if args.pipe == "stdout, before anything is printed":
        raise ValueError("no such class")
    print("a line")
    if args.pipe == "another":
        raise BrokenPipeError("the Hub hung up")

sys.exit(run(main))
"""


@pytest.mark.parametrize(
    ("pipe", "code", "said"),
    [
        ("stdout", 141, ""),
        ("another", 2, "error: the Hub hung up\n"),
        ("stdout, before anything is printed", 2, "error: no such class\n"),
    ],
)
def test_only_a_reader_that_has_enough_ends_a_command_silently(pipe, code, said):
    reading, writing = os.pipe()
    if pipe.startswith("stdout"):
        os.close(reading)
    command = [sys.executable, "-c", SCRIPT, "--pipe", pipe]
    done = subprocess.run(command, cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_error_does_not_reach_the_terminal_as_a_command(capsys):
    def fail(_: audit.AuditArguments) -> None:
        raise ValueError("label \x1b]0;title\x07\x1b[2J")

    assert run(fail, ["--dataset", "x"]) == 2
    assert capsys.readouterr().err == "error: label \\x1b]0;title\\x07\\x1b[2J\n"


YAML = {
    "- batch_size": "contains ['batch_size'], not settings",
    "batch_size": "contains 'batch_size', not settings",
    "42": "contains 42, not settings",
    "colour:\tred\n\tresume: true": "line 1: while scanning",
    "colour: red\ncolour: green": "'colour' is given twice",
    b"colour: caf\xe9": "is not valid YAML: 'utf-8' codec can't decode",
    b"\xff\xfec\x00": "is not valid YAML",
    b"colour: \x00": "is not valid YAML",
    "1: red": "sets 1, which is not a setting",
    "? [a, b]\n: red": "line 1: while constructing a mapping",
    "[" * 5000: "is not valid YAML",
    "resume:": "sets resume to nothing",
    "colour: [red, green]": "sets colour to ['red', 'green']",
}


@pytest.mark.parametrize("content", YAML, ids=repr)
def test_damaged_settings_are_named(content, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(paint, [str(path)]) == 2
    said = capsys.readouterr().err
    assert YAML[content] in said and said.count("\n") == 1 and len(said) < 400


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}"])
def test_empty_settings_are_the_defaults(content, tmp_path):
    (tmp_path / "settings.yaml").write_text(content)
    assert parse_arguments(Colours, [str(tmp_path / "settings.yaml")]) == Colours()


INTERRUPTED = """
import atexit, os, signal, sys, time
from dataclasses import dataclass
from functools import partial
from data_scripts.system.command_line import run, setting

@dataclass
class Arguments:
    when: str = setting("", "When Ctrl-C comes.")

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)

def main(args: Arguments) -> None:
    try:
        if args.when == "after":
            atexit.register(ctrl_c)
        else:
            ctrl_c()
    except KeyboardInterrupt:
        if args.when == "renamed":
            raise RuntimeError("as some libraries do") from None
        if args.when == "twice":
            ctrl_c()
        raise

sys.exit(run(main))
"""


@pytest.mark.parametrize("when", ["once", "twice", "renamed", "after"])
def test_ctrl_c_at_any_moment_is_one_line(when):
    command = [sys.executable, "-c", INTERRUPTED, "--when", when]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell starts background jobs deaf to Ctrl-C
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, preexec_fn=heard)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Rerun to resume.\n")


def test_a_full_disk_behind_standard_output_is_an_error():
    command = [sys.executable, "-c", SCRIPT]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=PROJECT, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "error: Cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("name", ["accelerate", "httpx", "httpx2", "onnxscript", "onnx_ir"])
def test_libraries_do_not_log_each_step(name, monkeypatch):
    monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    run(paint, [])
    assert logging.getLogger(name).level == logging.WARNING


def test_names_that_are_not_text_are_printed():
    script = SCRIPT.replace("a line", r"caf\udce9")
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf\\udce9\n")


def look_for(args: Colours) -> None:
    os.fsdecode(b"caf\xe9").encode()


def test_a_name_that_a_library_cannot_take_is_named(capsys):
    assert run(look_for, []) == 2
    assert capsys.readouterr().err == "error: 'caf\\udce9' is not UTF-8: rename the file or folder\n"
