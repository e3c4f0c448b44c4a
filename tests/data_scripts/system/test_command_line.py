"""Commands reject what they do not know, without a traceback, and name what may have been meant."""

import os
import subprocess
import sys
from dataclasses import dataclass
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
from data_scripts.system.command_line import run, setting

@dataclass
class Arguments:
    pipe: str = setting("stdout", "Which pipe is closed.")

def main(args: Arguments) -> None:
    print("a line")
    if args.pipe == "another":
        raise BrokenPipeError("the Hub hung up")

sys.exit(run(main))
"""


@pytest.mark.parametrize(("pipe", "code", "said"), [("stdout", 141, ""), ("another", 2, "error: the Hub hung up\n")])
def test_only_a_reader_that_has_enough_ends_a_command_silently(pipe, code, said):
    reading, writing = os.pipe()
    if pipe == "stdout":
        os.close(reading)
    command = [sys.executable, "-c", SCRIPT, "--pipe", pipe]
    done = subprocess.run(command, cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_error_does_not_reach_the_terminal_as_a_command(capsys):
    def fail(_: audit.AuditArguments) -> None:
        raise ValueError("label \x1b]0;title\x07\x1b[2J")

    assert run(fail, ["--dataset", "x"]) == 2
    assert capsys.readouterr().err == "error: label \\x1b]0;title\\x07\\x1b[2J\n"
