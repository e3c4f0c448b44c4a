import pytest
from datasets import load_dataset

from train.data.leak_check import check_leaks, leak_stamp


@pytest.fixture
def dataset(tiny_dataset_folder):
    return load_dataset(str(tiny_dataset_folder))


def test_splits_by_patient_pass(dataset):
    check_leaks(dataset, allow_leaks=False)
    assert leak_stamp(dataset) is None


def test_shared_patients_are_refused_unless_wanted_and_stamped(dataset):
    dataset["test"] = dataset["train"].select(range(4))
    with pytest.raises(ValueError, match=r"1 patient in several splits \(rows: train 4, test 4\).*--allow_leaks"):
        check_leaks(dataset, allow_leaks=False)
    check_leaks(dataset, allow_leaks=True)
    stamp = leak_stamp(dataset)
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
        check_leaks(dataset, allow_leaks=False)
    assert list(leak_stamp(dataset)) == ["in_words", "near-identical image"]
