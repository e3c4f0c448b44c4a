"""Batches hold what the dataset holds, with random choices that nothing but the seed decides."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List
from huggingface_hub.errors import OfflineModeIsEnabled

from train.data.batch_sampler import EpochBatches, TrainingSet
from train.data.image_augmentation import vary_images
from train.data.image_cache import normalise
from train.data.loaders import (
    PairedRows,
    classes_to_balance,
    open_dataset,
    pair_targets,
    plan_batches,
    target_classes,
    text_and_patient_ids,
)
from train.training.loop import build_loader


@pytest.fixture(scope="module")
def splits(tiny_dataset_folder):
    return open_dataset(str(tiny_dataset_folder))


def paired_rows(splits, processor, **options):
    return PairedRows(splits["train"], processor, ["labels"], seed=0, show_progress=False, **options)


def test_pixels_are_those_of_the_processor(splits, tiny_processor):
    rows = paired_rows(splits, tiny_processor)
    batch = rows.__getitems__([(0, 3), (0, 17)])
    expected = tiny_processor(images=splits["train"][[3, 17]]["image"], return_tensors="pt").pixel_values
    torch.testing.assert_close(batch["pixel_values"], expected, atol=1e-6, rtol=0)


def test_texts_are_those_of_the_rows_and_encoded_once(splits, tiny_processor):
    rows = paired_rows(splits, tiny_processor)
    indices = [(0, row) for row in (0, 1, 2, 9, 0)]
    batch = rows.__getitems__(indices)
    assert len(batch["input_ids"]) == len({rows.reports[row] for _, row in indices}) < 5
    for pair, (_, row) in enumerate(indices):
        report = tiny_processor(text=[rows.reports[row]]).input_ids[0]
        at = batch["text_index"][pair]
        assert batch["input_ids"][at][batch["attention_mask"][at] == 1].tolist() == report
        at = batch["augmented_text_index"][pair]
        tokens = batch["augmented_input_ids"][at][batch["augmented_attention_mask"][at] == 1].tolist()
        assert tokens in [tiny_processor(text=[text]).input_ids[0] for text in splits["train"][row]["rephrasings"]]


def test_random_choices_depend_on_epoch_and_row_alone(splits, tiny_processor):
    rows = paired_rows(splits, tiny_processor, augment=True)
    alone, among = rows.__getitems__([(2, 5)]), rows.__getitems__([(2, 8), (2, 5), (0, 5)])
    torch.testing.assert_close(alone["pixel_values"][0], among["pixel_values"][1], atol=1e-6, rtol=0)
    assert not torch.allclose(among["pixel_values"][1], among["pixel_values"][2])  # another epoch
    chosen = {tuple(rows.__getitems__([(epoch, 5)])["augmented_input_ids"][0].tolist()) for epoch in range(20)}
    assert len(chosen) == 2  # both rephrasings occur


def texts_of(batch, prefix=""):
    masks = batch[f"{prefix}attention_mask"]
    tokens = [ids[mask == 1].tolist() for ids, mask in zip(batch[f"{prefix}input_ids"], masks, strict=True)]
    return [tokens[row] for row in batch[f"{prefix}text_index"]]


def tokens_of(processor, texts):
    return [processor(text=[text]).input_ids[0] for text in texts]


INPUTS = frozenset({"classes", "states", "grades", "facts", "counterfactuals", "flipped_images", "image_views"})


def test_what_objectives_read_besides_is_there_if_asked_for_and_changes_nothing_else(splits, tiny_processor):
    plain, rows = (paired_rows(splits, tiny_processor, augment=True, inputs=asked) for asked in (frozenset(), INPUTS))
    indices = [(1, row) for row in (3, 0, 21, 8)]
    before, batch = plain.__getitems__(indices), rows.__getitems__(indices)
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    present = splits["train"][[3, 0, 21, 8]]["labels"]
    assert batch["classes"].tolist() == [[float(k in of_row) for k in range(2)] for of_row in present]
    assert batch["grades"].tolist() == [-1] * 4
    assert batch["states"].tolist() == batch["classes"].tolist()  # labels of a source say of each class what holds
    views = batch["view_pixel_values"]
    assert torch.equal(batch["flipped_pixel_values"], batch["pixel_values"].flip(-1))
    assert views.shape == batch["pixel_values"].shape and not torch.allclose(views, batch["pixel_values"])
    assert torch.equal(rows.__getitems__([(1, 0)])["view_pixel_values"][0], views[1])


def test_facts_are_equal_for_equal_reports_labels_and_grades(splits):
    reports, labels = ["Disc bulge.", "disc  bulge. ", "Disc bulge.", "Normal."], [[0], [0], [1], [0]]
    few = (
        splits["train"]
        .select(range(4))
        .map(lambda _, i: {"report": reports[i], "labels": labels[i]}, with_indices=True)
    )
    facts = pair_targets(few, {"facts"}, None)["facts"].tolist()
    assert facts[0] == facts[1] and len(set(facts)) == 3
    features = few.features | {"grade": ClassLabel(names=["1", "2"])}
    graded = few.map(lambda _, i: {"grade": [0, 1, 0, None][i]}, with_indices=True, features=Features(features))
    targets = pair_targets(graded, {"facts", "grades"}, None)
    assert len(set(targets["facts"].tolist())) == 4 and targets["grades"].tolist() == [0, 1, 0, -1]


def test_counterfactuals_are_drawn_for_a_share_of_the_pairs_each_by_itself(splits, tiny_processor):
    options = {"inputs": frozenset({"counterfactuals"}), "counterfactual_share": 0.25}
    rows = paired_rows(splits, tiny_processor, **options)
    assert rows.num_counterfactual == len(rows) == 40
    shown = 0
    for epoch in range(20):
        batch = rows.__getitems__([(epoch, row) for row in range(40)])
        places = batch["counterfactual_rows"].tolist()
        shown += len(places)
        assert len(batch["counterfactual_input_ids"]) == len(places) == len(set(places))
        for place, ids, mask in zip(
            places, batch["counterfactual_input_ids"], batch["counterfactual_attention_mask"], strict=True
        ):
            expected = tokens_of(tiny_processor, rows.counterfactuals[(rows.reports[place],) * 2])
            assert ids[mask == 1].tolist() in expected
            alone = rows.__getitems__([(epoch, place)])
            assert alone["counterfactual_rows"].tolist() == [0]
            assert alone["counterfactual_input_ids"][0].tolist() == ids[mask == 1].tolist()
    assert 0.2 < shown / 800 < 0.3
    assert paired_rows(splits, tiny_processor, **options | {"counterfactual_share": 1.0}).__getitems__(
        [(0, row) for row in range(40)]
    )["counterfactual_rows"].tolist() == list(range(40))


def test_a_batch_without_counterfactuals_holds_none(splits, tiny_processor):
    dataset = splits["train"].map(lambda _: {"report": "Thank you for the referral."})
    rows = PairedRows(dataset, tiny_processor, [], seed=0, inputs=frozenset({"counterfactuals"}), show_progress=False)
    batch = rows.__getitems__([(0, 1), (0, 2)])
    assert rows.num_counterfactual == 0
    shapes = {name: tuple(batch[f"counterfactual_{name}"].shape) for name in ("input_ids", "attention_mask", "rows")}
    assert shapes == {"input_ids": (0, 1), "attention_mask": (0, 1), "rows": (0,)}


def test_a_sentence_has_counterfactuals_of_its_own(splits, tiny_processor):
    bulge, alignment = "Disc bulge at L4/L5.", "Normal alignment of the spine."
    dataset = splits["train"].map(lambda _: {"report": f"{bulge} {alignment}"})
    options = {"text_unit": "sentence", "inputs": frozenset({"counterfactuals"}), "show_progress": False}
    rows = PairedRows(dataset, tiny_processor, [], seed=0, **options)
    of_parts = {part: texts for (_, part), texts in rows.counterfactuals.items()}
    assert rows.num_counterfactual == 40 and not of_parts[alignment]
    assert all(len(text.split(". ")) == 1 for text in of_parts[bulge])
    batch = rows.__getitems__([(epoch, 0) for epoch in range(20)])
    bulges = tokens_of(tiny_processor, [bulge])[0]
    assert batch["counterfactual_rows"].tolist() == [i for i, text in enumerate(texts_of(batch)) if text == bulges]


def test_a_change_that_the_tokens_do_not_show_is_no_counterfactual(splits, tiny_processor):
    """It would be pushed away from the image, and so would its report, which is the same to the model."""
    dataset = splits["train"].map(lambda _: {"report": "Disc bulge at L4/L5, more on the left than before."})
    options = {"seed": 0, "inputs": frozenset({"counterfactuals"}), "show_progress": False}
    of_lengths = {}
    for length in (32, 7):  # [CLS] disc bulge at l4 / [SEP]
        tiny_processor.max_length = length
        rows = PairedRows(dataset, tiny_processor, [], **options)
        ((_, texts),) = rows.counterfactuals.items()
        of_lengths[length] = texts
        assert all(rows.token_ids[text] != rows.token_ids[rows.reports[0]] for text in texts)
    assert any("right" in text for text in of_lengths[32]) and not any("right" in text for text in of_lengths[7])


def with_long_reports(splits):
    """Reports and rephrasings of one to four sentences, none of them twice in a text."""
    sentences = ["No disc bulge.", "Disc bulge at L4/L5.", "Normal disc, left.", "Right disc bulge."]

    def lengthen(row, index):
        text = " ".join(sentences[: 1 + index % 4])
        return {"report": text, "rephrasings": [f"At l5, {text}", f"Left {text}"]}

    return splits["train"].map(lengthen, with_indices=True)


def test_what_a_row_draws_is_pinned(splits, tiny_processor):
    """One generator a row and epoch: it varies the image, then chooses the rephrasing."""
    rows = paired_rows(splits, tiny_processor, augment=True)
    batch = rows.__getitems__([(4, 7), (1, 30)])
    generators = [np.random.default_rng([0, epoch, row]) for epoch, row in [(4, 7), (1, 30)]]
    images = vary_images(rows.images[[7, 30]].float(), generators)
    assert torch.equal(batch["pixel_values"], normalise(images[:, None], tiny_processor.image_processor))
    stored = splits["train"][[7, 30]]["rephrasings"]
    chosen = [texts[random.integers(2)] for texts, random in zip(stored, generators, strict=True)]
    assert texts_of(batch, "augmented_") == tokens_of(tiny_processor, chosen)
    assert texts_of(batch) == tokens_of(tiny_processor, splits["train"][[7, 30]]["report"])


def test_sentences_are_drawn_for_each_epoch_and_disturb_no_other_choice(splits, tiny_processor):
    dataset = with_long_reports(splits)
    whole, cut = (
        PairedRows(dataset, tiny_processor, [], seed=0, augment=True, text_unit=unit, show_progress=False)
        for unit in ("report", "sentence")
    )
    seen = {row: set() for row in range(4)}
    for epoch in range(30):
        indices = [(epoch, row) for row in seen]
        one, other = whole.__getitems__(indices), cut.__getitems__(indices)
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        # The sentence is one of the very rephrasing that the whole report would have had.
        for (_, row), drawn, rephrasing in zip(
            indices, texts_of(other, "augmented_"), texts_of(one, "augmented_"), strict=True
        ):
            text = next(t for t in whole.augmented_texts[row][0] if tokens_of(tiny_processor, [t]) == [rephrasing])
            assert drawn in tokens_of(tiny_processor, cut.parts[text])
        for row, text in zip(seen, texts_of(other), strict=True):
            seen[row].add(tuple(text))
    for row, texts in seen.items():
        sentences = cut.parts[cut.reports[row]]
        assert len(sentences) == 1 + row % 4
        assert texts == {tuple(tokens) for tokens in tokens_of(tiny_processor, sentences)}


@pytest.mark.parametrize("augmentation, num_texts", [("eda", 4), ("both", 8)])
def test_epochs_draw_different_variations(splits, tiny_processor, augmentation, num_texts):
    rows = paired_rows(splits, tiny_processor, text_augmentation=augmentation)
    again = paired_rows(splits, tiny_processor, text_augmentation=augmentation)
    drawn = [rows._augmented(epoch, 5, np.random.default_rng([0, epoch, 5])) for epoch in range(60)]
    (texts,) = rows.augmented_texts[5]
    assert set(drawn) == set(texts) and len(texts) == num_texts
    for epoch in range(5):
        batch = rows.__getitems__([(epoch, 5), (epoch, 6)])
        assert texts_of(batch, "augmented_")[0] == tokens_of(tiny_processor, [drawn[epoch]])[0]
        other = again.__getitems__([(epoch, 5), (epoch, 6)])
        assert all(torch.equal(batch[name], other[name]) for name in batch)


def test_an_epoch_shows_each_text_of_a_pair_once(splits, tiny_processor):
    """Entry R * k + row is the row with its text k: the report, then the rephrasings."""
    num_rows, texts = len(splits["train"]), TrainingSet(texts_per_pair=3)
    rows = paired_rows(splits, tiny_processor, texts_per_pair=3)
    shown = {row: [] for row in range(num_rows)}
    for batch in plan_batches(splits["train"], texts, 8, seed=0).batches_of_epoch(4):
        made = rows.__getitems__([(4, entry) for entry in batch.tolist()])
        assert made["rows"].tolist() == (batch % num_rows).tolist()
        assert texts_of(made) == tokens_of(tiny_processor, splits["train"][batch % num_rows]["report"])
        for row, text in zip(made["rows"].tolist(), texts_of(made, "augmented_"), strict=True):
            shown[row].append(text)
    for row, drawn in shown.items():
        pair = splits["train"][row]
        assert sorted(drawn) == sorted(tokens_of(tiny_processor, [pair["report"], *pair["rephrasings"]]))


def test_entries_of_a_pair_share_its_image_but_no_random_choice(splits, tiny_processor):
    num_rows = len(splits["train"])
    plain, varied = (
        paired_rows(splits, tiny_processor, texts_per_pair=2, augment=augment) for augment in (False, True)
    )
    entries = [(0, 7), (0, num_rows + 7)]
    batch = plain.__getitems__(entries)
    assert torch.equal(*batch["pixel_values"]) and torch.equal(*batch["labels"])
    assert not torch.allclose(*varied.__getitems__(entries)["pixel_values"])


def test_more_texts_than_an_epoch_shows_take_turns(splits, tiny_processor):
    rows, num_rows = paired_rows(splits, tiny_processor, texts_per_pair=2), len(splits["train"])
    pair = splits["train"][9]
    report, first, second = tokens_of(tiny_processor, [pair["report"], *pair["rephrasings"]])
    shown = [texts_of(rows.__getitems__([(epoch, 9), (epoch, num_rows + 9)]), "augmented_") for epoch in range(3)]
    assert shown == [[report, first], [second, report], [first, second]]


@pytest.mark.parametrize("augmentation, expected", [("rephrasings", 39), ("both", 40), ("none", 0)])
def test_pairs_with_another_text_are_counted(splits, tiny_processor, augmentation, expected):
    def lose_first(row, index):
        return {"rephrasings": row["rephrasings"] if index else []}

    some = splits["train"].map(lose_first, with_indices=True)
    for texts_per_pair in (1, 5):
        rows = PairedRows(some, tiny_processor, [], 0, text_augmentation=augmentation, texts_per_pair=texts_per_pair)
        assert rows.num_augmented == expected


def test_without_augmentation_there_is_no_second_text(splits, tiny_processor):
    batch = paired_rows(splits, tiny_processor, text_augmentation="none").__getitems__([(0, 1)])
    assert not [name for name in batch if name.startswith("augmented_")]
    bare = splits["train"].map(lambda row: {"rephrasings": []})
    rows = PairedRows(bare, tiny_processor, [], seed=0, show_progress=False)
    assert not [name for name in rows.__getitems__([(0, 1)]) if name.startswith("augmented_")]


def test_a_worker_process_makes_the_same_batches(splits, tiny_processor):
    batches = EpochBatches(40, 8, seed=1)
    rows = paired_rows(splits, tiny_processor, augment=True)
    here, there = (iter(build_loader(rows, batches, workers)) for workers in (0, 2))
    for _ in range(7):
        one, other = next(here), next(there)
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0)


def graded(labels, grades):
    features = Features({"labels": List(ClassLabel(names=["bulge", "tear"])), "grade": ClassLabel(names=list("123"))})
    return Dataset.from_dict({"labels": labels, "grade": grades}, features=features)


def test_target_classes_by_hand():
    dataset = graded([[0], [0, 1], []], [0, 2, None])
    assert target_classes(dataset, ["labels"]).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert target_classes(dataset, ["labels", "grade"]).tolist()[:2] == [[1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0]]
    assert target_classes(dataset, []) is None
    empty = graded([[], []], [None, None])
    assert target_classes(empty, ["labels"]) is None
    assert target_classes(empty, ["labels", "grade"], even_if_none=True).tolist() == 2 * [[0, 0, 0, 0, 0, 1]]
    assert target_classes(empty, [], even_if_none=True) is None


def test_counting_absences_makes_the_overlap_a_hamming_distance():
    dataset = graded([[0], [0, 1], [], [1]], [0, 2, 1, 0])
    classes = target_classes(dataset, ["labels", "grade"], count_absences=True)
    overlap = classes @ classes.T
    assert overlap.diagonal().tolist() == [4, 4, 4, 4]  # two labels and two thresholds
    assert overlap[0].tolist() == [4, 1, 2, 2]


def test_variation_keeps_size_range_padding_and_left_and_right():
    image = torch.zeros(1, 64, 64)
    image[:, 20:44, 8:56] = 100.0
    image[:, 28:36, 10:22] = 220.0  # bright on the left of the picture
    varied = torch.cat([vary_images(image, [np.random.default_rng(seed)]) for seed in range(40)])
    assert varied.shape == (40, 64, 64) and varied.min() >= 0 and varied.max() <= 255
    brightest = torch.nn.functional.avg_pool2d(varied[:, None], 9, stride=1, padding=4).flatten(1).argmax(dim=1) % 64
    assert (brightest < 32).all()
    assert varied[:, :4, :4].abs().max() == 0
    assert varied.std(dim=0).max() > 10
    torch.testing.assert_close(varied[7], vary_images(image, [np.random.default_rng(7)])[0])


def test_reports_that_differ_in_case_and_blanks_are_one():
    dataset = Dataset.from_dict(
        {
            "report": ["No  disc bulge.", "Disc bulge.", "no disc bulge .", "Disc bulge."],
            "patient_id": ["b", "a", "c", "b"],
        }
    )
    texts, patients = text_and_patient_ids(dataset)
    assert (texts[:, None] == texts).tolist() == [[i % 2 == j % 2 for j in range(4)] for i in range(4)]
    assert patients.tolist() == [1, 0, 2, 1]


def test_batches_are_planned_from_labels_reports_and_patients(splits):
    train = splits["train"].select([row for row, (label,) in enumerate(splits["train"]["labels"]) if label or row < 20])
    counts = np.bincount([label for (label,) in train["labels"]])
    texts, patients = text_and_patient_ids(train)
    drawn, repeated, dealt = (
        plan_batches(train, TrainingSet(balance=balance), 4, seed=0) for balance in ([], ["upsample"], ["sampler"])
    )
    assert drawn == EpochBatches(len(train), 4, seed=0)
    assert counts.min() < counts.max() and repeated.upsampling.rows_of_class.tolist() == [counts.max()] * 2
    expected = EpochBatches(len(train), 4, seed=0, text_and_patient_ids=(texts, patients))
    assert (dealt.batches_of_epoch(2) == expected.batches_of_epoch(2)).all()
    assert dealt.upsampling is None and repeated.text_and_patient_ids is None


def test_several_texts_are_upsampled_and_dealt_as_more_pairs(splits):
    train = splits["train"]
    texts, patients = text_and_patient_ids(train)
    dealt = plan_batches(train, TrainingSet(texts_per_pair=3, balance=["sampler"]), 8, seed=0)
    expected = EpochBatches(3 * len(train), 8, seed=0, text_and_patient_ids=(np.tile(texts, 3), np.tile(patients, 3)))
    assert (dealt.batches_of_epoch(1) == expected.batches_of_epoch(1)).all()
    counts = np.bincount([label for (label,) in train["labels"]])
    repeated = plan_batches(train, TrainingSet(texts_per_pair=3, balance=["upsample"]), 8, seed=0)
    assert repeated.upsampling.rows_of_class.tolist() == [3 * counts.max()] * 2


def test_the_pair_of_the_paper_is_evened_out_where_it_divides_the_rows():
    names = ["LBP", "disc bulge", "No Finding"]

    def labelled(*labels):
        return Dataset.from_dict({"labels": list(labels)}, features=Features({"labels": List(ClassLabel(names=names))}))

    assert classes_to_balance(labelled([0], [0, 1], [2])).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert classes_to_balance(labelled([0], [1], [2])).tolist() == np.eye(3).tolist()
    assert classes_to_balance(labelled([0, 1], [], [2])).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


@pytest.mark.parametrize("labels", [[[], []], [None, None]])
def test_upsampling_without_labels_warns_and_repeats_nothing(labels, caplog):
    batches = plan_batches(graded(labels, [None, None]), TrainingSet(balance=["upsample"]), 1, seed=0)
    assert batches.upsampling is None and len(batches) == 2
    assert "none of the 2 training pairs has a label" in caplog.text and "--labels_from_reports" in caplog.text


@pytest.mark.parametrize("offline", [ConnectionError("Couldn't reach"), OfflineModeIsEnabled("offline")])
def test_a_misspelled_folder_is_not_looked_for_on_the_hub_without_a_word(tmp_path, monkeypatch, offline):
    """`data/smal` could be the id of a dataset on the Hub, which then is out of reach."""
    (tmp_path / "data" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=offline))
    with pytest.raises(
        ValueError, match=r"No dataset 'data/smal': .*--out data/smal`\. Did you mean data/small\? .*Hub"
    ):
        open_dataset("data/smal")


def test_missing_data_sets_and_splits_are_named(tmp_path, tiny_dataset_folder):
    with pytest.raises(ValueError, match="No dataset.*data_scripts.build") as told:
        open_dataset(str(tmp_path / "nowhere"))
    assert "Did you mean" not in str(told.value)
    (tmp_path / "small").mkdir()
    with pytest.raises(ValueError, match=rf"No dataset '{tmp_path}/smal':.*Did you mean {tmp_path}/small\?"):
        open_dataset(str(tmp_path / "smal"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes((tiny_dataset_folder / "data" / "train.parquet").read_bytes())
    with pytest.raises(ValueError, match="no split validation, test"):
        open_dataset(str(tmp_path))
    for split in ("train", "validation", "test"):
        Dataset.from_parquet(str(tiny_dataset_folder / "data" / f"{split}.parquet")).remove_columns(
            "study_id"
        ).to_parquet(tmp_path / "data" / f"{split}.parquet")
    with pytest.raises(ValueError, match="lacks the columns study_id"):
        open_dataset(str(tmp_path))
    with pytest.raises(ValueError, match=r"has no data/\*\.parquet: it is not a dataset"):  # its parts would be joined
        open_dataset(str(tmp_path / "data"))
