from data_scripts.leaks import leaks_of
from tests.data_scripts.made_rows import LEAKS, dataset_of, row, splits


def test_the_quick_form_finds_ids_and_files_and_counts_each_row():
    assert [leak.kind for leak in leaks_of(splits(**LEAKS["patient"])).leaks] == ["patient"]
    assert [leak.kind for leak in leaks_of(splits(**LEAKS["study"])).leaks] == ["study"]
    assert not leaks_of(splits(**LEAKS["image"])).found  # stored anew: only the audit decodes
    same_file = dataset_of(train=[row(1), row(2), row(2)], validation=[row(3)], test=[row(2), row(4)])
    found = leaks_of(same_file)
    assert {leak.kind: leak.rows for leak in found.leaks} == {
        kind: {"train": 2, "test": 1} for kind in ("patient", "study", "image")
    }
    assert found.in_words().startswith("1 patient in several splits (rows: train 2, test 1); 1 study")
