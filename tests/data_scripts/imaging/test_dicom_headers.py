import multiprocessing
import os
import signal

import numpy as np

from data_scripts.imaging import dicom_headers
from data_scripts.imaging.dicom import read_headers
from data_scripts.imaging.dicom_headers import read_all_headers
from data_scripts.imaging.images import UnusableImageError
from data_scripts.system.worker_pool import Workers
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom


def test_several_processes_give_what_one_gives_in_order(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number:03}.ima" for number in range(12)]
    for number, path in enumerate(paths):
        make_dicom(path, draw_pixels(np.uint8, 8), InstanceNumber=number + 1, series_description=f"T2 {number}")
    paths[1].write_bytes(b"no DICOM")
    paths[9].write_bytes(paths[9].read_bytes()[:-700])
    paths.insert(11, tmp_path / "missing.ima")
    # Two files here, the others in two processes.
    monkeypatch.setattr(dicom_headers, "NUM_READ_HERE", 2)
    alone = list(read_all_headers(paths, 1))
    with Workers(2):  # as in a build: their server, which lasts, has imported everything
        together = list(read_all_headers(paths, 2))
    assert [str(outcome) for outcome in together] == [str(outcome) for outcome in alone]
    for path, outcome in zip(paths, together, strict=True):
        if path.name in ("001.ima", "009.ima", "missing.ima"):
            assert isinstance(outcome, UnusableImageError)
        else:
            assert outcome == read_headers(path)
    assert "truncated" in str(together[9])


def test_no_files_need_no_process():
    assert list(read_all_headers([], 8)) == []


def test_a_killed_process_costs_no_header(tmp_path, monkeypatch):
    path = tmp_path / "0.ima"
    make_dicom(path, draw_pixels(np.uint8, 8))
    monkeypatch.setattr(dicom_headers, "NUM_READ_HERE", 1)
    before = set(multiprocessing.active_children())
    outcomes = read_all_headers([path] * 2_000, 2)
    assert [next(outcomes), next(outcomes)] == 2 * [read_headers(path)]  # one of this process, one of the others
    os.kill((set(multiprocessing.active_children()) - before).pop().pid, signal.SIGKILL)
    assert list(outcomes) == 1_998 * [read_headers(path)]
