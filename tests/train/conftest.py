"""What the tests of training share."""

import shutil
from pathlib import Path

import pytest
import torch

from train.checkpoints.checkpoint import save_checkpoint


@pytest.fixture
def one_thread():
    """As the launched processes have: more threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def any_number_is_ranked():
    """Systems are compared on the few patients of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.evaluation.statistics.minima.PATIENTS_TO_RANK", 1)
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tmp_path_factory.mktemp("saved") / "checkpoint"


@pytest.fixture
def checkpoint(saved, tiny_model, tiny_processor, tmp_path):
    """A copy of a small checkpoint, to change."""
    if not saved.exists():
        save_checkpoint(tiny_model, tiny_processor, saved)
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))
