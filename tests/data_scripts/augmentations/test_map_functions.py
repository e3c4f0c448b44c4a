"""Augmentation changes words and pixels, and no fact."""

import os
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, concatenate_datasets, load_dataset
from PIL import Image

from data_scripts.augmentations.eda import (
    FRAME_WORDS,
    OPERATIONS,
    SYNONYM_GROUPS,
    augment_text,
    delete_words,
    replace_synonyms,
    swap_words,
)
from data_scripts.augmentations.image_variation import (
    Pose,
    posed,
)
from data_scripts.augmentations.map_functions import EDA, FlipLeftRight, VaryBiasField, VaryGreyScale, VaryPose
from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import PLANES, ReadOptions, SourceAbout, SourceInfo
from data_scripts.reports.text import exchange_sides, report_facts
from data_scripts.sources.notes import read_notes
from data_scripts.sources.synthetic import source as synthetic
from tests.data_scripts.made_rows import decoded

REPORTS = (
    "LSS MRI :\r\nFeature of muscle spasm.\r\nDiffuse disc bulge noted at L4/L5 level, mild compressing thecal sac "
    "and both exit nerve roots.\r\nNo significant spinal canal stenosis is seen.",
    "There is a Lt paracentral disc protrusion noted at L5-S1, 4.5 mm, compressing the thecal sac and the left S1 "
    "nerve root. The disc is dehydrated. A small tarlov cyst is also noted at the S2 level.",
    "No evidence of disc herniation. No thecal sac or nerve root compression noted.// Grade I spondylolisthesis of "
    "L4 over L5 which is seen with RIGHT-SIDED facet joint hypertrophy.",
)


SIDES = {"left": "right", "right": "left"}


# What may never change, read by patterns of their own and not by the report parser.
PROTECTED = {
    "level": r"\b[CDTLS]\d{1,2}\b|[-/]\s*\d\b",
    "number": r"\d+(?:\.\d+)?",
    "side": r"\b(?:left|right|lt|rt|both|bilateral|central|paracentral|midline)",
    "negation": r"\b(?:no|not|without|neither|nor|adequate|normal|never|denied)\b",
    "severity": r"\b(?:mild|minimal|moderate|severe|marked|slight|small|large|significant|huge)",
    "finding": r"bulg|protru|extru|sequest|hernia|compress|encroach|abut|indent|stenos|narrow|spasm|hydrat|sicc|tear"
    r"|listh|modic|schmorl|cyst|fractur|angioma|hypertro|osteoph|degenerat",
    "doubt": r"\b(?:likely|probabl|possibl|suggest|may|mostly|rather)|\?",
    "conjunction": r"\b(?:and|or|but|with|over|of|to)\b",
}


def protected_words(text, topic):
    return Counter(word.casefold() for word in re.findall(PROTECTED[topic], text, re.I))


def unchanged_topics(before, after, topics=tuple(PROTECTED)):
    return {topic: protected_words(before, topic) == protected_words(after, topic) for topic in topics}


def synthetic_reports(num_patients):
    reports = {}
    for record in synthetic.read(ReadOptions(raw=None, seed=5, num_patients=num_patients)):
        reports |= dict.fromkeys((record.report, *record.rephrasings))
    return list(reports)


def exchanged_facts(text):
    return frozenset(
        (kind, level, SIDES.get(side, side), severity, negated)
        for kind, level, side, severity, negated in report_facts(text)
    )


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("report", REPORTS)
def test_eda_keeps_facts_and_protected_words(report, operation):
    texts = set()
    for seed in range(8):
        augmented = augment_text(report, np.random.default_rng(seed), alpha=0.2, operations=[operation])
        assert augmented.operation == operation and augmented.text != report
        assert report_facts(augmented.text) == report_facts(report)
        # "and", "with", "of", "to" may stand in a synonym ("resulting in", "MRI of the LSS").
        topics = [topic for topic in PROTECTED if operation != "synonym replacement" or topic != "conjunction"]
        assert all(unchanged_topics(report, augmented.text, topics).values()), augmented.text
        texts.add(augmented.text)
    assert len(texts) > 3 or operation != "synonym replacement"


def test_synonyms_are_replaced_as_wholes_and_keep_their_case():
    rng = np.random.default_rng(0)
    assert replace_synonyms("Disc bulge", 1, rng) == "Disk bulge"
    assert replace_synonyms("THECAL SAC", 1, rng) == "DURAL SAC"
    assert replace_synonyms("the thecal\n sac.", 5, rng) == "the dural sac."
    canals = {replace_synonyms("exit neural canals", 1, np.random.default_rng(seed)) for seed in range(20)}
    assert canals == {"exit canals", "exiting neural canals"}
    for text in ("discitis", "disc-like", "Evidence", "extruded", "thecal sacs"):  # no word of the lexicon
        assert replace_synonyms(text, 5, rng) == text


