"""What a run says of the weights that it started from, and which folder it may write to."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_scripts.system.staging import only_process
from tests.data_scripts.system.killed_processes import outcomes_of_kills
from train.reporting.run_report import start_warning
from train.training.run_folder import (
    changed_settings,
    check_output,
    describe_start,
    keep_history,
    make_output,
    read_start,
)

ROWS = {"train": "a", "validation": "b", "test": "c"}
OTHER = {"train": "a", "validation": "c", "test": "b"}


@pytest.mark.parametrize(
    "base, rows",
    [
        ({"rows_sha256": ROWS, "start": None}, "same"),
        ({"rows_sha256": ROWS, "start": {"rows": "same"}}, "same"),
        ({"rows_sha256": OTHER, "start": None}, "other"),
        ({"rows_sha256": ROWS, "start": {"rows": "other"}}, "other"),  # what that run started from counts too
        ({"rows_sha256": ROWS, "start": {"rows": "unknown"}}, "unknown"),
    ],
)
def test_the_run_beside_a_checkpoint_tells_what_it_was_trained_on(tmp_path, base, rows):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"arguments": {"init_checkpoint": ""}, **base}))
    checkpoint = str(tmp_path / "checkpoint")
    assert describe_start(checkpoint, ROWS) == {"checkpoint": checkpoint, "is_folder": True, "rows": rows}
    assert describe_start(f"{checkpoint}/", ROWS)["rows"] == rows


def test_of_a_hub_id_and_a_copied_folder_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_hub = {"checkpoint": "user/model", "is_folder": False, "rows": "unknown"}
    assert describe_start("user/model", ROWS) == of_hub
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "run.json").write_text(json.dumps({"rows_sha256": ROWS}))  # of a run, but no folder of it
    assert describe_start("user/model", ROWS) == of_hub
    (tmp_path / "copy").mkdir()
    assert describe_start("copy", ROWS)["rows"] == "unknown"


def test_the_report_warns_of_a_start_that_may_have_seen_the_test_patients():
    assert "unknown" in start_warning({"rows": "unknown"})
    assert "may include these test patients" in start_warning({"rows": "other"})
    assert start_warning({"rows": "same"}) == start_warning(None) == ""


def test_the_start_is_read_from_the_run(tmp_path):
    assert read_start(tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps({"arguments": {}}))
    assert read_start(tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps({"start": {"checkpoint": "c", "rows": "other"}}))
    assert read_start(tmp_path) == {"checkpoint": "c", "rows": "other"}


def test_a_run_is_not_resumed_at_another_power():
    """Its energy is computed for all of its time; a run of before there was this setting goes on without it."""
    before = {"arguments": {"batch_size": 8}, "num_processes": 1, "rows_sha256": {}}
    now = {**before, "arguments": {"batch_size": 8, "power_watts": 250.0}}
    assert changed_settings(before, now) == ["power_watts: None then, 250.0 now"]
    assert changed_settings(before, {**before, "arguments": {"batch_size": 8, "power_watts": None}}) == []


@pytest.mark.parametrize(
    ("then", "now", "changes"),
    [
        ("bf16", "bf16", []),
        ("bf16", "no", ["mixed_precision: bf16 then, no now"]),
        ("no", "fp16", ["mixed_precision: no then, fp16 now"]),
        (None, "bf16", []),  # the oldest runs did not record it
    ],
)
def test_a_run_is_not_resumed_in_another_precision(then, now, changes):
    run = {"arguments": {"batch_size": 8}, "num_processes": 1, "rows_sha256": {}}
    before = run if then is None else {**run, "mixed_precision": then}
    assert changed_settings(before, {**run, "mixed_precision": now}) == changes


def test_a_run_of_before_there_were_several_texts_showed_one():
    before = {"arguments": {"batch_size": 8}, "num_processes": 1, "rows_sha256": {}}
    now = {**before, "arguments": {"batch_size": 8, "texts_per_pair": 1, "minority_share": 0.5}}
    assert changed_settings(before, now) == []
    now["arguments"] |= {"texts_per_pair": 5, "minority_share": 0.16}
    assert changed_settings(before, now) == ["minority_share: 0.5 then, 0.16 now", "texts_per_pair: 1 then, 5 now"]


def test_a_run_of_before_objectives_were_combined_had_one():
    before = {"arguments": {"batch_size": 8, "objective": "siglip"}, "num_processes": 1, "rows_sha256": {}}
    now = {**before, "arguments": {"batch_size": 8, "objectives": {"siglip": 1.0}, "polarity_temperature": 0.15}}
    assert changed_settings(before, now) == []
    now["arguments"]["objectives"] = {"siglip": 1.0, "polarity": 0.5}
    (change,) = changed_settings(before, now)
    assert change == "objectives: {'siglip': 1.0} then, {'siglip': 1.0, 'polarity': 0.5} now"


def test_a_run_may_be_resumed_to_be_published_otherwise():
    run = {"arguments": {"batch_size": 8, "hub_repo_id": ""}, "num_processes": 1, "rows_sha256": {}}  # no hub_tag yet
    changed = {"batch_size": 8, "push_to_hub": True, "hub_repo_id": "me/model", "hub_tag": "v0.2"}
    assert changed_settings(run, {**run, "arguments": changed}) == []


ALONE = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
IDENTITY = {"system": "s", "arguments": {"batch_size": 8}, "num_processes": 1, "rows_sha256": {}}
OVERWRITE, RESUME = SimpleNamespace(overwrite=True, resume=False), SimpleNamespace(overwrite=False, resume=True)
STATE = Path("states/update-00000001/model.safetensors")


def begin(folder, args):
    """As a run does."""
    with only_process(folder):
        check_output(folder, IDENTITY, args)
        make_output(folder, IDENTITY, args, ALONE)


def old_run(folder):
    for path in (folder / STATE, folder / "checkpoint" / "config.json", folder / "history.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    (folder / "run.json").write_text(json.dumps({**IDENTITY, "date": "old"}))


@pytest.mark.parametrize("then", [OVERWRITE, RESUME], ids=["--overwrite", "--resume"])
def test_a_run_killed_while_it_overwrites_another_can_be_started_again(tmp_path, then):
    """Nothing of a deleted run is mixed with the next; a run that is still whole is resumed."""
    for folder in outcomes_of_kills(tmp_path, old_run, lambda folder: begin(folder, OVERWRITE)):
        run = folder / "run.json"
        is_untouched = then is RESUME and run.exists() and "old" in run.read_text()
        begin(folder, then)
        names = {path.name for path in folder.iterdir()}
        assert names == ({"states", "checkpoint", "history.jsonl", "run.json"} if is_untouched else {"run.json"})
        assert ("old" in run.read_text()) == is_untouched


def test_a_folder_that_is_no_run_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").touch()
    for args in (OVERWRITE, RESUME):
        with pytest.raises(ValueError, match="remove it yourself|is not empty"):
            begin(tmp_path / "mine", args)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("content", ["", "{", '{"arguments": {}}', "[]"])
def test_a_damaged_run_is_named_and_can_be_overwritten(tmp_path, content):
    old_run(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json cannot be read|not recorded then"):
        begin(tmp_path, RESUME)
    begin(tmp_path, OVERWRITE)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_damaged_history_is_named_and_one_cut_by_a_kill_resumed(tmp_path):
    path = tmp_path / "history.jsonl"
    lines = ['{"update": 1, "loss": 0.5}\n', '{"update": 2, "loss": 0.25}\n', '{"update": 3, "lo']
    path.write_text("".join(lines))
    keep_history(path, 1, ALONE)
    assert path.read_text() == lines[0]
    for damaged in (b'{"upda\n{"update": 2}\n', b"[1]\n", b"\xff\xfe\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"history\.jsonl, line 1, is not an update"):
            keep_history(path, 1, ALONE)
