"""What a stranger's process answers is compared with all that was recorded."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from train.publishing import clean_process
from train.publishing.clean_process import check_loadable

ANSWER = """
import sys
import numpy as np
from safetensors.numpy import save_file
save_file({{name: np.ones((2, 3), np.float32) for name in {names}}}, sys.argv[3])
"""


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Answer by these names, in a process that loads no model, where `first` and `second` were recorded."""
    golden = tmp_path / "golden.safetensors"
    ones = np.ones((2, 3), np.float32)
    save_file({"input.pixel_values": ones, "output.first": ones, "output.second": ones}, golden)
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.setattr(clean_process, "SCRIPT", tmp_path / "answer.py")

    def compare(*names):
        (tmp_path / "answer.py").write_text(ANSWER.format(names=names))
        check_loadable(tmp_path / "checkpoint", golden)

    return compare


def test_an_output_that_was_not_recorded_is_no_fault(answer):
    answer("first", "second", "third")


@pytest.mark.parametrize("names", [("first",), ("first", "third"), ()])
def test_an_output_that_is_no_longer_given_is_refused(answer, names):
    with pytest.raises(ValueError, match="its (first|second) differs by inf"):
        answer(*names)