def test_deletion_and_swap_by_hand():
    rng = np.random.default_rng(0)
    assert delete_words("the disc\nis noted", 3, rng) == "disc\n"
    assert delete_words("The disc is noted, (the canal is) the.", 6, rng) == "disc, (canal)."
    assert delete_words("Stenosis of grade A, type a.", 3, rng) == "Stenosis of grade A, type a."
    for text in ("Schizas class A", "AO type (A)", "Stenosis grade: A", "Hepatitis A"):
        assert delete_words(text, 3, rng) == swap_words(text + " is", 3, rng).removesuffix(" is") == text
    assert delete_words("A disc. A bulge", 2, rng) == "disc. bulge"
    assert swap_words("the disc is dark", 1, rng) == "is disc the dark"
    assert swap_words("The disc. It is", 1, rng) == "The disc. It is"  # not across sentences
    assert swap_words("The disc is", 1, rng) == "Is disc the"


def test_number_of_changes_follows_alpha():
    text = " ".join(["the disc is noted"] * 20)  # 80 words
    kept = [
        len(augment_text(text, np.random.default_rng(1), alpha, ["random deletion"]).text.split())
        for alpha in (0.001, 0.1, 0.5)
    ]
    assert kept == [79, 72, 40]


def test_texts_without_a_changeable_word_stay():
    for text in ("", "L4-5: Rt protrusion.", "No herniation."):
        augmented = augment_text(text, np.random.default_rng(0))
        assert augmented.text == text and augmented.operation is None


def test_no_lexicon_word_states_a_fact():
    """Neither the parser nor the patterns above find a difference between words that may be exchanged or left out."""
    for group in SYNONYM_GROUPS:
        assert len({report_facts(phrase) for phrase in group}) == 1, group
    assert not any(map(report_facts, FRAME_WORDS))
    for phrase in [phrase for group in SYNONYM_GROUPS for phrase in group] + sorted(FRAME_WORDS):
        assert not any(
            re.search(PROTECTED[topic], re.sub("encroaching (?=upon|on)", "", phrase), re.I)
            for topic in ("level", "number", "side", "negation", "severity", "finding", "doubt")
        ), phrase


def test_synonyms_are_one_to_the_parser():
    """Within a sentence that states a fact of the phrase, each member of a group says the same."""
    frames = {
        "disc": "mild {} bulge at L4/L5",
        "thecal sac": "bulge at L4/L5 compressing the {}",
        "neural foramen": "narrowing of the left {} at L4/L5",
        "exit canals": "bulge at L4/L5 encroaching both {}",
        "exit nerve root": "protrusion at L5/S1 compressing the right {}",
        "spinal canal": "severe {} stenosis at L3/L4",
        "noted": "no disc herniation {}",
        "evidence of": "no {} disc herniation",
        "associated with": "disc bulge at L4/L5 {} annular tear",
        "causing": "disc bulge at L4/L5 {} compression of the thecal sac",
    }
    for member, frame in frames.items():
        (group,) = [group for group in SYNONYM_GROUPS if member in group]
        facts = {report_facts(frame.format(phrase)) for phrase in group}
        assert len(facts) == 1 and facts != {frozenset()}, (group, facts)


@pytest.mark.parametrize(("fields", "message"), [({"alpha": 0}, "alpha=0"), ({"operations": ("insert",)}, "insert")])
def test_eda_refuses_bad_arguments(fields, message):
    with pytest.raises(ValueError, match=message):
        EDA(**fields)


