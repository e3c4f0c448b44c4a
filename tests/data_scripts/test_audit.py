"""Leaks that were made on purpose, each of its kind."""

import subprocess
import sys

import datasets
import pytest

from data_scripts.audit import main
from data_scripts.auditing.audit_report import audit
from data_scripts.system.command_line import run
from tests.conftest import PROJECT
from tests.data_scripts.made_rows import LEAKS, dataset_of, row, splits


def test_a_clean_dataset_is_clean():
    result = audit(splits())
    assert result["clean"] and result["leaks"] == {}
    assert result["in_words"] == "No patient, study, image or near-identical image is in two splits."
    assert result["splits"]["train"] == {"rows": 10, "patients": 10, "studies": 10, "distinct_reports": 10}


@pytest.mark.parametrize("kind", LEAKS)
def test_each_kind_of_leak_is_found_alone(kind):
    result = audit(splits(**LEAKS[kind]))
    assert not result["clean"] and list(result["leaks"]) == [kind]
    leak = result["leaks"][kind]
    assert leak["num_shared"] == 1 and leak["rows"] == {"train": 1, "test": 1}
    expected = {
        "patient": "p3 in train and test",
        "study": "s3 in train and test",
        "image": "train made/3 = test made/14",
    }
    assert leak["examples"][0].startswith(expected.get(kind, "train made/3 ~ test made/14"))


def test_unknown_ids_and_repeated_texts_are_no_leak():
    unknown = dataset_of(
        train=[row(1, study_id="", report="No disc herniation."), row(2)],
        test=[row(3, study_id="", report="no disc  herniation. "), row(4)],
    )
    result = audit(unknown)
    assert result["clean"] and result["shared_reports"] == {"test": 0.5}


def test_reports_shared_by_later_splits_count_and_an_empty_split_shares_none():
    shared = {"report": "Mild bulge at L5/S1."}
    data = dataset_of(train=[row(1)], validation=[row(2, **shared)], test=[row(3, **shared), row(4)])
    result = audit(data | {"extra": data["train"].select([])})
    assert result["shared_reports"] == {"validation": 0.0, "test": 0.5, "extra": 0.0}
    assert result["splits"]["extra"]["rows"] == 0


def test_an_unexpected_error_does_not_exit_like_a_leak(tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("made up")

    (tmp_path / "data").mkdir()
    splits()["train"].to_parquet(tmp_path / "data" / "train.parquet")
    blocked = tmp_path / "a_file"
    blocked.write_text("")
    assert run(main, ["--dataset", str(tmp_path), "--out", str(blocked / "audit.json")]) == 2
    monkeypatch.setattr("data_scripts.auditing.audit_report.audit", fail)
    assert run(main, ["--dataset", str(tmp_path)]) == 2
    assert "ZeroDivisionError: made up" in capsys.readouterr().err


def test_images_kept_as_paths_are_read(tmp_path):
    rows = [row(number) for number in (1, 2)]
    for one in rows:
        path = tmp_path / f"{one['patient_id']}.png"
        path.write_bytes(one["image"]["bytes"])
        one["image"] = {"bytes": None, "path": str(path)}
    result = audit(dataset_of(train=rows, test=[row(2, patient_id="p9", study_id="s9")]))
    assert list(result["leaks"]) == ["image"]
    with pytest.raises(ValueError, match="a row has no image"):
        audit(dataset_of(train=[row(1, image=None)]))


def test_command_line(tmp_path, capsys):
    named = dataset_of(train=[row(1)], test=[row(2, report="Dr. Salem: bulge at L4/L5.")])
    for name, data in (("clean", splits()), ("leaking", splits(**LEAKS["patient"])), ("named", named)):
        for split, rows in data.items():
            (tmp_path / name / "data").mkdir(parents=True, exist_ok=True)
            rows.to_parquet(tmp_path / name / "data" / f"{split}.parquet")
    assert run(main, ["--dataset", str(tmp_path / "clean")]) == 0
    assert run(main, ["--dataset", str(tmp_path / "leaking"), "--out", str(tmp_path / "audit.json")]) == 1
    printed = capsys.readouterr().out
    assert "p3 in train and test" in printed and "no leak" in printed and "No passage names a person" in printed
    assert (tmp_path / "audit.md").read_text() in printed
    assert '"clean": false' in (tmp_path / "audit.json").read_text()
    assert run(main, ["--dataset", str(tmp_path / "named")]) == 1
    printed = capsys.readouterr().out
    assert "- test row 0, report: NAME: Dr. [NAME]: bulge at L4/L5" in printed and "Salem" not in printed
    (tmp_path / "broken" / "data").mkdir(parents=True)
    (tmp_path / "broken" / "data" / "train.parquet").write_bytes(b"PAR1 no")
    lacking = tmp_path / "lacking" / "data"
    lacking.mkdir(parents=True)
    datasets.Dataset.from_dict({"report": ["x"]}).to_parquet(lacking / "train.parquet")
    for name in ("absent", "broken", "lacking"):
        assert run(main, ["--dataset", str(tmp_path / name)]) == 2
    assert run(main, ["--dataset", str(tmp_path / "clean"), "--num_proc", "0"]) == 2
    assert "lacks the columns" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_say_the_same():
    leaking = splits(**LEAKS["near-identical image"])
    assert audit(leaking, num_proc=2) == audit(leaking)


@pytest.mark.slow
def test_the_exit_code_reaches_the_shell(tmp_path):
    command = [sys.executable, "-m", "data_scripts.audit", "--dataset", str(tmp_path / "absent")]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True).returncode == 2
