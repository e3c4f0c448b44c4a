import json
import subprocess
import sys
from typing import get_args

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from data_scripts.build import load_folder, main
from data_scripts.lumbar_builder import read_mask_names
from data_scripts.records import LEVELS, SEQUENCES, Exclusion
from data_scripts.sources import SOURCES, folder
from data_scripts.system.command_line import run
from data_scripts.system.worker_pool import Workers
from data_scripts.writing import dataset_build
from data_scripts.writing.build_arguments import SourceName
from data_scripts.writing.build_report import summary_lines
from tests.data_scripts.built_folders import ROOT, bytes_of, leftovers, rows_of


@pytest.mark.parametrize("streaming", [False, True])
def test_what_was_given_is_what_load_dataset_reads(study, built, tmp_path, grey_pixels, streaming):
    raw = study()
    report = built(raw)
    loaded = datasets.load_dataset(str(tmp_path / "out"), streaming=streaming)
    assert list(loaded) == ["train", "validation", "test"]
    features = loaded["train"].features
    assert features["image"] == features["mask"] == datasets.Image()
    assert features["labels"] == datasets.List(datasets.ClassLabel(names=["LBP", "No Finding"]))
    assert features["grade"] == datasets.ClassLabel(names=[])
    assert features["sequence"] == datasets.ClassLabel(names=list(SEQUENCES))
    assert features["pixel_spacing_mm"] == datasets.Value("float32")
    assert features["rephrasings"] == datasets.List(datasets.Value("string"))

    rows = {row["source"]: row for split in loaded for row in loaded[split]}
    assert len(rows) == report["rows_written"] == report["rows_read"] == 24
    for number in range(24):
        patient, sequence = divmod(number, 2)
        row = rows[f"study/images/{patient}_T{sequence + 1}.png"]
        assert row["image"].mode == "L" and np.array_equal(np.asarray(row["image"]), grey_pixels(number))
        assert row["patient_id"] == f"p{patient}" and str(patient) in row["report"]
        assert [features["labels"].feature.int2str(label) for label in row["labels"]] == (
            ["LBP"] if patient % 3 else ["No Finding"]
        )
        assert SEQUENCES[row["sequence"]] == f"T{sequence + 1}" and LEVELS[row["level"]] == "L4/L5"
        assert row["grade"] is row["mask"] is row["pixel_spacing_mm"] is row["disc_height_mm"] is None
        assert row["series_id"] is row["slice_index"] is row["slice_spacing_mm"] is None
        assert row["rephrasings"] == []


def test_masks_grades_and_spacing_survive(study, built, tmp_path):
    rows = [
        {
            "file_name": f"{n}.png",
            "report": "Bulge.",
            "patient_id": f"p{n}",
            "mask": "mask.png",
            "grade": "AB"[n % 2],
            "pixel_spacing_mm": "0.6875",
            "disc_height_mm": "9.5",
            "series_id": "t2",
            "slice_index": n,
            "slice_spacing_mm": "4.4",
            "rephrasings": "One.|Two.",
        }
        for n in range(4)
    ]
    raw = study(rows)
    indices = np.arange(120, dtype=np.uint8).reshape(12, 10) % 4
    Image.fromarray(indices).save(raw / "mask.png")
    built(raw)
    for row in datasets.load_dataset(str(tmp_path / "out"), split="train"):
        assert row["mask"].mode == "L" and np.array_equal(np.asarray(row["mask"]), indices)
        assert row["pixel_spacing_mm"] == 0.6875 and row["disc_height_mm"] == 9.5
        assert row["grade"] == int(row["source"][-5]) % 2
        assert (row["series_id"], row["slice_index"]) == ("t2", int(row["source"][-5]))
        assert row["slice_spacing_mm"] == pytest.approx(4.4)
        assert row["rephrasings"] == ["One.", "Two."] and row["labels"] is None


def test_patients_are_not_shared_and_the_report_counts_right(study, built, tmp_path):
    report = built(study(num_patients=20))
    rows = rows_of(tmp_path / "out")
    patients = {split: {row["patient_id"] for row in rows[split]} for split in rows}
    assert [len(patients[split]) for split in ("train", "validation", "test")] == [14, 3, 3]
    assert len(set.union(*patients.values())) == 20
    stored = json.loads((tmp_path / "out/build_report.json").read_text())
    assert stored == report
    assert report["splits"]["train"] == {"rows": 28, "patients": 14, "labels": report["splits"]["train"]["labels"]}
    assert sum(split["labels"]["No Finding"] for split in report["splits"].values()) == 14
    assert report["leak"] is None and report["arguments"]["split_by"] == "patient"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "build_report.json", "data"]
    assert leftovers(tmp_path) == []