@pytest.fixture(scope="module")
def sided_dataset():
    """Axial, coronal, sagittal and unknown slices, with masks, sided labels and reports."""
    labels = ("left foraminal narrowing", "LBP", "right foraminal narrowing", "No Finding")
    about = SourceAbout(name="sided", summary="", license="other: none", citation="", size="", where="")
    features = dataset_features(SourceInfo(about=about, label_names=labels))
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        plane = ("axial", "coronal", "sagittal", "unknown")[number % 4]
        pixels = rng.integers(1, 255, size=(40, 30 + number), dtype=np.uint8)
        mask = (pixels > 200).astype(np.uint8)
        mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = 0
        rows.append(
            {
                "image": Image.fromarray(pixels),
                "report": REPORTS[number % 3],
                "rephrasings": ["Left disc protrusion at L5/S1.", "No stenosis."],
                "labels": [labels[0], labels[1]] if number % 3 else [labels[3]],
                "grade": None,
                "patient_id": str(number),
                "study_id": str(number),
                "series_id": None,
                "slice_index": None,
                "plane": plane,
                "sequence": "T2",
                "level": "L5/S1",
                "pixel_spacing_mm": None if number == 1 else 0.5,
                "slice_spacing_mm": None,
                "disc_height_mm": None,
                "mask": None if number == 4 else Image.fromarray(mask),
                "mask_classes": None,
                "mask_origin": None,
                "source": f"sided/{number}",
            }
        )
    return Dataset.from_list(rows, features=features)


def contents(dataset):
    """All of a dataset, pixels as bytes."""
    rows = []
    for row in dataset:
        for column in ("image", "mask"):
            row[column] = row[column] and (row[column].mode, row[column].size, row[column].tobytes())
        rows.append(row)
    return rows


FUNCTIONS = [
    EDA(seed=3),
    FlipLeftRight(seed=3, probability=0.5, label_names=("LBP", "No Finding", "a", "b")),
    VaryGreyScale(seed=3),
    VaryBiasField(seed=3),
    VaryPose(seed=3),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: type(function).__name__)
def test_a_row_does_not_depend_on_batches_order_or_pickling(sided_dataset, function):
    once = contents(sided_dataset.map(function, batched=True))
    assert once != contents(sided_dataset)
    in_small_batches = sided_dataset.map(pickle.loads(pickle.dumps(function)), batched=True, batch_size=5)
    assert contents(in_small_batches) == once
    backwards = sided_dataset.select(range(23, -1, -1)).map(function, batched=True, batch_size=7)
    assert contents(backwards) == once[::-1]
    other_seed = type(function)(**{**function.__dict__, "seed": 4})
    assert contents(sided_dataset.map(other_seed, batched=True)) != once


def test_two_processes_make_what_one_makes(sided_dataset):
    for function in (EDA(seed=1), VaryPose(seed=1)):
        one, two = (sided_dataset.map(function, batched=True, num_proc=n) for n in (None, 2))
        assert contents(one) == contents(two)


