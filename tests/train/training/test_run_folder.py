"""What a run says of the weights that it started from."""

import json

import pytest

from train.reporting.run_report import start_warning
from train.training.run_folder import changed_settings, describe_start, read_start

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


def test_a_run_may_be_resumed_to_be_published_otherwise():
    run = {"arguments": {"batch_size": 8, "hub_repo_id": ""}, "num_processes": 1, "rows_sha256": {}}  # no hub_tag yet
    changed = {"batch_size": 8, "push_to_hub": True, "hub_repo_id": "me/model", "hub_tag": "v0.2"}
    assert changed_settings(run, {**run, "arguments": changed}) == []
