"""The folder of a Space: runs by itself, and holds nothing that is not to be seen."""

import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import metadata_load

from tests.train.web_app.test_report_index import MADE, write_index
from train.publishing.space import prepare_space, requirements


def test_the_card_tells_the_hub_how_to_run_it(tmp_path):
    prepare_space(tmp_path / "space", "org/lumbar")
    head = metadata_load(tmp_path / "space" / "README.md")
    assert head["sdk"] == "gradio"
    assert f"gradio=={head['sdk_version']}" in (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    assert head["python_version"] == "3.11"
    assert head["app_file"] == "app.py"
    assert head["models"] == ["org/lumbar"]
    assert head["license"] == "apache-2.0"
    assert len(head["short_description"]) <= 60  # what the Hub takes
    assert "reports_index" not in head  # a file that happens to be there is not read
    assert "Research use only" in (tmp_path / "space" / "README.md").read_text()


def test_the_card_asks_for_what_the_model_knows(tmp_path):
    prepare_space(tmp_path / "space", "org/knees", anatomy="knee")
    card = (tmp_path / "space" / "README.md").read_text()
    assert "Upload an image of the knee" in card and "spine" not in card


def test_it_holds_code_and_words_alone(tmp_path):
    prepare_space(tmp_path / "space", "org/lumbar")
    files = [path.relative_to(tmp_path / "space") for path in (tmp_path / "space").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".css", ".jinja", ".md", ".txt"}
    assert {path.parts[0] for path in files} == {
        "app.py",
        "README.md",
        "requirements.txt",
        "modeling_lumbarclip",
        "data_scripts",
        "train",
    }


def test_requirements_are_those_of_the_extra_and_not_ourselves(tmp_path):
    prepare_space(tmp_path / "space", "org/lumbar")
    lines = (tmp_path / "space" / "requirements.txt").read_text().split()
    assert lines == sorted(set(requirements("app")))
    names = {re.fullmatch(r"([\w-]+)==[\d.]+", line)[1] for line in lines}  # the versions that the tests ran with
    assert {"torch", "transformers", "gradio", "pydicom", "matplotlib"} <= names  # of four levels of extras
    assert "lumbarclip" not in names


def test_an_index_is_copied_without_what_the_app_does_not_show(tmp_path):
    write_index(tmp_path / "mine.parquet", np.eye(4), ["No disc bulge."] * 4, patient_id=["p"] * 4)
    prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")
    assert metadata_load(tmp_path / "space" / "README.md")["reports_index"] == "index.parquet"
    assert "with this licence: cc-by-4.0." in (tmp_path / "space" / "README.md").read_text()
    assert pq.read_schema(tmp_path / "space" / "index.parquet").names == ["embedding", "report", "source"]


@pytest.mark.parametrize("report", ["Dr. A. Salem: disc bulge.", "MRN: 12345. Disc bulge.", "Seen 12/03/2016."])
def test_an_index_that_names_someone_is_refused_without_repeating_it(tmp_path, report):
    write_index(tmp_path / "mine.parquet", np.eye(2), ["Disc bulge.", report])
    with pytest.raises(ValueError, match="seems to name someone") as refused:
        prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")
    assert not re.search(r"Salem|12345|2016", str(refused.value))
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    "source, kinds",
    [
        ("/mnt/a.png", "PATH, URL"),
        ("mine/SALEM^AHMAD/IM1.dcm", "NAME"),
        ("mine/Salem Ahmad/scan_20160312.png", "DATE"),
    ],
)
def test_an_index_whose_source_names_someone_or_this_machine_is_refused(tmp_path, source, kinds):
    write_index(tmp_path / "mine.parquet", np.eye(1), ["Disc bulge."])
    table = pq.read_table(tmp_path / "mine.parquet")
    pq.write_table(table.set_column(2, "source", [[source]]), tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=rf"seems to name someone \({kinds}\)"):
        prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    "deidentification, said",
    [
        ({"passed": False, "ids": "kept"}, "did not pass the de-identification check.*without --keep_ids"),
        (None, "is not known to have passed the de-identification check"),
    ],
)
def test_an_index_of_a_dataset_that_did_not_pass_the_check_of_names_is_refused(tmp_path, deidentification, said):
    write_index(tmp_path / "mine.parquet", np.eye(1), ["Disc bulge."], MADE | {"deidentification": deidentification})
    with pytest.raises(ValueError, match=said):
        prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    "about, said",
    [
        ({"license": None, "may_be_shared": None}, "has no licence for its reports"),  # of no build
        ({"license": "other: not stated", "may_be_shared": False}, "has no licence for its reports.*--license"),
        ({"license": "other: no copies", "may_be_shared": False}, r"\(no copies\) does not allow sharing"),
        ({"license": "mit", "may_be_shared": None}, r"does not say whether the licence.*\(mit\) allows sharing"),
    ],
)
def test_an_index_of_reports_that_may_not_be_passed_on_is_refused(tmp_path, about, said):
    write_index(tmp_path / "mine.parquet", np.eye(2), ["Disc bulge.", "Normal."], MADE | about)
    with pytest.raises(ValueError, match=said):
        prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize("model_id", ["lumbar", "/srv/runs/demo", "org/lum bar", "a/b/c"])
def test_what_is_no_id_of_the_hub_is_refused(tmp_path, model_id):
    with pytest.raises(ValueError, match=r"needs its id as org/name|alphanumeric"):
        prepare_space(tmp_path / "space", model_id)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        prepare_space(tmp_path, "org/lumbar")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_app_of_a_space_imports_without_the_project_and_knows_its_model(tmp_path):
    prepare_space(tmp_path / "space", "org/lumbar", tag="v0.2")
    script = "import app, train; print(train.__file__, *app.content_of_space(app.HERE / 'README.md'))"
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "space", env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(tmp_path / "space" / "train" / "__init__.py"), "org/lumbar", "v0.2"]
