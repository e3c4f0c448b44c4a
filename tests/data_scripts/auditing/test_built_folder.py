"""A dataset is its own files, whole, and reaches nothing else."""

import errno
import io
import json
import os
import shutil
from unittest.mock import Mock

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from data_scripts.audit import main as audit
from data_scripts.auditing import built_folder
from data_scripts.auditing.audit_report import audit as audit_of
from data_scripts.auditing.built_folder import opened_afresh, read_dataset
from data_scripts.imaging.images import IMAGE_FORMATS
from data_scripts.paraphrase import main as paraphrase
from data_scripts.publish_dataset import main as publish
from data_scripts.system.command_line import run
from train.data.loaders import open_dataset
from train.finetune_classification import main as finetune
from train.pretrain import main as pretrain

NOWHERE = "http://127.0.0.1:9/x.png"
PATHS = [
    *("/etc/hostname", "../../secret.png", "secret.png", "images/a.png", NOWHERE, "https://localhost/x.png"),
    *("hf://datasets/a/b/x.png", "file:///etc/hostname", "s3://a/x.png", "zip://x.png::http://127.0.0.1:9/x.zip"),
    *("C:\\secret.png", "\\\\host\\secret.png", "~/secret.png", "", None),
]


@pytest.fixture
def folder(tiny_dataset_folder, tmp_path):
    """A copy of a dataset with what a build leaves beside the shards."""
    shutil.copytree(tiny_dataset_folder, tmp_path / "set")
    (tmp_path / "set" / "build_report.json").write_text("{}")
    return tmp_path / "set"


def changed_rows(shard, **columns):
    """Replace columns of a Parquet file by functions of their values, as `datasets` stores them."""
    table = pq.read_table(shard)
    for name, change in columns.items():
        field = table.schema.field(name)
        values = pa.array([change(row, value) for row, value in enumerate(table[name].to_pylist())], field.type)
        table = table.set_column(table.schema.get_field_index(name), field, values)
    pq.write_table(table, shard)


def refused(folder, message):
    for opened in (read_dataset, open_dataset, lambda name: opened_afresh(name).__enter__()):
        with pytest.raises(ValueError, match=message) as told:
            opened(folder)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("path", PATHS)
def test_an_image_that_is_only_a_path_is_refused(folder, path):
    changed_rows(
        folder / "data/test.parquet", image=lambda row, old: {"bytes": None, "path": path} if row == 3 else old
    )
    refused(folder, "row 3 of test stores no image, only " + ("the path" if path else "an empty cell"))


