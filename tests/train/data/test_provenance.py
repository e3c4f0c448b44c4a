"""What a run says of its data: counts of the rows it uses, and what the build wrote down, wherever it lies."""

import json
from functools import partial
from pathlib import Path

import pytest
from datasets import DatasetDict, load_dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

from data_scripts.records import Record, SourceAbout, SourceInfo
from data_scripts.writing.build_report import build_report
from train.data import provenance
from train.data.provenance import UNKNOWN, DataFacts, describe_build, describe_data


@pytest.fixture
def dataset(tiny_dataset_folder) -> DatasetDict:
    return load_dataset(str(tiny_dataset_folder))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds the report of a build."""
    about = SourceAbout(name="clinic", summary="Slices.", license="mit", citation="Smith 2030", size="", where="")
    info = SourceInfo(about=about, label_names=("LBP",), report_origin="two radiologists")
    record = Record(load_image=partial(Image.new, "L", (2, 2)), report="A.", patient_id="p", study_id="s", source="a")
    report = build_report(
        info,
        command="build",
        arguments={"source": "clinic", "split_by": "patient"},
        num_read=1,
        exclusions=[],
        records_of_split={"train": [record]},
        split_rule="By patient.",
        deidentification={"passed": False, "ids": "kept", "burnt_in_text": ["SMITH_JOHN.png"]},
        labels={"classes": "findings", "from_reports": False, "not_used": [], "rows_without": 1, "not_understood": []},
        facts_changed=[],
        orientation_not_stated=[],
        windows_replaced=[],
    )
    (tmp_path / "build_report.json").write_text(json.dumps(report))
    return tmp_path


def test_folder_is_described_by_the_report_of_its_build(folder, dataset):
    data = describe_data(str(folder), dataset)
    assert data == {
        "name": folder.name,
        "hub_id": None,
        "synthetic": False,
        "splits": {  # of the rows that are used, whatever was built
            "train": {"rows": 40, "patients": 10},
            "validation": {"rows": 12, "patients": 3},
            "test": {"rows": 12, "patients": 3},
        },
        "planes": {"axial": 40},
        "sequences": {"T1": 20, "T2": 20},
        "source": "clinic",
        "anatomy": "lumbar spine",
        "license": "mit",
        "citation": "Smith 2030",
        "summary": "Slices.",
        "report_origin": "two radiologists",
        "labels_from": "source",
        "may_be_shared": True,
        "split_rule": "By patient.",
        "split_by": "patient",
        "deidentification": {"passed": False, "ids": "kept"},  # without the rows that it names
    }


def test_report_of_an_earlier_build_leaves_gaps(folder, dataset):
    path = folder / "build_report.json"
    report = json.loads(path.read_text())
    for later in ("source", "may_be_shared", "deidentification"):
        del report[later]
    path.write_text(json.dumps(report))
    data = describe_data(str(folder), dataset)
    assert data["source"] == "clinic" and data["split_by"] == "patient"
    assert [data[name] for name in ("license", "may_be_shared", "deidentification", "citation")] == [None] * 4


def of_source(dataset, *names):
    """The dataset, with rows that name these sources by turns."""
    return DatasetDict(
        {
            split: rows.remove_columns("source").add_column(
                "source", [f"{names[row % len(names)]}/{split}/{row}.png" for row in range(len(rows))]
            )
            for split, rows in dataset.items()
        }
    )


@pytest.mark.parametrize(
    ("recorded", "sources", "anatomy"),
    [
        ("knee", ["knee_kl"], "knee"),
        ("shoulder", ["folder"], "shoulder"),  # --anatomy
        (None, ["knee_kl"], "knee"),  # of an earlier build
        (None, ["SPIDER"], "lumbar spine"),
        (None, ["synthetic seed 0: synthetic-0026 L3"], "lumbar spine"),
        (None, ["knee_kl", "SPIDER"], None),
        (None, ["made by hand"], None),
    ],
)
def test_what_images_show_is_what_the_build_recorded_or_the_source_that_rows_name(
    folder, dataset, recorded, sources, anatomy
):
    path = folder / "build_report.json"
    report = json.loads(path.read_text())
    report["source"]["anatomy"] = recorded
    path.write_text(json.dumps(report))
    assert describe_data(str(folder), of_source(dataset, *sources))["anatomy"] == anatomy


def test_what_images_show_is_on_the_card_of_the_hub(dataset, monkeypatch):
    monkeypatch.setattr(provenance.DatasetCard, "load", lambda name: DatasetCard("---\nanatomy: knee\n---\n"))
    assert describe_data("someone/knees", dataset)["anatomy"] == "knee"


@pytest.mark.parametrize("arguments", [{"source": "folder"}, {"split_by": "patient"}, "damaged", None])
def test_a_damaged_report_is_named(folder, arguments):
    path = folder / "build_report.json"
    report = {**json.loads(path.read_text()), "arguments": arguments}
    path.write_text(json.dumps({name: value for name, value in report.items() if name != "source"}))
    with pytest.raises(ValueError, match=r"build_report\.json is damaged .*Build the dataset again"):
        describe_build(str(folder))


def test_dataset_of_the_hub_is_described_by_its_card(dataset, monkeypatch):
    head = "---\nlicense: other\nlicense_details: ask us\nmay_be_shared: false\ndeidentification_passed: true\n---\n"
    monkeypatch.setattr(provenance.DatasetCard, "load", lambda name: DatasetCard(head))
    data = describe_data("someone/drawn", dataset)
    assert (data["name"], data["hub_id"], data["license"]) == ("drawn", "someone/drawn", "other: ask us")
    assert data["may_be_shared"] is False and data["split_rule"] is None
    assert data["deidentification"] == {"passed": True, "ids": None}


def test_hub_that_is_not_reachable_costs_the_description_alone(dataset, monkeypatch):
    def unreachable(name: str) -> DatasetCard:
        raise OfflineModeIsEnabled(name)

    monkeypatch.setattr(provenance.DatasetCard, "load", unreachable)
    data = describe_data("someone/drawn", dataset)
    assert {**UNKNOWN, "hub_id": "someone/drawn"}.items() <= data.items()


def test_rows_that_a_program_made_are_no_dataset_of_the_hub(dataset):
    assert UNKNOWN.items() <= describe_data("rows of a test", dataset).items()


def test_splits_by_patient_pass(dataset):
    DataFacts("tiny", dataset).check_leaks(allow_leaks=False)
    assert DataFacts("tiny", dataset).leak_stamp is None


def test_shared_patients_are_refused_unless_wanted_and_stamped(dataset):
    dataset["test"] = dataset["train"].select(range(4))
    with pytest.raises(ValueError, match=r"1 patient in several splits \(rows: train 4, test 4\).*--allow_leaks"):
        DataFacts("tiny", dataset).check_leaks(allow_leaks=False)
    DataFacts("tiny", dataset).check_leaks(allow_leaks=True)
    stamp = DataFacts("tiny", dataset).leak_stamp
    assert stamp["patient"]["num_shared"] == stamp["study"]["num_shared"] == 1
    assert stamp["image"]["rows"] == {"train": 4, "test": 4}
    assert stamp["in_words"].startswith("1 patient in several splits")


def test_a_nearly_equal_image_of_another_patient_is_refused(dataset):
    brighter = {"image": dataset["train"][5]["image"].point([min(255, grey + 5) for grey in range(256)])}

    def stored_anew(row, index):
        return row if index else row | brighter

    dataset["test"] = dataset["test"].map(
        stored_anew, with_indices=True, keep_in_memory=True, load_from_cache_file=False
    )
    with pytest.raises(ValueError, match=r"1 near-identical image in several splits \(rows: train 1, test 1\)"):
        DataFacts("tiny", dataset).check_leaks(allow_leaks=False)
    assert list(DataFacts("tiny", dataset).leak_stamp) == ["in_words", "near-identical image"]


def test_facts_are_found_once(dataset, monkeypatch):
    facts = DataFacts("tiny", dataset)
    assert facts.leak_stamp is None and facts.description["name"] == "tiny"
    monkeypatch.setattr(provenance, "leaks_of", None)
    monkeypatch.setattr(provenance, "describe_data", None)
    facts.check_leaks(allow_leaks=False)
    assert facts.leak_stamp is None and set(facts.rows_sha256) == set(facts.description["splits"])
