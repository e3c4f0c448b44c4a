"""What the tests of training share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """As the launched processes have: more threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
