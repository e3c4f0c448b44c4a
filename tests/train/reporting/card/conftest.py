import pytest

from train.reporting.card import model_card


@pytest.fixture(autouse=True)
def without_weights(monkeypatch):
    """Skip the comparison with the weights, which made runs do not have; `monkeypatch.undo()` restores it."""
    monkeypatch.setattr(model_card, "check_same_weights", lambda checkpoint, digest: None)