def test_the_same_function_is_cached_and_another_is_not(sided_dataset):
    prints = [
        sided_dataset.map(function, batched=True)._fingerprint for function in (EDA(seed=1), EDA(seed=1), EDA(seed=2))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_features_stay_and_pixels_are_stored_as_png(sided_dataset):
    for function in FUNCTIONS:
        mapped = sided_dataset.map(function, batched=True)
        assert mapped.features == sided_dataset.features
        for column in ("image", "mask"):
            stored = [value for value in mapped.data.table[column].to_pylist() if value]
            assert all(value["bytes"].startswith(b"\x89PNG") for value in stored)


def test_a_dataset_of_another_make_is_refused():
    with pytest.raises(ValueError, match="no column 'source'"):
        EDA()({"report": ["disc bulge"], "rephrasings": [[]]})


def test_eda_changes_texts_alone(sided_dataset):
    mapped = sided_dataset.map(EDA(seed=0), batched=True)
    before, after = contents(sided_dataset), contents(mapped)
    for old, new in zip(before, after, strict=True):
        assert report_facts(new["report"]) == report_facts(old["report"])
        assert len(new["rephrasings"]) == len(old["rephrasings"])
        assert {k: v for k, v in new.items() if k not in ("report", "rephrasings")} == {
            k: v for k, v in old.items() if k not in ("report", "rephrasings")
        }
    assert len(set(mapped["report"])) > len(REPORTS)  # rows with one report are worded differently


def test_flip_mirrors_axial_and_coronal_rows_and_nothing_else(sided_dataset):
    flipped = sided_dataset.map(FlipLeftRight.of(sided_dataset.features), batched=True, batch_size=5)
    planes = sided_dataset.features["plane"].names
    names = sided_dataset.features["labels"].feature.names
    for old, new in zip(sided_dataset, flipped, strict=True):
        if planes[old["plane"]] not in ("axial", "coronal"):
            assert contents([new]) == contents([old])
            continue
        assert np.array_equal(np.asarray(new["image"]), np.asarray(old["image"])[:, ::-1])
        assert (new["mask"] is None) == (old["mask"] is None)
        if old["mask"] is not None:
            assert np.array_equal(np.asarray(new["mask"]), np.asarray(old["mask"])[:, ::-1])
        assert new["report"] == exchange_sides(old["report"])
        assert new["rephrasings"] == ["Right disc protrusion at L5/S1.", "No stenosis."]
        if names.index("No Finding") not in old["labels"]:
            assert {names[label] for label in new["labels"]} == {"right foraminal narrowing", "LBP"}
        assert (new["level"], new["pixel_spacing_mm"]) == (old["level"], old["pixel_spacing_mm"])


def test_flipping_twice_gives_the_dataset_back(sided_dataset):
    flip = FlipLeftRight.of(sided_dataset.features, seed=2, probability=0.6)
    once = sided_dataset.map(flip, batched=True)
    assert contents(once) != contents(sided_dataset)
    assert contents(once.map(flip, batched=True)) == contents(sided_dataset)


def test_rows_without_labels_are_flipped_and_stay_without(sided_dataset):
    feature = sided_dataset.features["labels"]
    unlabelled = sided_dataset.remove_columns("labels").add_column("labels", [None, []] * 12, feature=feature)
    flipped = unlabelled.map(FlipLeftRight.of(unlabelled.features), batched=True)
    assert flipped["labels"][:] == [None, []] * 12
    assert flipped["image"][0] != unlabelled["image"][0]


def test_flip_leaves_rows_whose_sides_are_unclear(sided_dataset):
    batch = sided_dataset.select([0, 1]).to_dict() | {"image": sided_dataset.select([0, 1])["image"][:]}
    batch |= {"mask": [None, None], "report": ["Cyst R", "Cyst (R), L. spine"], "rephrasings": [[], ["Cyst, R > L"]]}
    flipped = FlipLeftRight.of(sided_dataset.features)(batch)
    assert flipped["report"] == ["Cyst R", "Cyst (L), L. spine"] and flipped["rephrasings"] == [[], ["Cyst, L > R"]]
    assert flipped["image"][0] is batch["image"][0] and flipped["image"][1] is not batch["image"][1]


def test_flip_exchanges_the_sides_of_facts():
    for report in REPORTS:
        assert report_facts(exchange_sides(report)) == exchanged_facts(report)
        assert exchange_sides(exchange_sides(report)) == report


def test_share_of_flipped_rows(sided_dataset):
    axial = concatenate_datasets([sided_dataset.select(range(0, 24, 4))] * 50)
    axial = axial.remove_columns(["image", "mask", "source"]).add_column("source", list(map(str, range(300))))
    flip = FlipLeftRight(probability=0.3, label_names=tuple(sided_dataset.features["labels"].feature.names))
    batch = {**axial[:], "image": [Image.new("L", (2, 1))] * 300, "mask": [None] * 300}
    changed = sum(new != old for new, old in zip(flip(batch)["rephrasings"], batch["rephrasings"], strict=True))
    assert 65 < changed < 115  # 90 ± 3 standard deviations


def test_a_class_without_its_other_side_is_refused():
    features = Features({"labels": List(ClassLabel(names=["left foraminal narrowing", "LBP"]))})
    with pytest.raises(ValueError, match="right foraminal narrowing"):
        FlipLeftRight.of(features)


def test_pose_moves_mask_with_image_and_spacing_with_zoom(sided_dataset):
    """A mask that is a threshold of a smooth image stays its threshold."""
    across = np.linspace(0, 255, 80).astype(np.uint8)
    image = Image.fromarray(np.tile(across, (60, 1)))
    mask = Image.fromarray((np.asarray(image) > 128).astype(np.uint8))
    batch = {
        "image": [image] * 20,
        "mask": [mask] * 20,
        "pixel_spacing_mm": [0.8] * 20,
        "source": [str(number) for number in range(20)],
    }
    moved = VaryPose(seed=1)(batch)
    for number in range(20):
        pixels, indices = (np.asarray(decoded(moved[name][number])) for name in ("image", "mask"))
        inside = pixels > 0
        assert ((pixels > 128) == indices)[inside].mean() > 0.97
        assert 0.8 / 1.11 < moved["pixel_spacing_mm"][number] < 0.8 / 0.9
    assert len(set(moved["pixel_spacing_mm"])) == 20
    # Equal to the image enlarged by a zoom alone: 0.8 mm become 0.4 mm.
    assert posed(image, Pose(zoom=2)).getpixel((0, 0)) == pytest.approx(across[20], abs=2)


def test_what_is_drawn_keeps_its_size_in_millimetres():
    down, across = np.mgrid[:200, :200] - 99.5
    disc = (down**2 + across**2 < 40**2).astype(np.uint8)
    moved = VaryPose(seed=1, max_log_zoom=0.3)(
        {
            "image": [Image.fromarray(255 * disc)] * 20,
            "mask": [Image.fromarray(disc)] * 20,
            "pixel_spacing_mm": [0.8] * 20,
            "source": [str(number) for number in range(20)],
        }
    )
    pixels = np.array([np.asarray(decoded(mask)).sum() for mask in moved["mask"]])
    assert pixels.max() > 1.5 * pixels.min()
    np.testing.assert_allclose(pixels * np.square(moved["pixel_spacing_mm"]), disc.sum() * 0.8**2, rtol=0.02)


def test_facts_are_kept_on_a_sample_of_synthetic_reports():
    changed = 0
    reports = synthetic_reports(2)
    for number, report in enumerate(reports):
        augmented = augment_text(report, np.random.default_rng(number))
        changed += augmented.text != report
        assert report_facts(augmented.text) == report_facts(report)
        assert report_facts(exchange_sides(report)) == exchanged_facts(report)
    assert changed > 0.8 * len(reports) > 20


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["notes", "synthetic"])
def test_facts_are_kept_on_all_notes_and_synthetic_reports(origin, request):
    """Three seeds each; AUGMENTATION_SEEDS=20 for a long look. Failures name rows, not texts."""
    num_seeds = int(os.environ.get("AUGMENTATION_SEEDS", "3"))
    if origin == "notes":
        path = request.getfixturevalue("shared_data") / "mendeley_notes" / "Radiologists Report.xlsx"
        reports = {note.patient_id: note.text for note in read_notes(path) if note.text.strip()}
        assert len(reports) == 515
    else:
        reports = dict(enumerate(synthetic_reports(15)))
    changed, failed = 0, []
    for row, report in reports.items():
        if (
            report_facts(exchange_sides(report)) != exchanged_facts(report)
            or exchange_sides(exchange_sides(report)) != report
        ):
            failed.append((row, "flip"))
        for seed in range(num_seeds):
            rng = np.random.default_rng([seed, int(row)])
            augmented = augment_text(report, rng)
            changed += augmented.text != report
            topics = [t for t in PROTECTED if augmented.operation != "synonym replacement" or t != "conjunction"]
            if report_facts(augmented.text) != report_facts(report):
                failed.append((row, seed, "facts"))
            if not all(unchanged_topics(report, augmented.text, topics).values()):
                failed.append((row, seed, "words"))
    print(f"{origin}: {len(reports)} reports, {num_seeds} seeds: {changed / (num_seeds * len(reports)):.4f} changed")
    assert not failed, failed[:10]
    assert changed > 0.95 * num_seeds * len(reports)


