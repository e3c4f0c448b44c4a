"""Commands reject what they do not know, without a traceback, and name what may have been meant."""

import pytest

from data_scripts import audit, build, deidentify, paraphrase, parse_reports, publish_dataset
from data_scripts.system.command_line import run

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