def test_the_card_says_what_matters(study, built, tmp_path):
    splits = built(study())["splits"].values()
    card = (tmp_path / "out/README.md").read_text()
    healthy = " | ".join(str(split["labels"].get("No Finding", 0)) for split in splits)
    for words in ("Research use only", "| train | 16 | 8 |", f"| No Finding | {healthy} |", "By patient, 70 %"):
        assert words in " ".join(card.split()), words
    assert "24 rows were read, 24 written, 0 left out" in card and "```sh\ntest\n```" in card
    assert "Leak" not in card


def test_a_split_by_record_is_stamped(study, built, tmp_path):
    report = built(study(num_patients=20), split_by="record")
    rows = rows_of(tmp_path / "out")
    patients = [{row["patient_id"] for row in rows[split]} for split in rows]
    shared = {p for i, first in enumerate(patients) for second in patients[i + 1 :] for p in first & second}
    assert report["leak"] == {"num_shared": len(shared), "num_patients": 20} and shared
    card = (tmp_path / "out/README.md").read_text()
    assert f"**Leak.** These splits are by record, as in the LumbarCLIP paper: {len(shared)} of 20 patients" in card


def test_the_same_input_gives_the_same_bytes(study, built, tmp_path):
    raw = study()
    built(raw)
    built(raw, out=tmp_path / "again")
    built(raw, out=tmp_path / "other", seed=1)
    first, again, other = (bytes_of(tmp_path / name / "data") for name in ("out", "again", "other"))
    assert first == again and set(first) == set(other) and first != other


