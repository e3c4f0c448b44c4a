"""One command with a subcommand for each entry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.__main__ import COMMANDS, main


def test_help_lists_every_command(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS) and "Research use only" in listed


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["pretrian"]) == 2
    assert "error: 'pretrian' is not a command. Did you mean pretrain?" in capsys.readouterr().err


def test_a_command_gets_its_own_words_and_its_exit_code(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lumbarclip"])
    assert main(["verify", "no/checkpoint", "--tolerance", "3"]) == 2
    assert "--tolerance" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["build", "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: lumbarclip build")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_console_script_finds_every_command_from_any_folder(name, tmp_path):
    script = Path(sys.executable).with_name("lumbarclip")
    if not script.exists():
        pytest.skip("LumbarCLIP is not installed in this environment")
    done = subprocess.run([script, name, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: lumbarclip {name}"), done.stderr[-2000:]


@pytest.mark.parametrize(
    ("line", "offered"), [("lumbarclip pre", "pretrain"), ("lumbarclip pretrain --lear", "--learning_rate")]
)
def test_tab_completes_commands_and_settings(line, offered, tmp_path):
    """As bash asks: the words arrive in the environment, the answers in file descriptor 8."""
    answers = tmp_path / "answers"
    with answers.open("wb") as file:
        subprocess.run(
            ["bash", "-c", f"exec 8>&{file.fileno()} 9>/dev/null; {sys.executable} -m train"],
            env={
                **os.environ,
                "_ARGCOMPLETE": "1",
                "_ARGCOMPLETE_IFS": "\v",
                "COMP_LINE": line,
                "COMP_POINT": str(len(line)),
            },
            pass_fds=(file.fileno(),),
            check=False,
        )
    assert offered in answers.read_text()
