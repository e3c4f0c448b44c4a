import random
import re
from collections import Counter

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from data_scripts.augmentations.map_functions import FlipLeftRight
from data_scripts.augmentations.sides import exchange_all_sides
from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources.knee_kl import source as knee_kl
from data_scripts.sources.knee_kl.source import (
    DEFINITIONS,
    KL_GRADES,
    RICH_DEFINITIONS,
    UNSEEN_DEFINITIONS,
    UNSEEN_RICH_DEFINITIONS,
    compose_knee_captions,
)

FILES = (
    "train/0/9000001L.png",
    "train/1/9000001R.png",
    "train/2/9000002L.png",
    "val/3/9000003R.png",
    "val/4/9000003L.png",
    "test/0/9000004R.png",
)


@pytest.fixture
def knees(tmp_path):
    """Make a download that holds the given files; their contents differ."""

    def make(files=FILES):
        raw = tmp_path / "knees"
        for number, file in enumerate(files):
            (raw / file).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (14, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(raw / file, format="PNG")
        return raw

    return make


def read(raw):
    return list(knee_kl.read(ReadOptions(raw=raw)))


def test_folders_and_names_tell_all(knees):
    raw = knees()
    info, records = knee_kl.describe(ReadOptions(raw=raw)), read(raw)
    assert info.about.anatomy == "knee"
    assert {record.source: (record.grade, record.labels, record.split, record.patient_id) for record in records} == {
        "knee_kl/train/0/9000001L.png": ("0", ("No Finding",), "train", "knee-9000001"),
        "knee_kl/train/1/9000001R.png": ("1", (), "train", "knee-9000001"),
        "knee_kl/train/2/9000002L.png": ("2", ("osteoarthritis",), "train", "knee-9000002"),
        "knee_kl/val/3/9000003R.png": ("3", ("osteoarthritis",), "validation", "knee-9000003"),
        "knee_kl/val/4/9000003L.png": ("4", ("osteoarthritis",), "validation", "knee-9000003"),
        "knee_kl/test/0/9000004R.png": ("0", ("No Finding",), "test", "knee-9000004"),
    }
    for record in records:
        assert (record.plane, record.sequence, record.level) == ("coronal", "other", "unknown")
        assert record.load_image().size == (12, 14) and record.pixel_spacing_mm is None
        assert len({record.report, *record.rephrasings}) == 5
        side = {"L": "left", "R": "right"}[record.source[-5]]
        assert all(f"{side} knee" in text.lower() for text in (record.report, *record.rephrasings))
        assert record_problem(record, info) is None
    assert info.grade_names == ("0", "1", "2", "3", "4") and "splits are used" in info.summary


def test_the_set_s_own_splits_are_kept_only_where_they_can_serve(knees):
    raw = knees((*FILES, "test/2/9000001L.jpg", "test/2/9000002R.png"))
    summary = knee_kl.describe(ReadOptions(raw=raw)).summary
    assert "not used: 1 patients are in more than one of them" in summary  # the repeated knee is left out
    assert {item.split for item in read(raw) if isinstance(item, Record)} == {None}
    (raw / "test/2/9000002R.png").unlink()
    assert {item.split for item in read(raw) if isinstance(item, Record)} == {"train", "validation", "test"}
    (raw / "test/0/9000004R.png").unlink()
    assert "not used: no image in test" in knee_kl.describe(ReadOptions(raw=raw)).summary
    assert {item.split for item in read(raw) if isinstance(item, Record)} == {None}


@pytest.mark.parametrize(
    ("file", "reason", "by_rule"),
    [
        ("train/5/9000009L.png", "grade outside the scale 'train/5'; expected a grade, 0 to 4", False),
        ("train/-1/9000009L.png", "unknown folder 'train/-1'; expected a grade, 0 to 4", False),
        ("train/9000009L.png", "unknown folder 'train'; expected a grade, 0 to 4", False),
        ("train/2/more/9000009L.png", "unknown folder 'train/2/more'", False),
        (
            "train/2/900009L.png",
            "unknown image name '900009L.png'; expected 7 digits and L or R, as 9003175L.png",
            False,
        ),
        ("train/2/9000009.png", "'9000009.png' names no side; expected 7 digits and L or R", False),
        ("train/2/9000009l.png", "expected 7 digits and L or R", False),
        ("train/2/٩٠٠٠٠٠٩L.png", "expected 7 digits and L or R", False),
        ("train/2/9000009L.gif", "expected 7 digits and L or R", False),
        ("train/2/.DS_Store", "hidden, or outside the folders train, val, test", True),
        ("auto_test/2/9000009L.png", "hidden, or outside the folders train, val, test", True),
        ("README.txt", "hidden, or outside the folders train, val, test", True),
    ],
)
def test_files_out_of_place_are_listed(knees, file, reason, by_rule):
    exclusion, *records = read(knees((*FILES, file)))
    assert isinstance(exclusion, Exclusion) and len(records) == len(FILES)
    assert exclusion.source == f"knee_kl/{file}" and reason in exclusion.reason and exclusion.by_rule == by_rule


def test_a_knee_in_two_files_is_left_out_of_both(knees):
    first, second, *records = read(knees((*FILES, "train/4/9000002L.jpg")))
    reason = "several files of one knee: train/2/9000002L.png and train/4/9000002L.jpg; keep one"
    assert first == Exclusion("knee_kl/train/2/9000002L.png", reason)
    assert second == Exclusion("knee_kl/train/4/9000002L.jpg", reason)
    assert len(records) == len(FILES) - 1


def test_a_folder_without_splits_is_refused(tmp_path):
    for raw in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="--raw must contain the folders train, val, test with 0 to 4 in each"):
            knee_kl.describe(ReadOptions(raw=raw))


