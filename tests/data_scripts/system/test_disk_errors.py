"""A full disk is recognised in any library's error, and reported in one line."""

import errno
import os
import pickle
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.numpy import save_file

from data_scripts.system.command_line import run, setting
from data_scripts.system.disk_errors import disk_error, full_disk_error, full_disk_in_words, is_disk_full
from data_scripts.system.whole_files import write_bytes
from data_scripts.system.worker_pool import _sendable

FULL = OSError(errno.ENOSPC, "No space left on device")
NOISE = np.random.default_rng(0).integers(0, 255, (512, 512), dtype=np.uint8)  # that cannot be compressed


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


WRITERS = {
    "python": lambda path: path.write_bytes(NOISE),
    "safetensors": lambda path: save_file({"x": NOISE}, path),
    "torch": lambda path: torch.save(torch.tensor(NOISE), path),
    "torch, a handle": lambda path: torch.save(torch.tensor(NOISE), path.open("wb")),
    "arrow": lambda path: pq.write_table(pa.table({"x": NOISE.ravel()}), path),
    "pillow": lambda path: Image.fromarray(NOISE).save(path, format="PNG"),
    "datasets": lambda path: Dataset.from_dict({"x": NOISE.ravel()}).to_parquet(path),
    "datasets, a generator": lambda path: Dataset.from_generator(
        lambda: ({"x": bytes(NOISE)} for _ in range(2)), cache_dir=str(path.parent)
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_behind_the_errors_of_libraries(full_disk, writer):
    with pytest.raises(Exception) as raised:
        WRITERS[writer](full_disk / "file")
    found = full_disk_error(raised.value)
    assert found is not None and found.errno == errno.ENOSPC


def test_a_full_disk_is_named_with_the_room_on_it(full_disk, tmp_path):
    @dataclass
    class Settings:
        raw: str = str(tmp_path)
        out: str = str(full_disk / "not" / "yet")

    (full_disk / "file").write_bytes(bytes(60_000))
    said = full_disk_in_words(FULL, Settings())  # the error names no file: the fullest of the folders
    assert said.startswith(f"Cannot write to {full_disk}: No space left on device (0.0 MB free on its disk).")
    with pytest.raises(OSError, match="No space left") as raised:
        write_bytes(full_disk / "other", bytes(60_000))
    assert full_disk_in_words(raised.value, Settings()) == said
    assert [path.name for path in full_disk.iterdir()] == ["file"]
    (tmp_path / "whole").write_bytes(bytes(60_000))
    with pytest.raises(OSError, match="No space left") as raised:
        shutil.copyfile(tmp_path / "whole", full_disk / "copy")  # its error names both
    assert full_disk_in_words(raised.value, Settings()) == said


def test_a_full_disk_in_another_process_or_quoted():
    assert is_disk_full(FULL) and not is_disk_full(OSError(errno.EACCES, "no"))
    assert is_disk_full(OSError(errno.EDQUOT, "quota")) and is_disk_full(OSError(errno.EFBIG, "ulimit"))
    assert is_disk_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1178112 vs 1178000"))
    assert is_disk_full(OSError("Not enough disk space. Needed: Unknown size (download: 0 bytes)"))
    wrapped = RuntimeError("could not save")
    wrapped.__context__ = FULL
    assert is_disk_full(wrapped) and not is_disk_full(RuntimeError("could not save"))
    try:
        raise ValueError("An error occurred while generating the dataset") from FULL
    except ValueError as error:
        assert is_disk_full(pickle.loads(pickle.dumps(_sendable(error))))  # as a worker sends it: without its cause


def test_other_errors_of_the_disk_name_path_and_reason(tmp_path):
    cases = {
        "Is a directory": lambda: tmp_path.write_bytes(b""),
        "Not a directory": lambda: write_bytes(tmp_path / "file" / "below", b""),
        "File name too long": lambda: write_bytes(tmp_path / ("x" * 300), b""),
        "No such file or directory": lambda: write_bytes(tmp_path / "none" / "file", b""),
    }
    (tmp_path / "file").touch()
    for reason, write in cases.items():
        with pytest.raises(OSError, match=reason) as raised:
            write()
        said = disk_error(raised.value)
        assert said is not None and said.startswith(str(tmp_path)) and said.endswith(f": {reason}")
    assert disk_error(RuntimeError("Permission denied (os error 13)")) == "Permission denied"
    assert disk_error(KeyError("a bug")) is None
    bug = KeyError("a bug, while an error of the disk was handled")
    bug.__context__ = OSError(errno.EACCES, os.strerror(errno.EACCES), "file")
    assert disk_error(bug) is None


@dataclass
class Fill:
    """Fill a disk."""

    out: str = setting("", "Folder.")


def fill(args: Fill) -> None:
    raise RuntimeError("Error while serializing") from FULL


def test_a_command_ends_in_one_line(tmp_path, capsys):
    assert run(fill, ["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: Cannot write to ") and said.count("\n") == 1 and "MB free on its disk" in said