def test_a_built_dataset_maps(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))["train"].select(range(8))
    for function in (EDA(), FlipLeftRight.of(dataset.features), VaryGreyScale(), VaryBiasField(), VaryPose()):
        dataset = dataset.map(function, batched=True)
    assert dataset[0]["image"].size == (40, 24) and dataset[0]["image"].mode == "L"


@pytest.mark.parametrize("report, labels", [
    ("Leftt foraminal protrusion.", ["LBP"]),
    ("Bandscheibenvorfall L5/S1 links.", ["LBP"]),
    ("Left protrusion at L5/S1.", ["lyse links"]),
])  # fmt: skip
def test_flip_keeps_a_row_whose_report_or_class_may_tell_a_side(report, labels):
    names = ("LBP", "lyse links")
    batch = {
        "image": [Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))] * 2,
        "mask": [None, None],
        "report": [report, "Left protrusion at L5/S1."],
        "rephrasings": [[], ["Leftward protrusion."]],
        "labels": [[names.index(name) for name in labels], [0]],
        "plane": [PLANES.index("axial")] * 2,
        "source": ["a", "b"],
    }
    flipped = FlipLeftRight(label_names=names)(batch)
    assert flipped["image"][0] is batch["image"][0] and flipped["report"][0] == report
    assert flipped["report"][1] == "Right protrusion at L5/S1." and flipped["rephrasings"][1] == [
        "Rightward protrusion."
    ]
    assert np.asarray(decoded(flipped["image"][1])).tolist()[0] == [3, 2, 1, 0]


def test_eda_leaves_a_text_in_another_language():
    for text in ("There is seen a bulge. Der Befund is also noted links.", "Hernia discal a la derecha, no is seen."):
        assert augment_text(text, np.random.default_rng(0)).text == text