def test_the_wording_of_a_knee_depends_on_the_seed_and_on_nothing_else(knees):
    raw = knees()
    (record,) = (item for item in read(raw) if item.source.endswith("9000002L.png"))
    (raw / "train/2/9000002L.png").rename(raw / "train/2/9000002L.jpg")
    (moved,) = (item for item in knee_kl.read(ReadOptions(raw=raw)) if item.source.endswith("9000002L.jpg"))
    assert (moved.report, moved.rephrasings) == (record.report, record.rephrasings)
    others = {next(iter(knee_kl.read(ReadOptions(raw=raw, seed=seed)))).report for seed in range(20)}
    assert len(others) > 15


def test_a_built_dataset_keeps_the_splits(knees, built):
    report = built(knees((*FILES, "README.txt")), source="knee_kl")
    assert {name: split["rows"] for name, split in report["splits"].items()} == {"train": 3, "validation": 2, "test": 1}
    assert (report["rows_read"], report["rows_written"]) == (7, 6)
    assert report["splits"]["train"]["labels"] == {"No Finding": 1, "osteoarthritis": 1}


def test_real_data(shared_data):
    options = ReadOptions(raw=shared_data / "knee_kl")
    info, records = knee_kl.describe(options), list(knee_kl.read(options))
    assert [problem for record in records if (problem := record_problem(record, info))] == []
    assert Counter(record.grade for record in records) == {"0": 475, "1": 218, "2": 313, "3": 157, "4": 40}
    assert len({record.patient_id for record in records}) == 1088
    folders = {record.patient_id: set() for record in records}
    for record in records:
        folders[record.patient_id].add(record.source.split("/")[1])
    assert all(len(splits) == 1 for splits in folders.values())  # the set's own splits are by patient


@pytest.mark.slow
def test_real_data_builds(shared_data, built):
    report = built(shared_data / "knee_kl", source="knee_kl")
    assert (report["rows_read"], report["rows_written"], report["exclusions"]) == (1203, 1203, [])
    assert sum(split["patients"] for split in report["splits"].values()) == 1088


