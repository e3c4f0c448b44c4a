import numpy as np
import pytest

from data_scripts.auditing.audit_report import class_shares, standardised_difference
from tests.data_scripts.made_rows import dataset_of, row


def test_class_shares_by_hand():
    data = dataset_of(
        train=[row(n, labels=["LBP"] if n < 3 else [], grade="1") for n in range(4)],
        test=[row(n, labels=["LBP"], grade="2" if n else None) for n in range(5, 9)],
    )
    entries = {(entry["column"], entry["name"]): entry for entry in class_shares(data)}
    assert ("labels", "No Finding") not in entries
    lbp = entries["labels", "LBP"]
    assert lbp["shares"] == {"train": 0.75, "test": 1.0}
    assert lbp["differences"]["test"] == pytest.approx(0.25 / np.sqrt(0.75 * 0.25 / 2))
    assert entries["grade", "1"]["differences"] == {"train": 0.0, "test": None}
    assert standardised_difference(0.2, 0.2) == 0