def test_given_splits_are_kept(study, built, tmp_path):
    rows = [
        {
            "file_name": f"{n}.png",
            "report": "Bulge.",
            "patient_id": f"p{n // 2}",
            "split": ["test", "train"][n // 2 % 2],
        }
        for n in range(8)
    ]
    report = built(study(rows))
    assert list(report["splits"]) == ["train", "test"]
    for split, members in rows_of(tmp_path / "out").items():
        assert {row["patient_id"] for row in members} == ({"p1", "p3"} if split == "train" else {"p0", "p2"})


BAD_ROWS = [
    ({"file_name": "images/none.jpg"}, "missing image"),
    ({"file_name": "images/broken.jpg"}, "unreadable image"),
    ({"file_name": "images/0_T1.png"}, "duplicate id: row 41 repeats row 1 with another patient_id"),
    ({"report": " "}, "empty report"),
    ({"report": "//"}, "empty report"),
    ({"patient_id": ""}, "unknown patient"),
    ({"level": "C5-6"}, "unknown level 'C5-6'; allowed: T9/T10"),
    ({"sequence": "T3"}, "unknown sequence 'T3'; allowed: T1, T2"),
    ({"plane": "oblique"}, "unknown plane 'oblique'; allowed: axial"),
    ({"labels": "LBP;No Finding"}, "contradictory labels"),
    ({"mask": "images/1_T1.png"}, "mask is 10 x 12, its image 5 x 5"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_ROWS)
def test_a_bad_row_is_left_out_and_listed(study, built, tmp_path, change, reason):
    raw = study(num_patients=20)
    (raw / "images/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    Image.new("L", (5, 5)).save(raw / "images/new.png")
    table = folder.read_table(raw / "metadata.csv")
    new = {**table[-1].cells, "file_name": "images/new.png", "patient_id": "new", "plane": "", "mask": "", **change}
    report = built(study([*(dict(row.cells) for row in table), new]))
    assert (report["rows_read"], report["rows_written"]) == (41, 40)
    (exclusion,) = report["exclusions"]
    assert reason in exclusion["reason"]
    assert sum(len(rows) for rows in rows_of(tmp_path / "out").values()) == 40


@pytest.mark.parametrize("broken_at", ["listing", "writing"])
def test_too_many_bad_rows_stop_the_build(study, built, tmp_path, broken_at):
    raw = study(num_patients=20)
    for number in range(12):
        image = raw / f"images/{number}_T1.png"
        if broken_at == "listing":
            image.unlink()
        else:
            image.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"12 of 40 rows are bad, more than --max_bad 0\.05 allows") as caught:
        built(raw)
    assert str(caught.value).count("\n  ") == 10  # the first ten are named
    kept = [".out.partial"] if broken_at == "writing" else []  # decoding may have taken hours
    assert not (tmp_path / "out").exists() and leftovers(tmp_path) == kept
    assert ("stay in" in str(caught.value)) == bool(kept)
    assert built(raw, max_bad=0.3)["rows_written"] == 28 and leftovers(tmp_path) == []


def test_no_error_throws_finished_images_away(study, built, tmp_path, monkeypatch):
    raw = study(num_patients=20)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(dataset_build, "_write_dataset", kill)
        built(raw, keep_ids=False)
    staged = tmp_path / ".out.partial"
    before = {path: path.stat().st_mtime_ns for path in staged.rglob("*") if path.is_file() and path.name != "lock"}
    assert staged / "pseudonym_key" in before and len(before) == 7  # two files for each of three splits
    raw.rename(tmp_path / "unmounted")
    with pytest.raises(ValueError, match="--raw (is not given|names no folder)"):
        built(raw, keep_ids=False)
    (tmp_path / "unmounted").rename(raw)
    with pytest.raises(ValueError, match=r"--streaming_shards 7 is more than the 6 rows of validation; give at most 6"):
        built(raw, keep_ids=False, streaming_shards=7)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert built(raw, keep_ids=False)["rows_written"] == 40 and leftovers(tmp_path) == ["out.rows.json"]


def test_shards_are_counted_before_images_are_decoded(study, built, monkeypatch):
    monkeypatch.setattr(Workers, "run", lambda *_, **__: pytest.fail("images were decoded"))
    with pytest.raises(ValueError, match="--streaming_shards 5 is more than the 4 rows of validation"):
        built(study(), streaming_shards=5)


def test_rows_left_out_are_named_where_none_is_left(study, built, monkeypatch):
    raw = study()
    with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"none of 1 rows is usable.*") as caught:
        patched.setattr(folder, "read", lambda _: [Exclusion("series 9", "a localizer", by_rule=True)])
        built(raw)
    assert "\n  series 9: a localizer" in str(caught.value)
    for path in (raw / "images").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"none of 24 rows is usable; .*\n  study/images/.*: unreadable image"):
        built(raw, max_bad=1, keep_ids=False)


def test_rows_left_out_are_named_where_a_split_is_left_empty(study, built):
    rows = [
        {"file_name": f"{n}.png", "report": "Bulge.", "patient_id": f"p{n}", "split": ["test", "train"][n % 2]}
        for n in range(4)
    ]
    raw = study(rows)
    for number in (0, 2):
        (raw / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"left in the splits test; .*\n  study/0\.png: unreadable image") as caught:
        built(raw, max_bad=1, keep_ids=False)
    assert "study/2.png: " in str(caught.value)


def test_options_that_would_not_be_heeded_are_refused(study, built, tmp_path):
    raw, key = study(), tmp_path / "study" / "none" / "key"
    with pytest.raises(ValueError, match="the source folder does not read --notes"):
        built(raw, notes=raw / "metadata.csv")
    with pytest.raises(ValueError, match="--pseudonym_key would not be used, since --keep_ids"):
        built(raw, pseudonym_key=key)
    with pytest.raises(ValueError, match="--pseudonym_key would not be used, since synthetic is published"):
        built(None, source="synthetic", keep_ids=False, pseudonym_key=key)
    with pytest.raises(ValueError, match=r"--pseudonym_key .*/key can be neither read nor made \(No such file"):
        built(raw, keep_ids=False, pseudonym_key=key)
    rows = [{"file_name": f"{n}.png", "report": "A.", "patient_id": f"p{n}", "split": "train"} for n in range(4)]
    with pytest.raises(ValueError, match=r"leave --split_fractions out, got 50 % / 25 % / 25 %"):
        built(study(rows), split_fractions=[0.5, 0.25, 0.25])
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "anatomy", "name", "tag"),
    [
        ({}, "lumbar spine", "Lumbar reports: folder", "lumbar-spine"),
        ({"anatomy": "knee"}, "knee", "Knee reports: folder", "knee"),
        ({"anatomy": "cervical spine"}, "cervical spine", "Cervical spine reports: folder", "cervical-spine"),
    ],
)
def test_the_card_names_what_the_images_show(study, built, tmp_path, given, anatomy, name, tag):
    report = built(study(), **given)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert report["source"]["anatomy"] == head["anatomy"] == anatomy
    assert head["pretty_name"] == name and f"\n# {name}\n" in card and tag in head["tags"]