# What a text may say only of one grade; read by expressions that know nothing of how it was composed.
WORDS_OF_GRADE = {
    "0": r"\bno (?:radiographic|osteophytes)|normal joint",
    "1": r"doubtful",
    "2": r"definite osteophytes|mild osteoarthritis",
    "3": r"multiple osteophytes|moderate osteoarthritis",
    "4": r"large osteophytes|severe",
}


@pytest.mark.parametrize("grade", KL_GRADES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_captions_state_the_grade_and_the_side_and_nothing_else(grade, side):
    seen = set()
    for seed in range(60):
        captions = compose_knee_captions(grade, side, random.Random(seed), 5)
        assert len(set(captions)) == 5
        seen.update(captions)
    for caption in seen:
        assert re.findall(r"(?:Kellgren|KL)\D*(\d)", caption) == [grade], caption
        assert set(re.findall(r"left|right", caption.lower())) == {side}, caption
        told = {grade for grade, words in WORDS_OF_GRADE.items() if re.search(words, caption, re.IGNORECASE)}
        assert told == {grade}, caption
        assert re.fullmatch(r"[A-Z].*\.", caption) and ".." not in caption and not re.search(r"\. [a-z]", caption)
    assert len(seen) > 150


def test_the_same_state_gives_the_same_captions():
    assert compose_knee_captions("2", "left", random.Random(1), 5) == compose_knee_captions(
        "2", "left", random.Random(1), 5
    )


def test_both_knees_of_a_patient_are_in_one_split(knees, built, tmp_path):
    """Also where the set's own splits cannot be used, and both knees have different grades."""
    pairs = [f"train/{number % 5}/90000{number:02}L.png" for number in range(20)]
    pairs += [f"val/{(number + 2) % 5}/90000{number:02}R.png" for number in range(20)]
    report = built(knees(pairs), source="knee_kl", out=tmp_path / "set", split_fractions=[0.5, 0.25, 0.25])
    assert sum(split["rows"] for split in report["splits"].values()) == 40
    splits = load_dataset(str(tmp_path / "set"))
    for rows in splits.values():
        sides = Counter(zip(rows["patient_id"], [source[-5] for source in rows["source"]], strict=True))
        assert {patient for patient, side in sides if side == "L"} == {
            patient for patient, side in sides if side == "R"
        }


def test_a_flipped_right_knee_is_a_left_knee_in_image_and_text(knees, built, tmp_path):
    built(knees(), source="knee_kl", out=tmp_path / "set")
    rows = load_dataset(str(tmp_path / "set"))["train"]
    flipped = rows.map(FlipLeftRight.of(rows.features), batched=True)
    for before, after in zip(rows, flipped, strict=True):
        side, other = ("left", "right") if "L.png" in before["source"] else ("right", "left")
        for text in (after["report"], *after["rephrasings"]):
            assert set(re.findall(r"left|right", text.lower())) == {other}
        assert side in before["report"].lower() and after["grade"] == before["grade"]
        assert np.array_equal(np.asarray(after["image"]), np.asarray(before["image"])[:, ::-1])


@pytest.mark.parametrize("grade", KL_GRADES)
def test_definitions_have_no_side_and_those_for_measuring_are_never_trained_on(grade):
    trained = {*DEFINITIONS[grade], *RICH_DEFINITIONS.get(grade, ())}
    unseen = {*UNSEEN_DEFINITIONS[grade], *UNSEEN_RICH_DEFINITIONS.get(grade, ())}
    assert trained.isdisjoint(unseen)
    captions = {
        caption.lower()
        for seed in range(60)
        for caption in compose_knee_captions(grade, "left", random.Random(seed), 5)
    }
    assert not any(wording in caption for wording in unseen for caption in captions)
    assert all(exchange_all_sides(text) == text for text in trained | unseen)
    others = {text for other in KL_GRADES if other != grade for text in DEFINITIONS[other] + UNSEEN_DEFINITIONS[other]}
    assert others.isdisjoint(trained | unseen)
