import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from datasets import load_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_scripts.imaging.dicom import read_headers, read_slice
from data_scripts.imaging.dicom_reading import BoundedReader
from data_scripts.imaging.images import UnusableImageError
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom
from tests.data_scripts.imaging.dicom_mutants import mutants

PROJECT = Path(__file__).parents[3]
MAX_PEAK_MIB = 1024
UNDEFINED = 0xFFFFFFFF
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
PIXEL_TAG = struct.pack("<HH", 0x7FE0, 0x0010)


def element(group, number, vr, value, length=None):
    length = len(value) if length is None else length
    if vr in ("SQ", "UN", "UT", "OB"):
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, length) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), length) + value


def rows_and_columns(rows, columns):
    return struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, rows) + struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, columns)


@pytest.fixture
def parts(tmp_path):
    """A good file in two parts, before and from its pixels."""

    def make(syntax=ExplicitVRLittleEndian, **tags):
        make_dicom(tmp_path / "good", draw_pixels(np.uint16, 12, (64, 64)), transfer_syntax=syntax, **tags)
        content = (tmp_path / "good").read_bytes()
        at = content.rindex(PIXEL_TAG)
        return content[:at], content[at:]

    return make


def refuses(path, content, reason, read=read_slice):
    path.write_bytes(content)
    with pytest.raises(UnusableImageError, match=reason) as caught:
        read(path)
    assert str(path.parent) not in str(caught.value)


def test_files_that_are_no_slices(tmp_path, parts):
    start, pixels = parts()
    for content, reason in [
        (b"", "no DICOM image|unreadable"),
        (b"not a DICOM file" * 100, "no DICOM image|unreadable|not read"),
        (np.random.default_rng(0).bytes(100_000), "no DICOM image|unreadable|not read"),
        (start, "no pixels"),
        (start + pixels[:-1], "8191 of 8192 bytes"),
        (start + pixels[:8], "0 of 8192 bytes|no pixels|unreadable"),
        (start.replace(rows_and_columns(64, 64), b""), "Rows is 'None'"),
        (start.replace(rows_and_columns(64, 64), rows_and_columns(0, 64)) + pixels, "Rows is '0'"),
        (start.replace(rows_and_columns(64, 64), rows_and_columns(65, 64)) + pixels, "8192 of 8320 bytes"),
        (start.replace(rows_and_columns(64, 64), rows_and_columns(65535, 65535)) + pixels, "65535 x 65535"),
        (start + element(0x10, 0x4000, "UT", b"x" * 50, 0xFFFFFFF0), "no pixels"),
    ]:
        content = content + pixels if reason.startswith("Rows is 'None") else content
        for read in (read_headers, read_slice):
            refuses(tmp_path / "bad", content, reason, read)
    with pytest.raises(UnusableImageError, match="missing image: no file 'absent'"):
        read_slice(tmp_path / "absent")
    with pytest.raises(UnusableImageError, match="missing image"):
        read_slice(tmp_path)


@pytest.mark.parametrize("frames", ["2147483648", "0", "-3", "2"])
def test_more_frames_than_pixels(tmp_path, parts, frames):
    start, pixels = parts()
    at = start.index(rows_and_columns(64, 64))
    lying = start[:at] + element(0x28, 0x08, "IS", frames.encode() + b" " * (len(frames) % 2)) + start[at:] + pixels
    for read in (read_headers, read_slice):
        refuses(tmp_path / "bad", lying, "frames|8192 of 16384 bytes", read)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_compressed_frames_that_lie(tmp_path, parts, syntax):
    start, pixels = parts(syntax)
    larger = start.replace(rows_and_columns(64, 64), rows_and_columns(8192, 4096))
    refuses(tmp_path / "bad", larger + pixels, "compressed frame is|unreadable")
    if syntax != RLELossless:  # whose surplus cannot be told from padding
        smaller = start.replace(rows_and_columns(64, 64), rows_and_columns(64, 32))
        refuses(tmp_path / "bad", smaller + pixels, "compressed frame is")
    for length in range(100, len(pixels) - 10, len(pixels) // 9):
        reason = "unreadable" if syntax == RLELossless else "compressed frame has no end"
        refuses(tmp_path / "bad", start + pixels[:length], reason)


def test_pixels_too_long_to_be_meant(tmp_path):
    for spacing in [(0.001, 0.5), (0.5, 1e6)]:
        make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), spacing=spacing)
        for read in (read_headers, read_slice):
            with pytest.raises(UnusableImageError, match="implausible pixel spacing"):
                read(tmp_path / "a")