def test_an_anatomy_is_a_noun_and_for_your_own_data(study, built):
    with pytest.raises(ValueError, match="--anatomy is for your own data; synthetic shows the lumbar spine"):
        built(None, source="synthetic", keep_ids=False, anatomy="knee")
    for wrong in ("", "Knee", "knee: left", "the knee\n"):
        with pytest.raises(ValueError, match="--anatomy names what the images show in small letters"):
            built(study(), anatomy=wrong)


def test_errors_name_the_way_out_and_leave_nothing(study, built, tmp_path):
    raw = study()
    good = dict(folder.read_table(raw / "metadata.csv")[0].cells)
    (raw / "notes").mkdir()
    cases = [
        ({"max_bad": 1.5}, "--max_bad must be a share"),
        ({"split_fractions": [0.5, 0.5]}, "3 shares that sum to 1"),
        ({"out": raw}, "contains the raw data"),
        ({"out": tmp_path}, "contains the raw data"),
        ({"raw": tmp_path / "nowhere"}, "--raw (is not given|names no folder)"),
    ]
    for arguments, reason in cases:
        with pytest.raises(ValueError, match=reason):
            built(**{"raw": raw, **arguments})
    two_splits = [{**good, "split": "train"}, {**good, "file_name": "images/0_T2.png", "split": "test"}]
    with pytest.raises(ValueError, match="patient 'p0' in test and train"):
        built(study(two_splits))
    with pytest.raises(ValueError, match="leave --split_by out"):
        built(study(two_splits), split_by="record")
    with pytest.raises(ValueError, match="1 patients cannot fill 3 splits"):
        built(study([good]))
    assert not (tmp_path / "out").exists() and leftovers(tmp_path) == []


def test_an_existing_output_is_replaced_only_on_demand(study, built, tmp_path):
    raw = study()
    built(raw)
    before = (tmp_path / "out/build_report.json").read_text()
    with pytest.raises(ValueError, match="exists; choose another folder, or replace it with --overwrite"):
        built(raw)
    assert (tmp_path / "out/build_report.json").read_text() == before
    rows_before = rows_of(tmp_path / "out")
    built(raw, overwrite=True, seed=5)
    rows_after = rows_of(tmp_path / "out")  # not what the library cached of the earlier build
    assert [row["source"] for row in rows_after["test"]] != [row["source"] for row in rows_before["test"]]
    assert json.loads((tmp_path / "out/build_report.json").read_text())["arguments"]["seed"] == 5
    assert leftovers(tmp_path) == []
    (tmp_path / "out/build_report.json").unlink()
    with pytest.raises(ValueError, match="not an earlier build"):
        built(raw, overwrite=True)
    assert (tmp_path / "out/data").is_dir()


def test_command_line(study, tmp_path, capsys, monkeypatch):
    arguments = ["--source", "folder", "--raw", str(study()), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["build", *arguments, "--split_fractions", "0.5", "0.25", "0.25"])
    assert run(main) == 0
    printed = capsys.readouterr().out
    assert "train: 12 rows, 6 patients" in printed and "24 of 24 rows written" in printed
    card = (tmp_path / "out/README.md").read_text()
    assert "--raw RAW --out OUT --split_fractions 0.5 0.25 0.25" in card and str(tmp_path) not in card
    assert run(main, arguments) == 2 and "exists; choose another folder" in capsys.readouterr().err


def test_16_bit_slices_are_windowed(study, built, tmp_path):
    raw = study(num_patients=3)
    for path in (raw / "images").iterdir():
        ramp = np.linspace(0, 4095, 120).reshape(12, 10).astype(np.uint16)
        Image.fromarray(ramp).save(path)
    built(raw)
    for row in datasets.load_dataset(str(tmp_path / "out"), split="train"):
        pixels = np.asarray(row["image"])
        assert pixels.dtype == np.uint8 and (pixels == 255).mean() < 0.02 and len(np.unique(pixels)) > 100


