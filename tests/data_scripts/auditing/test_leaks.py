import pytest

from data_scripts.auditing.leaks import leaks_of
from tests.data_scripts.made_rows import LEAKS, dataset_of, row, splits


@pytest.mark.parametrize("kind", LEAKS)
def test_each_kind_is_found_alone(kind):
    assert [leak.kind for leak in leaks_of(splits(**LEAKS[kind])).leaks] == [kind]


def test_each_row_is_counted():
    same_file = dataset_of(train=[row(1), row(2), row(2)], validation=[row(3)], test=[row(2), row(4)])
    found = leaks_of(same_file)
    assert {leak.kind: leak.rows for leak in found.leaks} == {
        kind: {"train": 2, "test": 1} for kind in ("patient", "study", "image")
    }
    assert found.in_words().startswith("1 patient in several splits (rows: train 2, test 1); 1 study")
