"""One process for a folder, however the one before it ended."""

import errno
import os
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest

from data_scripts.system.staging import holds_nothing, only_process, staging_folder
from tests.conftest import PROJECT

HOLDER = """
import sys, time
from pathlib import Path
from data_scripts.system.staging import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_ends_or_dies(tmp_path):
    folder = tmp_path / "runs" / "mine"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        for _ in range(2):  # being refused takes nothing from the first
            refused = pytest.raises(ValueError, match=f"another process is writing to {folder}; wait for it")
            with refused, only_process(folder):
                pytest.fail("two processes")
        first.send_signal(signal.SIGKILL)
    assert holds_nothing(folder)
    with only_process(folder):
        (folder / "results").touch()
        with pytest.raises(ValueError, match="another process"), only_process(folder):
            pytest.fail("two")
    assert [path.name for path in folder.iterdir()] == ["results"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog, number):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, os.strerror(number))))
    with only_process(tmp_path / "run"):
        (tmp_path / "run" / "results").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results"]
    with staging_folder(tmp_path / "out") as folder:
        assert folder.is_dir()
    assert [record.args[0] for record in caplog.records] == [tmp_path / "run", folder]


def test_a_folder_is_made_only_for_something(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new", "new/in/new"):
        with pytest.raises(ZeroDivisionError), only_process(tmp_path / name):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"), only_process(tmp_path / "file"):
        pytest.fail("a file")
