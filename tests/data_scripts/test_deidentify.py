import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_scripts import deidentify
from data_scripts.deidentify import deidentify_folder, main
from data_scripts.imaging.dicom import SliceHeader, read_headers, read_slice
from data_scripts.privacy.dicom_profile import identifying_elements
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.system import command_line
from tests.data_scripts.imaging.dicom_files import make_dicom

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
]
PIXELS = (np.add.outer(np.arange(64), np.arange(64)) * 30).astype(np.uint16)


@pytest.fixture
def export(tmp_path) -> Path:
    """Two patients in folders of their names, a slice in each transfer syntax, and a file that is no slice."""
    raw = tmp_path / "export"
    for number, syntax in enumerate(SYNTAXES):
        for patient in ("Salem_Ahmad", "Haddad_Omar"):
            path = raw / f"{patient}_1961-04-02" / f"slice{number}"
            make_dicom(
                path,
                PIXELS + number,
                transfer_syntax=syntax,
                patient_id=patient,
                position=(0, 0, 4 * number),
                PatientBirthDate="19610402",
                InstitutionName="Salem Hospital",
                SeriesDescription="T2 TSE TRA Salem",
            )
    (raw / "list.txt").write_text("Salem, Ahmad")
    return raw


def run(raw: Path, out: Path, key_file: Path | None = None, **options) -> dict[str, str]:
    pseudonyms = Pseudonyms.from_file(key_file) if key_file else Pseudonyms.random()
    return deidentify_folder(raw, out, pseudonyms, **options)


def series_below(folder: Path) -> dict[tuple[str, ...], list[SliceHeader]]:
    series: dict[tuple[str, ...], list[SliceHeader]] = {}
    for path in folder.rglob("*"):
        for header in read_headers(path) if path.is_file() and path.suffix != ".txt" else []:
            series.setdefault((header.patient_id, header.study_id, header.series_id), []).append(header)
    return series


def test_copies_name_no_one_and_show_the_same(export, tmp_path):
    outcomes = run(export, tmp_path / "out")
    assert outcomes.pop("list.txt") == "left out: not a DICOM file"
    assert set(outcomes.values()) == {"written"} and len(outcomes) == 14
    copies = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(copies) == 14
    for path in copies:
        content = path.read_bytes() + path.relative_to(tmp_path).as_posix().encode()
        assert not any(secret in content for secret in (b"Salem", b"Ahmad", b"Haddad", b"19610402", b"1961-04-02"))
        assert identifying_elements(dcmread(path)) == []
    shown = lambda folder: sorted(  # noqa: E731
        read_slice(path).tobytes() for path in folder.rglob("*") if path.suffix != ".txt" and path.is_file()
    )
    assert shown(tmp_path / "out") == shown(export)
    assert json.loads((tmp_path / "out.files.json").read_text())["list.txt"].startswith("left out")


def test_only_the_owner_reads_the_list_of_old_names_at_any_moment(export, tmp_path, monkeypatch):
    """Not even while it is written, nor if everyone could read an older list or the remains of a killed run."""
    for name in ("out.files.json", ".out.files.json.unfinished"):
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(0o644)
    modes = []
    replace = Path.replace

    def noting_mode(path, to):
        if to.name == "out.files.json":
            modes.append(path.stat().st_mode)
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", noting_mode)
    umask = os.umask(0)
    try:
        run(export, tmp_path / "out")
    finally:
        os.umask(umask)
    assert [mode & 0o777 for mode in (*modes, (tmp_path / "out.files.json").stat().st_mode)] == [0o600, 0o600]


