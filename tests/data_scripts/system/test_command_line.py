"""Commands refuse what they do not know, without a traceback, and name what may have been meant."""

import pytest

from data_scripts import audit, build, deidentify, paraphrase, parse_reports, publish_dataset
from data_scripts.auditing import privacy_check
from data_scripts.system.command_line import run

NEEDED = {
    build: ["--source", "folder", "--out", "x"],
    publish_dataset: ["--dataset", "x", "--repo_id", "me/x"],
    audit: ["--dataset", "x"],
    paraphrase: ["--dataset", "x", "--out", "y", "--model", "embedded"],
    deidentify: ["--raw", "x", "--out", "y"],
    privacy_check: ["--dataset", "x"],
    parse_reports: ["--notes", "x", "--out", "y"],
}
MISSPELT = {build: ("--licence", "--license"), publish_dataset: ("--num_procs", "--num_proc")}


@pytest.mark.parametrize("command", NEEDED, ids=lambda command: command.__name__.rpartition(".")[2])
def test_an_option_that_does_not_exist(command, capsys):
    option, meant = MISSPELT.get(command, ("--outt", ""))
    words = [*NEEDED[command], option, "value"]
    if command in (paraphrase, parse_reports):
        assert run(command.main, words) == 2
        said = capsys.readouterr().err
    elif command in (audit, privacy_check):  # they return the exit code
        assert command.main(words) == 2
        said = capsys.readouterr().err
    else:
        with pytest.raises(SystemExit) as left:
            command.main(words)
        said = str(left.value)
    assert f"error: {option} value: no such setting." in said
    assert f"Did you mean {meant}?" in said or not meant