def test_deflate_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("data_scripts.imaging.dicom_reading.MAX_INFLATED_BYTES", 2**20)
    make_dicom(tmp_path / "good", draw_pixels(np.uint16, 12), transfer_syntax=DeflatedExplicitVRLittleEndian)
    whole = (tmp_path / "good").read_bytes()
    deflated_at = 132 + 12 + int.from_bytes(whole[140:144], "little")
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = compressor.compress(bytes(2**24)) + compressor.flush()
    assert len(bomb) < 2**15
    refuses(tmp_path / "bad", whole[:deflated_at] + bomb, "unpacks to more than 1 MiB")
    refuses(tmp_path / "bad", whole[:-9], "truncated")


def test_reading_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with (tmp_path / "a").open("rb") as file:
        reader = BoundedReader(file, "a")
        assert reader.read(3) == bytes(range(3)) and reader.num_bytes_left == 97
        assert reader.read(2**40) == bytes(range(3, 100)) and reader.read() == b""
        monkeypatch.setattr("data_scripts.imaging.dicom_reading.MAX_READS", 2)
        reader = BoundedReader(file, "a")
        assert len(reader.read(1) + reader.read(1)) == 2
        with pytest.raises(UnusableImageError, match="too large"):
            reader.read(1)
        monkeypatch.setattr("data_scripts.imaging.dicom_reading.MAX_READ_BYTES", 50)
        with pytest.raises(UnusableImageError, match="too large"):
            BoundedReader(file, "a").read(51)


def item(content):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def frame_of_many_numbers(number):
    position = element(0x0020, 0x9113, "SQ", item(element(0x0020, 0x0032, "UT", b"1\\" * 4 * number)))
    return element(0x5200, 0x9230, "SQ", item(position))


# Each makes pydicom build far more than the file's size, by the million or without end, unless it is stopped.
BOMBS = {
    "items of no length": lambda number: element(0x5400, 0x0100, "SQ", EMPTY_ITEM * number, UNDEFINED),
    "frames of no length": lambda number: element(0x5200, 0x9230, "SQ", EMPTY_ITEM * number),
    "zeros for items": lambda number: element(0x5400, 0x0100, "SQ", bytes(8 * number), UNDEFINED),
    "lookup tables": lambda number: element(0x0028, 0x3010, "SQ", EMPTY_ITEM * number),
    "nested": lambda number: (element(0x5400, 0x0100, "SQ", b"", UNDEFINED) + OPEN_ITEM) * (number // 10),
    "numbers": lambda number: element(0x0028, 0x1050, "UT", b"1\\" * 4 * number),
    "numbers of a frame": frame_of_many_numbers,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_header_bombs(tmp_path, parts, name):
    start, pixels = parts()
    (tmp_path / "bomb").write_bytes(start + BOMBS[name](1_500_000) + pixels)
    outcome, peak_mib = run_outcome(tmp_path / "bomb")
    assert outcome == "unusable"
    assert peak_mib < MAX_PEAK_MIB


def run_outcome(path):
    code = (
        "import sys; from pathlib import Path; from tests.data_scripts.imaging.dicom_mutants import outcome, peak_mib\n"
    )
    code += "print(outcome(Path(sys.argv[1]))); print(peak_mib())"
    return run("-c", code, str(path))


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *_, outcome, peak = done.stdout.splitlines()
    return outcome, float(peak)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_broken_files_give_an_image_of_the_stated_size_or_a_reason(count):
    outcomes, peak_mib = run("-m", "tests.data_scripts.imaging.dicom_mutants", str(count))
    counted = json.loads(outcomes)
    assert set(counted) == {"image", "unusable"}
    assert sum(counted.values()) == count and counted["image"] >= count // 10
    assert peak_mib < MAX_PEAK_MIB


@pytest.mark.slow
def test_a_build_names_every_broken_file(tmp_path, built):
    raw, notes = tmp_path / "raw", openpyxl.Workbook()
    notes.active.append(["Patient ID", "Clinician's Notes"])
    for patient in range(1, 21):
        notes.active.append([patient, "Disc bulge at L4-L5."])
    for number, content in enumerate(mutants(tmp_path, 500)):
        path = raw / f"{number % 20 + 1:04}" / "L-SPINE" / "T2_TSE_TRA_384_0005" / f"{number:03}.ima"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    notes.save(raw / "Radiologists Report.xlsx")
    report = built(raw, source="mendeley", max_bad=1.0, num_proc=2)
    written = [row["source"] for split in load_dataset(str(tmp_path / "out")).values() for row in split]
    listed = {exclusion["source"]: exclusion["reason"] for exclusion in report["exclusions"]}
    assert all(listed.values()) and len(listed) == len(report["exclusions"])
    for path in raw.rglob("*.ima"):
        name = f"Mendeley/{path.parts[-4]}/study-1/{path.parts[-2]}/{path.name}"
        sources = {source for source in (*written, *listed) if source.split(" frame ")[0] == name}
        assert sources, name