def test_series_stay_together_and_the_key_gives_the_same_names(export, tmp_path):
    run(export, tmp_path / "first", key_file=tmp_path / "key")
    run(export, tmp_path / "second", key_file=tmp_path / "key")
    run(export, tmp_path / "third")
    names = [
        sorted(path.relative_to(tmp_path / out).as_posix() for path in (tmp_path / out).rglob("*.dcm"))
        for out in ("first", "second", "third")
    ]
    assert names[0] == names[1] and not set(names[0]) & set(names[2])
    before, after = series_below(export), series_below(tmp_path / "first")
    assert len(before) == len(after) == 2
    for headers in after.values():
        assert {(header.sequence, header.plane) for header in headers} == {("T2", "axial")}
        assert {header.corner_mm for header in headers} == {(0, 0, 4 * number) for number in range(len(SYNTAXES))}


def test_text_in_the_pixels_is_left_out_unless_wanted(tmp_path):
    raw = tmp_path / "raw"
    image = Image.new("L", (256, 256))
    ImageDraw.Draw(image).text((4, 4), "SALEM AHMAD 1961", fill=255, font_size=14)
    make_dicom(raw / "drawn.dcm", np.asarray(image))
    make_dicom(raw / "said.dcm", PIXELS, BurnedInAnnotation="YES")
    make_dicom(raw / "clean.dcm", PIXELS)
    outcomes = run(raw, tmp_path / "out")
    assert "text may be burnt into the pixels of frame 0" in outcomes["drawn.dcm"]
    assert "the header says" in outcomes["said.dcm"] and outcomes["clean.dcm"] == "written"
    assert set(run(raw, tmp_path / "all", keep_burnt_in=True).values()) == {"written"}


def test_hostile_files_are_listed(export, tmp_path):
    random = np.random.default_rng(0)
    content = (export / "Salem_Ahmad_1961-04-02" / "slice0").read_bytes()
    for number in range(60):
        mutated = bytearray(content[: random.integers(200, len(content))] if number % 2 else content)
        for position in random.integers(132, len(mutated), 20):
            mutated[position] = random.integers(256)
        (export / f"broken{number}.dcm").write_bytes(mutated)
    outcomes = run(export, tmp_path / "out")
    assert len(outcomes) == 75 and all(said == "written" or said.startswith("left out: ") for said in outcomes.values())
    for path in (tmp_path / "out").rglob("*.dcm"):
        held = [secret for secret in (b"Salem", b"Ahmad", b"19610402") if secret in path.read_bytes()]
        assert not held, (held, dcmread(path))


def test_what_cannot_be_done_is_said(export, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "empty").mkdir()
    for raw, out, message in (
        (tmp_path / "none", tmp_path / "out", "is not a folder"),
        (export, tmp_path / "there", "exists"),
        (export, export / "out", "lies within --raw"),
        (tmp_path / "empty", tmp_path / "out", "the folder is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            run(raw, out)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    words = ["--raw", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--key_file", str(tmp_path / "key")]
    assert command_line.run(main, words) == 2 and not (tmp_path / "key").exists()
    assert command_line.run(main, ["--raw", str(export), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "14 of 15 files written" in printed and "1 left out: not a DICOM file" in printed
    assert "Salem" not in printed


def test_a_full_disk_ends_it_and_leaves_nothing(export, tmp_path, monkeypatch):
    """A file that could not be written is not listed as left out; with room again, all are written."""
    written = Path.write_bytes

    def full_after_three(path, content):
        if len(list(tmp_path.rglob("*.dcm"))) == 3:
            written(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, content)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(Path, "write_bytes", full_after_three)
        run(export, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert list(run(export, tmp_path / "out").values()).count("written") == 14


def test_the_list_is_complete_before_the_copies_get_their_name(export, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(deidentify, "write_private_json", full)
        run(export, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_text_is_listed(export, tmp_path):
    name = os.fsdecode(b"caf\xe9.dcm")
    shutil.copy(export / "Salem_Ahmad_1961-04-02" / "slice0", export / name)
    assert command_line.run(main, ["--raw", str(export), "--out", str(tmp_path / "out")]) == 0
    listed = json.loads((tmp_path / "out.files.json").read_text())
    assert listed[name] in ("written", "left out: another file has the same SOP instance UID")
