import pytest
from datasets import load_dataset

from train.evaluation.targets import read_targets


def test_reads_labels_patients_and_exclusiveness(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))
    targets = read_targets(dataset)
    test = targets["test"]
    assert test.exclusive
    assert test.label_names == ("LBP", "No Finding")
    assert test.findings == [0]
    assert len(test) == len(set(zip(test.patient_ids, dataset["test"]["source"][:], strict=True)))
    assert [[k] for k in test.classes] == dataset["test"]["labels"][:]
    assert (test.grades == -1).all()


def test_a_row_without_labels_makes_the_set_multi_label(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))
    dataset["train"] = dataset["train"].map(lambda row, i: {"labels": row["labels"] if i else []}, with_indices=True)
    targets = read_targets(dataset)
    assert not targets["test"].exclusive
    assert not targets["train"].labels[0].any()


def test_a_missing_or_empty_split_is_named(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))
    dataset["validation"] = dataset["validation"].select([])
    with pytest.raises(ValueError, match="`validation` has none"):
        read_targets(dataset)