@pytest.mark.parametrize(
    "start, image_format",
    [(b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"8BPS\0\1", "PSD"), (b"\0\0\1\0", "ICO")],
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_an_image_of_another_format_is_refused(folder, column, start, image_format):
    stored = {"bytes": start + bytes(100), "path": "slice.png"}
    changed_rows(folder / "data/train.parquet", **{column: lambda row, old: stored if row == 7 else old})
    refused(folder, f"row 7 of train stores no {column}, only a file of type {image_format}")


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
def test_images_of_our_formats_are_read(folder, image_format):
    file = io.BytesIO()
    Image.new("L", (64, 48), 100).save(file, image_format)
    stored = {"bytes": file.getvalue(), "path": None}
    changed_rows(folder / "data/test.parquet", image=lambda row, old: stored if row == 3 else old)
    assert read_dataset(folder)["test"][3]["image"].size == (64, 48)


def test_an_image_that_is_not_there_is_refused(folder):
    changed_rows(folder / "data/train.parquet", image=lambda row, old: None if row == 39 else old)
    refused(folder, "row 39 of train stores no image, only an empty cell")


@pytest.mark.parametrize("path", [path for path in PATHS if path])
def test_so_is_a_mask_that_is_only_a_path(folder, path):
    changed_rows(
        folder / "data/train.parquet", mask=lambda row, old: {"bytes": None, "path": path} if row == 7 else old
    )
    refused(folder, "row 7 of train stores no mask, only the path")


def test_stored_images_may_have_the_name_of_their_file(folder):
    changed_rows(
        folder / "data/train.parquet",
        image=lambda row, old: {**old, "path": "a.png"},
        mask=lambda row, old: None if row else {"bytes": None, "path": None},
    )
    assert len(read_dataset(folder)["train"]) == 40


@pytest.mark.parametrize("feature", ["Audio", "Video", "Pdf", "Nifti", "Mesh"])
def test_a_column_that_reads_files_is_refused(folder, feature):
    shard = folder / "data/train.parquet"
    table = pq.read_table(shard)
    about = json.loads(table.schema.metadata[b"huggingface"])
    about["info"]["features"]["extra"] = {"_type": feature}
    stored = [{"bytes": None, "path": "/etc/hostname"}] * len(table)
    table = table.append_column("extra", pa.array(stored, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), shard)
    refused(folder, "train.parquet")


def test_an_image_inside_a_list_is_refused(folder):
    rows = datasets.Dataset.from_parquet(str(folder / "data/train.parquet"))
    more = datasets.Features({**rows.features, "extra": datasets.List(datasets.Image())})
    rows.add_column("extra", [[]] * len(rows)).cast(more).to_parquet(folder / "data/train.parquet")
    refused(folder, "train.parquet has a column extra of List")


@pytest.mark.parametrize(
    "data_files",
    [
        "../other/*.parquet",
        "/etc/*",
        "~/x.parquet",
        NOWHERE,
        "hf://datasets/a/b/x.parquet",
        "C:\\x.parquet",
        "data/../../x.parquet",
        ["data/train.parquet", NOWHERE],
        {"train": NOWHERE},
        [{"split": "train", "path": ["data/train.parquet", NOWHERE]}],
    ],
)
def test_a_card_that_names_other_data_is_refused(folder, data_files):
    head = json.dumps({"configs": [{"config_name": "default", "data_files": data_files}]})
    (folder / "README.md").write_text(f"---\n{head}\n---\n# A dataset\n")
    refused(folder, r"README\.md names the data .* outside the dataset")


def test_a_card_that_contains_itself_is_refused(folder):
    (folder / "README.md").write_text("---\nconfigs: &a [{data_files: *a}]\n---\n")
    refused(folder, r"README\.md has `configs` that contain themselves")


def test_a_snapshot_of_the_hub_links_to_its_blobs(folder, tmp_path):
    snapshot, blobs = tmp_path / "datasets--me--d" / "snapshots" / ("0" * 40), tmp_path / "datasets--me--d" / "blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    for number, path in enumerate([*snapshot.glob("data/*"), snapshot / "README.md"]):
        path.touch()
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert len(read_dataset(snapshot)["train"]) == 40


def test_a_card_with_a_damaged_head_is_named(folder):
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    refused(folder, r"README\.md has a damaged head")


@pytest.mark.parametrize("name", ["data", "data/test.parquet", "README.md", "build_report.json"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    if (folder / name).exists():
        (folder / name).rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text("# secret")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, "is a link to a file outside")


def test_a_link_inside_the_folder_is_followed(folder):
    (folder / "shards").mkdir()
    (folder / "data/test.parquet").rename(folder / "shards/test.bin")
    (folder / "data/test.parquet").symlink_to("../shards/test.bin")
    assert len(read_dataset(folder)["test"]) == 12


@pytest.mark.parametrize("name", ["data/more.csv", "data/train.csv", "data/extra.parquet", "data/trains.parquet"])
def test_other_data_among_the_shards_is_refused(folder, name):
    shutil.copy(folder / "data/train.parquet", folder / name)
    refused(folder, "is not a shard of train, validation, test")


@pytest.mark.parametrize(
    "name", ["set.py", "metadata.csv", "train.parquet", "more.jsonl", "a.zip", "dataset_infos.json", "state.json"]
)
def test_other_files_next_to_the_card_are_not_read(folder, name):
    (folder / name).write_text("raise SystemExit")
    assert len(read_dataset(folder)["train"]) == 40


def test_pipes_folders_and_loops_are_no_shards(folder):
    for make in (os.mkfifo, os.mkdir):
        make(folder / "data/train-2.parquet")
        refused(folder, r"train-2\.parquet is not a shard")
        (os.rmdir if make is os.mkdir else os.unlink)(folder / "data/train-2.parquet")
    (folder / "data/train-2.parquet").symlink_to("train-2.parquet")
    refused(folder, r"train-2\.parquet is a link|train-2\.parquet is not a shard")


DAMAGES = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "one byte": lambda whole: b"P",
    "random": lambda whole: os.urandom(len(whole)),
    "random inside": lambda whole: whole[:40] + os.urandom(len(whole) // 2) + whole[40 + len(whole) // 2 :],
    "end lost": lambda whole: whole[:-1],
    "length of the end": lambda whole: whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:],
    "another format": lambda whole: b"a,b\n1,2\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named(folder, damage):
    shard = folder / "data/test.parquet"
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    refused(folder, r"data/test\.parquet is damaged: ")


def test_what_this_user_may_not_read_is_not_called_damaged(folder, monkeypatch):
    """Root, who runs some tests, may read everything: the libraries raise what they raise for other users."""

    def closed(path):
        raise PermissionError(errno.EACCES, f"Failed to open local file '{path}'. Detail: [errno 13] Permission denied")

    monkeypatch.setattr(built_folder.pq, "read_schema", closed)
    refused(folder, r"data/\w+\.parquet cannot be read \(Permission denied\)\. Ask its owner for: chmod a\+r /")


def test_a_closed_folder_is_not_called_empty(folder, monkeypatch):
    closed = Mock(side_effect=PermissionError(errno.EACCES, "closed", "data"))
    monkeypatch.setattr(os, "listdir", closed)
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="closed: 'data'"):
        read_dataset(folder)


def test_shards_with_other_columns_are_named(folder):
    shard = folder / "data/validation.parquet"
    rows = datasets.Dataset.from_parquet(str(shard))
    rows.remove_columns("study_id").to_parquet(shard)
    refused(folder, r"data/validation\.parquet has other columns than train\.parquet: study_id\.")
    rows.cast_column("report", datasets.Value("binary")).to_parquet(shard)
    refused(folder, r"data/validation\.parquet has a column report of binary, not string\.")
    pq.write_table(pq.read_table(shard).replace_schema_metadata(None), shard)
    refused(folder, r"data/validation\.parquet has a column image of dict, not Image|validation\.parquet")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("report", None, "row 1 of test has no report"),
        ("patient_id", None, "row 1 of test has no patient_id"),
        ("source", None, "row 1 of test has no source"),
        ("rephrasings", None, "row 1 of test has no rephrasings"),
        ("rephrasings", [None], "a list of rephrasings in test has an empty entry"),
        ("labels", [None], "a list of labels in test has an empty entry"),
        ("labels", [0, 99], r"labels of test holds 99, and has \d+ classes"),
        ("labels", [-1], "labels of test holds -1"),
        ("level", 99, "level of test holds 99"),
        ("sequence", -2, "sequence of test holds -2"),
    ],
)
def test_a_cell_that_no_build_writes_is_named(folder, column, value, message):
    changed_rows(folder / "data/test.parquet", **{column: lambda row, old: value if row == 1 else old})
    refused(folder, rf"set/data: {message}.*Build or copy the dataset again\.")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_shard_without_rows_is_named(folder, split):
    shard = folder / f"data/{split}.parquet"
    pq.write_table(pq.read_table(shard).slice(0, 0), shard)
    refused(folder, rf"data/{split}\.parquet has no rows\.")


def test_lengths_written_as_text_are_refused(folder):
    for shard in (folder / "data").glob("*.parquet"):
        rows = datasets.Dataset.from_parquet(str(shard))
        rows.cast_column("pixel_spacing_mm", datasets.Value("string")).to_parquet(shard)
    refused(folder, r"parquet has a column pixel_spacing_mm of string, not float32\.")


def test_cells_that_a_build_may_leave_empty_are_read(folder):
    for shard in (folder / "data").glob("*.parquet"):
        changed_rows(shard, labels=lambda row, old: None, rephrasings=lambda row, old: [], mask=lambda row, old: None)
    assert set(open_dataset(str(folder))["test"]["labels"][:]) == {None}


def test_a_dataset_built_before_series_were_kept_is_still_read(folder):
    for shard in (folder / "data").glob("*.parquet"):
        rows = datasets.Dataset.from_parquet(str(shard))
        rows.remove_columns(["series_id", "slice_index", "slice_spacing_mm"]).to_parquet(shard)
    assert "series_id" not in open_dataset(str(folder))["train"].column_names
    with opened_afresh(folder) as dataset:
        assert audit_of(dataset)["privacy"]["findings"] == []


def test_rows_of_a_shard_that_changed_are_read_anew(folder):
    shard = folder / "data/test.parquet"
    before, stat = read_dataset(folder)["test"]["report"][:], shard.stat()
    changed_rows(shard, report=lambda row, old: old)  # by the same writer, so that the next one has its size
    before, stat = read_dataset(folder)["test"]["report"][:], shard.stat()
    changed_rows(shard, report=lambda row, old: old.replace("L3", "L9"))
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (shard.stat().st_size, shard.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert read_dataset(folder)["test"]["report"][:] == [text.replace("L3", "L9") for text in before] != before


def test_a_folder_whose_name_looks_like_a_pattern_is_read(folder):
    folder = folder.rename(folder.with_name("set [1]*"))
    assert len(read_dataset(folder)["train"]) == 40


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (audit, []),
        (publish, ["--repo_id", "a/b", "--dry_run"]),
        (paraphrase, ["--model", "embedded", "--out", "OUT"]),
        (pretrain, ["--output_dir", "OUT"]),
        (finetune, ["--output_dir", "OUT", "--checkpoint", "none"]),
    ],
)
def test_every_command_says_so_in_one_line(folder, tmp_path, capsys, main, words):
    report = {"may_be_shared": True, "source": {"name": "a", "license": "mit"}, "deidentification": {"passed": True}}
    shard = folder / "data/test.parquet"
    shard.write_bytes(shard.read_bytes()[:1000])
    (folder / "build_report.json").write_text(json.dumps(report | {"shards": {}}))
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert run(main, ["--dataset", str(folder), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "data/test.parquet" in said and not (tmp_path / "out").exists()


def test_a_dataset_of_the_hub_is_held_to_the_same(folder, monkeypatch):
    loaded, cards = datasets.load_dataset(str(folder)), {}
    monkeypatch.setattr("datasets.load_dataset", lambda name, **_: loaded)
    monkeypatch.setattr("data_scripts.auditing.built_folder.DatasetCard.load", lambda name: DatasetCard(cards[name]))
    cards["a/b"] = "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
    assert read_dataset("a/b") is loaded
    cards["a/b"] = f"---\nconfigs:\n- config_name: default\n  data_files: {NOWHERE}\n---\n"
    with pytest.raises(ValueError, match="a/b names the data 'http.*outside the dataset"):
        read_dataset("a/b")
    for damaged, said in (
        ("configs: 5", "that are not a list"),
        ("configs: [5]", "that are not a list"),
        ("[", "a damaged head"),
    ):
        cards["a/b"] = f"---\n{damaged}\n---\n"
        with pytest.raises(ValueError, match=f"a/b has .*{said}"):
            read_dataset("a/b")
    del cards["a/b"]
    monkeypatch.setattr("data_scripts.auditing.built_folder.DatasetCard.load", Mock(side_effect=OSError("offline")))
    rows = [{**row, "image": {"bytes": None, "path": NOWHERE}} for row in loaded["test"].to_list()]
    loaded["test"] = datasets.Dataset.from_list(rows, features=loaded["test"].features)
    with pytest.raises(ValueError, match="row 0 of test stores no image, only the path 'http"):
        read_dataset("a/b")
