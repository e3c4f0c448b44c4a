import numpy as np

from data_scripts import dicom_headers
from data_scripts.dicom import read_headers
from data_scripts.dicom_headers import read_all_headers
from data_scripts.images import UnusableImageError
from tests.data_scripts.dicom_files import draw_pixels, make_dicom


def test_several_processes_give_what_one_gives_in_order(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number:03}.ima" for number in range(12)]
    for number, path in enumerate(paths):
        make_dicom(path, draw_pixels(np.uint8, 8), InstanceNumber=number + 1, series_description=f"T2 {number}")
    paths[1].write_bytes(b"no DICOM")
    paths[9].write_bytes(paths[9].read_bytes()[:-700])
    paths.insert(11, tmp_path / "missing.ima")
    # Two files here, the others in two processes, a few at a time.
    monkeypatch.setattr(dicom_headers, "NUM_READ_HERE", 2)
    monkeypatch.setattr(dicom_headers, "_CHUNK_FILES", 3)
    alone, together = list(read_all_headers(paths, 1)), list(read_all_headers(paths, 2))
    assert [str(outcome) for outcome in together] == [str(outcome) for outcome in alone]
    for path, outcome in zip(paths, together, strict=True):
        if path.name in ("001.ima", "009.ima", "missing.ima"):
            assert isinstance(outcome, UnusableImageError)
        else:
            assert outcome == read_headers(path)
    assert "truncated" in str(together[9])


def test_no_files_need_no_process():
    assert list(read_all_headers([], 8)) == []