def test_rows_left_out_by_rule_are_no_defect_and_shown_apart(study, built, tmp_path, monkeypatch):
    raw, read = study(), folder.read
    by_rule = [Exclusion(f"patient {number}", "empty note", by_rule=True) for number in range(60)]
    monkeypatch.setattr(folder, "read", lambda options: [*read(options), *by_rule, Exclusion("scan 1", "truncated")])
    report = built(raw)
    assert (report["rows_read"], report["rows_written"], len(report["exclusions"])) == (85, 24, 61)
    lines = summary_lines(report, "out")
    assert "60 rows left out by rule: 60 empty note" in lines and "left out: scan 1: truncated" in lines
    assert not any("patient" in line and "left out:" in line for line in lines)
    assert "61 left out (60 rows left out by rule: 60 empty note)" in (tmp_path / "out/README.md").read_text()


@pytest.mark.slow
def test_neither_the_build_nor_its_workers_load_torch():
    modules = "data_scripts.writing.dataset_build, data_scripts.hub.dataset_publication"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_source_module_is_registered():
    files = [path for path in (ROOT / "data_scripts/sources").rglob("*.py") if "\nABOUT = " in path.read_text()]
    assert (
        set(SOURCES)
        == set(get_args(SourceName))
        == {path.parent.name if path.stem == "source" else path.stem for path in files}
    )
    assert all(name == source.ABOUT.name for name, source in SOURCES.items())


@pytest.mark.parametrize(("form", "num_rows", "num_patients"), [("discs", 805, 73), ("sagittal", 360, 179)])
def test_real_spider(shared_data, built, tmp_path, form, num_rows, num_patients):
    report = built(shared_data / f"spider_{form}", source="spider")
    assert report["rows_written"] == num_rows and report["exclusions"] == []
    rows = rows_of(tmp_path / "out")
    assert sum(map(len, rows.values())) == num_rows
    patients = {split: {row["patient_id"] for row in rows[split]} for split in rows}
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == num_patients
    assert "composed by a program" in (tmp_path / "out/README.md").read_text()


def test_synthetic(built, tmp_path):
    report = built(None, source="synthetic", num_patients=4)
    assert report["rows_written"] == 24 and report["num_masks"] == 24 and report["exclusions"] == []
    row = datasets.load_dataset(str(tmp_path / "out"), split="test")[0]
    assert row["mask"].size == row["image"].size and len(row["rephrasings"]) == 4
    assert read_mask_names(tmp_path / "out")[:2] == ("background", "disc")
    assert read_mask_names(tmp_path) == ()  # no card


def test_a_folder_of_raw_studies_is_loaded_in_one_call(study, tmp_path):
    rows = [
        {"file_name": f"{n}.png", "report": "Bulge. Dr. Ahmad, 12 Mar 2016.", "patient_id": f"MRN{n}"} for n in range(9)
    ]
    raw = study([*rows, {"file_name": "missing.tif", "report": "Bulge.", "patient_id": "MRN9"}])
    with pytest.warns(UserWarning, match=r"left out: (?:metadata|table).* row 10: missing image: '...'"):
        in_memory = load_folder(raw, max_bad=0.2)
    with pytest.warns(UserWarning, match="9 of 10 rows written to"):
        kept = load_folder(raw, tmp_path / "kept", max_bad=0.2, split_fractions=[1, 0, 0])
    assert sum(in_memory.num_rows.values()) == 9 and len(in_memory) == 3 and kept.num_rows == {"train": 9}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "kept.rows.json", "study"]
    for row in (*in_memory["train"], *in_memory["test"], *kept["train"]):
        assert row["report"] == "Bulge. Dr. [NAME], [DATE]." and row["patient_id"].startswith("patient-")
        assert row["image"].size == (10, 12)
    with pytest.raises(ValueError, match="names no folder"):
        load_folder(tmp_path / "nowhere")


def test_loading_a_sound_folder_says_nothing(study, recwarn):
    assert load_folder(study())["train"].num_rows == 16
    assert not [warning for warning in recwarn if "left out" in str(warning.message)]


