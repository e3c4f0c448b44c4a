"""The judge of `benchmarks/robustness.py` sees what it should; the campaign itself is not run here."""

import json
import random
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from tests.benchmarks import robustness
from tests.benchmarks.attacked_files import Format, damage, problem_of
from tests.benchmarks.left_files import differences, half_written, refusal_problems

RESULTS = {"date": "2026-11-30", "seconds": 2.5, "probe": [{"value": 0.75, "low": float("nan")}]}


@pytest.fixture
def undisturbed(tmp_path):
    return write_outputs(tmp_path / "undisturbed" / "made")


def write_outputs(folder, weight=0.5, embedding=0.25, **results):
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "metrics.json").write_text(json.dumps({**RESULTS, **results}))
    save_file({"weight": np.full(3, weight, np.float32)}, folder / "run" / "model.safetensors")
    pq.write_table(pa.table({"embedding": [[embedding, float("nan")]]}), folder / "run" / "rows.parquet")
    return folder


@pytest.mark.parametrize(
    "changed, said",
    [
        ({}, []),
        ({"date": "2026-12-01", "seconds": 9.0}, []),
        (
            {"probe": [{"value": 0.7500001, "low": float("nan")}]},
            ["run/metrics.json: 1 values differ, such as probe[0]"],
        ),
        ({"weight": np.nextafter(np.float32(0.5), np.float32(1))}, ["run/model.safetensors: 1 values differ"]),
        ({"embedding": 0.25000001}, ["run/rows.parquet: 1 values differ"]),
        ({"more": 1}, ["run/metrics.json: 1 values differ, such as more: None undisturbed, 1 here"]),
    ],
)
def test_one_number_that_differs_is_seen(undisturbed, tmp_path, changed, said):
    found = differences(write_outputs(tmp_path / "trial", **changed), ["run"], undisturbed)
    assert len(found) == len(said) and all(map(str.startswith, found, said)), found


def test_files_that_are_missing_or_left_over_are_seen(undisturbed, tmp_path):
    trial = write_outputs(tmp_path / "trial")
    (trial / "run" / "rows.parquet").rename(trial / "run" / ".rows.parquet.unfinished")
    expected = ["run/rows.parquet is missing", "left over: run/.rows.parquet.unfinished"]
    assert differences(trial, ["run"], undisturbed) == expected
    assert half_written(trial, ["run"], undisturbed) == ["half-written: run lacks run/rows.parquet"]


@pytest.mark.parametrize("name", ["metrics.json", "model.safetensors", "rows.parquet"])
def test_half_a_file_is_seen(undisturbed, tmp_path, name):
    trial = write_outputs(tmp_path / "trial")
    assert half_written(trial, ["run", "absent"], undisturbed) == []
    content = (trial / "run" / name).read_bytes()
    (trial / "run" / name).write_bytes(content[: len(content) // 2])
    (problem,) = half_written(trial, ["run"], undisturbed)
    assert problem.startswith(f"half-written: run/{name}: ")


class FakedProcess:
    """A command that is killed once, and leaves what `leave` writes at each call."""

    def __init__(self, leave):
        self.leave, self.calls = leave, 0

    def start(self, module, words, folder, log, fresh):
        self.leave(folder, self.calls)
        log.with_name(f"{log.name}.err").write_text("")
        self.calls += 1
        return 2**22 + 1  # above the largest process id of Linux

    def wait(self, pid):
        return 0 if self.calls > 1 else -signal.SIGKILL


@pytest.fixture
def verdict_on(undisturbed, tmp_path, monkeypatch):
    """What a trial with one kill says of a faked command."""
    monkeypatch.setitem(robustness.COMMANDS, "made", robustness.Command("made", "", ("run",)))
    for name in ("trials", "logs"):
        (tmp_path / name).mkdir()

    def judge(leave):
        campaign = robustness.Campaign(tmp_path, 0, None, {"made": 0.001})
        campaign.lanes.warm = FakedProcess(leave)
        found = robustness.Findings(0)
        found.add("kills/made/0", robustness.kill_trial(campaign, "made", 0, 1))
        assert campaign.kills == {"kills/made": 1}
        return found

    return judge


def test_a_command_that_is_whole_or_absent_and_resumes_holds(verdict_on):
    found = verdict_on(lambda folder, call: write_outputs(folder) if call else None)
    assert found.counts["kills/made"] == {"tried": 1, "held": 1} and not found.failures


def test_a_command_that_leaves_half_a_file_does_not_hold(verdict_on):
    def leave(folder, call):
        if not call:
            write_outputs(folder)
            (folder / "run" / "metrics.json").write_text('{"probe": [{"val')

    (failure,) = verdict_on(leave).failures
    assert "half-written: run/metrics.json" in failure["problems"][0]
    assert robustness.FOLDERS.sub("", "No /data/made/run/a.json, not run/b.json") == "No a.json, not run/b.json"
    assert failure["repeat"].endswith("--seed 0 --only kills/made/0")


def test_a_command_that_resumes_to_another_number_does_not_hold(verdict_on):
    (failure,) = verdict_on(lambda folder, call: write_outputs(folder, weight=0.6) if call else None).failures
    assert "run/model.safetensors: 1 values differ" in failure["problems"][0]


@pytest.mark.parametrize(
    "code, said, holds",
    [
        (2, "reading: 100%|##| 2/2\rerror: --out out exists; choose another folder\n", True),
        (2, "error: one line\nand another\n", False),
        (1, "Traceback (most recent call last):\nKeyError: 'a'\n", False),
        (0, "", False),
        (2, "error: [Errno 39] Directory not empty\n", False),
    ],
)
def test_a_refusal_is_one_line_of_the_command_s_own(tmp_path, code, said, holds):
    (tmp_path / "log.err").write_text(said)
    assert (refusal_problems(code, tmp_path / "log", system_errors=False) == []) == holds


def fail_with(error):
    def read(folder, path):
        raise error

    return read


@pytest.mark.parametrize(
    "read, said",
    [
        (lambda folder, path: None, None),
        (lambda folder, path: "rows were lost", "rows were lost"),
        (fail_with(ValueError("table.csv has no rows")), None),
        (fail_with(ValueError("no rows")), "an error that names no file: ValueError: no rows"),
        (fail_with(KeyError("a")), "KeyError: 'a'"),
        (lambda folder, path: np.ones(2**30, np.uint8).sum() and None, "takes "),
    ],
)
def test_a_reader_holds_if_it_returns_or_names_the_file(tmp_path, monkeypatch, read, said):
    monkeypatch.setattr("tests.benchmarks.attacked_files.MAX_EXTRA_MIB", 128)
    found = problem_of(Format(1, read), tmp_path, tmp_path / "table.csv")
    assert found is None if said is None else found.startswith(said)


def test_damage_is_drawn_by_the_seed():
    content = bytes(range(256)) * 8
    drawn = [damage(content, random.Random(seed)) for seed in range(40)]
    assert drawn == [damage(content, random.Random(seed)) for seed in range(40)]
    assert sum(changed != content for changed, _ in drawn) > 35
