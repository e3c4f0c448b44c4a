from functools import partial

import pytest

from tests.data_scripts.sources.lsma_pqr.lsma_folder import make_lsma


@pytest.fixture
def lsma(tmp_path):
    """Make a folder of LSMA-PQR."""
    return partial(make_lsma, tmp_path / "raw")