@pytest.mark.parametrize("path", ["data_scripts", ROOT / "data_scripts"])
def test_loading_the_folder_of_scripts_says_what_to_run(path):
    script = f"import datasets; datasets.load_dataset({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "This folder holds code, not rows" in last
    assert "`python -m data_scripts.build --source synthetic --out data/synthetic`" in last
    assert "data_scripts.build.load_folder" in last


def test_the_builder_works_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = (ROOT / "data_scripts/README.md").read_text().split("```python\n")[1:]
    (block,) = (block.split("```")[0] for block in blocks if "LumbarReports(" in block)
    shown: dict[str, datasets.Dataset] = {}
    exec(block, shown)
    assert shown["rows"][0]["report"] == "Disc bulge at L4-5." and shown["rows"][0]["image"].size == (64, 64)


REPORTS = (
    ("Mild disc bulge at L4/L5.", ["LBP", "disc bulge"]),
    ("No disc bulge. Adequate spinal canal.", ["No Finding"]),
    ("Seen as discussed with the referring colleague.", None),
)


@pytest.mark.parametrize(
    ("options", "classes", "reduced"),
    [
        ({"labels_from_reports": True}, "findings", lambda labels: labels),
        ({"labels": "paper"}, "paper", lambda labels: labels and labels[:1]),
        ({"labels": "paper", "labels_from_reports": True}, "paper", lambda labels: labels and labels[:1]),
    ],
)
def test_labels_come_from_reports_where_the_table_has_none(study, built, tmp_path, options, classes, reduced):
    rows = [
        {"file_name": f"{n}.png", "report": REPORTS[n % 3][0], "patient_id": f"p{n // 3}"} for n in range(15)
    ]  # three images a patient, so that each has all reports
    report = built(study(rows), **options)
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    names = dataset["train"].features["labels"].feature.names
    for row in (row for rows in dataset.values() for row in rows):
        labels = row["labels"] and [names[label] for label in row["labels"]]
        assert labels == reduced(dict(REPORTS)[row["report"]])
    account = report["labels"]
    assert (account["classes"], account["from_reports"], account["rows_without"]) == (classes, True, 5)
    (of_report,) = account["not_understood"]
    assert of_report["rows"] == 5 and of_report["first_row"].startswith("study/")
    assert "5 rows have no label: 1 report was not understood" in "\n".join(summary_lines(report, tmp_path / "out"))
    assert "Not labelled: 5 rows" in (tmp_path / "out/README.md").read_text()


def test_rows_without_labels_stay_and_the_build_says_so(study, built, tmp_path):
    report = built(study([{"file_name": f"{n}.png", "report": "Bulge.", "patient_id": f"p{n}"} for n in range(4)]))
    assert set(datasets.load_dataset(str(tmp_path / "out"), split="train")["labels"]) == {None}
    assert "no row has a label; --labels_from_reports reads" in "\n".join(summary_lines(report, tmp_path / "out"))


@pytest.mark.parametrize("source", ["spider", "rsna2024", "knee_kl"])
@pytest.mark.parametrize("option", [{"labels": "paper"}, {"labels_from_reports": True}])
def test_captions_composed_from_grades_are_not_read_for_labels(built, tmp_path, source, option):
    with pytest.raises(ValueError, match=f"--{next(iter(option))}.* needs written reports: those of {source}"):
        built(tmp_path, source=source, **option)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"crops": "discs"}, "the source folder has no volumes to cut --crops out of"),
        ({"crops": "vertebrae"}, "crops must be one of discs"),
        ({"context_mm": 5.0}, "--context_mm 5 is the margin around --crops, 0 or more; give both"),
        ({"source": "spider", "crops": "discs", "context_mm": -1.0}, "--context_mm -1 is the margin"),
        ({"source": "spider", "crops": "discs", "context_mm": float("nan")}, "--context_mm nan is the margin"),
        ({"source": "spider", "crops": "discs", "slices": "0"}, "--slices must be all, middle or a number"),
        ({"source": "knee_kl", "slices": "3"}, "the source knee_kl does not read whole volumes; leave --slices out"),
    ],
)
def test_crops_that_cannot_be_cut_are_refused(study, built, settings, reason):
    with pytest.raises(ValueError, match=reason):
        built(study(), **settings)
