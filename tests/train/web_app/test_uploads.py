"""Uploads: what is read, what is refused in which words, and that files go."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from data_scripts.imaging.dicom import read_headers, read_slice
from data_scripts.imaging.images import UnusableImageError, grey_8bit
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom
from train.web_app import uploads
from train.web_app.uploads import HeldUploads, Slice, UnusableUploadError, Upload, read_study, read_upload


def unchanged(image):
    """How a model sees a slice that it neither pads nor resizes."""
    return image.copy()


def test_a_16_bit_png_is_windowed_as_a_build_would(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 50), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    (slice_,) = read_upload(tmp_path / "slice.png", unchanged).slices
    expected = grey_8bit(Image.fromarray(pixels))
    assert np.array_equal(np.asarray(slice_.image), np.asarray(expected))
    assert slice_.name == "slice.png"


def test_a_dicom_slice_is_read_whatever_its_name_and_tells_no_identity(tmp_path):
    private = Dataset()
    private.add_new(0x00110010, "LO", "ACME 1.0")
    private.add_new(0x00111001, "LO", "SECRET-PRIVATE-VALUE")
    path = tmp_path / "image"
    dataset = make_dicom(path, draw_pixels(np.uint16, 12, (64, 64)), bits_stored=12, patient_id="MRN-4711")
    dataset.update(private)
    dataset.save_as(path)
    upload = read_upload(path, unchanged)
    (slice_,) = upload.slices
    assert np.array_equal(np.asarray(slice_.image), np.asarray(read_slice(path)))
    assert slice_.facts == "axial · T2 · 0.69 mm per pixel"
    assert slice_.header == {"plane": "axial", "sequence": "T2", "anatomy": "unknown"}
    for secret in ("SECRET", "MRN-4711", "Doe"):
        assert secret not in repr(upload)


def test_each_frame_of_a_dicom_file_is_a_slice(tmp_path):
    make_dicom(tmp_path / "several.dcm", draw_pixels(np.uint8, 8, (3, 40, 40)))
    upload = read_upload(tmp_path / "several.dcm", unchanged)
    assert [slice_.name for slice_ in upload.slices] == [f"several.dcm, frame {n}" for n in (1, 2, 3)]
    last = read_slice(tmp_path / "several.dcm", 2)
    assert np.array_equal(np.asarray(upload.slices[2].image), np.asarray(last))


def test_of_too_many_frames_the_first_are_taken_and_it_is_said(tmp_path, monkeypatch):
    make_dicom(tmp_path / "several.dcm", draw_pixels(np.uint8, 8, (5, 40, 40)))
    monkeypatch.setattr("train.web_app.uploads.MAX_FRAMES", 2)
    upload = read_upload(tmp_path / "several.dcm", unchanged)
    assert len(upload.slices) == 2
    assert upload.notes == ("The first 2 of 5 frames are shown.",)


def test_of_an_animation_the_first_frame_is_taken_and_it_is_said(tmp_path):
    frames = [Image.new("L", (40, 40), value) for value in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    upload = read_upload(tmp_path / "moving.gif", unchanged)
    assert np.asarray(upload.slices[0].image).max() == 10
    assert "first is taken" in upload.notes[0]


def png_of(width: int, height: int) -> bytes:
    """A PNG that states a size and holds next to no pixel of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))))
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.png", b"The disc is normal.", "not a readable image"),
        ("huge.png", png_of(20_000, 20_000), "too large"),
        ("large.png", png_of(9_000, 9_000), "too large"),
        ("cut.png", png_of(64, 64), "damaged"),
        ("empty.dcm", b"", "not a readable image"),
        ("broken.dcm", b"\0" * 128 + b"DICM" + b"\x08\0\x05\0CS\x0a\0ISO_IR", "is DICOM, but"),
    ],
    ids=["text", "20,000 x 20,000", "9,000 x 9,000", "cut off", "empty", "broken DICOM"],
)
def test_what_cannot_be_read_is_refused_in_plain_words(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableUploadError, match=words) as refused:
        read_upload(tmp_path / name, unchanged)
    assert str(refused.value).startswith(name)
    assert "Error" not in str(refused.value)


def test_a_pixel_is_no_slice(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(UnusableUploadError, match=r"dot.png is too small \(1 x 1 pixels\)"):
        read_upload(tmp_path / "dot.png", unchanged)


def test_a_damaged_dicom_file_is_refused_without_quoting_its_header(tmp_path, caplog):
    path = tmp_path / "cut.dcm"
    make_dicom(path, draw_pixels(np.uint8, 8, (64, 64)), NumberOfFrames=1111)
    path.write_bytes(path.read_bytes().replace(b"1111", b"Doe "))
    with pytest.raises(UnusableImageError, match="Doe"):
        read_headers(path)
    with caplog.at_level("DEBUG"), pytest.raises(UnusableUploadError, match="damaged") as refused:
        read_upload(path, unchanged)
    assert "Doe" not in str(refused.value) + caplog.text


def test_a_study_lists_what_it_leaves_out(tmp_path):
    for number in (1, 2):
        make_dicom(tmp_path / f"{number}.dcm", draw_pixels(np.uint8, 8, (40, 40), seed=number))
    (tmp_path / "notes.png").write_text("normal")
    upload = read_study(sorted(tmp_path.iterdir()), unchanged)
    assert [slice_.name for slice_ in upload.slices] == ["1.dcm", "2.dcm"]
    assert len(upload.notes) == 1
    assert upload.notes[0].startswith("notes.png is not a readable image")


def test_a_study_of_two_patients_is_refused_without_naming_them(tmp_path):
    for patient in ("anna", "bert"):
        make_dicom(tmp_path / f"{patient}.dcm", draw_pixels(np.uint8, 8, (40, 40)), patient_id=f"ID-{patient}")
    with pytest.raises(UnusableUploadError, match="more than one patient") as refused:
        read_study(sorted(tmp_path.iterdir()), unchanged)
    assert "ID-" not in str(refused.value)


def test_a_study_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FRAMES", 3)
    for number in range(4):
        make_dicom(tmp_path / f"{number}.dcm", draw_pixels(np.uint8, 8, (2, 40, 40)))
    paths = sorted(tmp_path.iterdir())
    with pytest.raises(UnusableUploadError, match="4 files are too many: at most 3"):
        read_study(paths, unchanged)
    with pytest.raises(UnusableUploadError, match="Too many slices: more than 3 in all frames"):
        read_study(paths[:2], unchanged)


def test_of_too_large_frames_the_first_are_read(tmp_path, monkeypatch):
    make_dicom(tmp_path / "several.dcm", draw_pixels(np.uint8, 8, (5, 40, 40)))
    monkeypatch.setattr(uploads, "MAX_READ_PIXELS", 40 * 40 * 2)
    assert read_upload(tmp_path / "several.dcm", unchanged).notes == ("The first 3 of 5 frames are shown.",)


@pytest.mark.parametrize("size", [(40_000, 33), (33, 40_000), (9_460, 33)])
def test_a_strip_is_refused_with_its_size(tmp_path, size):
    Image.new("L", size).save(tmp_path / "strip.png")
    with pytest.raises(UnusableUploadError) as refused:
        read_upload(tmp_path / "strip.png", unchanged)
    assert str(refused.value) == (
        f"strip.png is too long ({size[0]:,} x {size[1]:,} pixels): a side has at most 9,459 pixels. Export one slice."
    )


def test_a_large_slice_is_held_small(tmp_path):
    Image.new("L", (3000, 1500)).save(tmp_path / "large.png")
    (slice_,) = read_upload(tmp_path / "large.png", lambda image: image.resize((8, 8))).slices
    assert slice_.image.size == (768, 384)
    assert slice_.num_bytes == 768 * 384 + 8 * 8


def make_upload(side):
    image = Image.new("L", (side, side))
    return Upload(slices=(Slice(name="", image=image, seen=image),))


def test_of_all_uploads_the_least_recently_used_go_first(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_HELD_BYTES", 5 * 2 * 10**2)
    held = HeldUploads()
    keys = [held.keep(make_upload(10)) for _ in range(5)]
    assert held.use(keys[0])
    keys.append(held.keep(make_upload(10)))
    assert [held.use(key) is not None for key in keys] == [True, False, True, True, True, True]
    keys.append(held.keep(make_upload(30)))  # more than all may take
    assert [held.use(key) is not None for key in keys] == [False] * 6 + [True]
    keys.pop()
    assert held.num_bytes() == 0, "an upload outlives its key"


def test_a_study_without_a_slice_says_why(tmp_path):
    (tmp_path / "notes.png").write_text("normal")
    with pytest.raises(UnusableUploadError, match=r"None of the files.*notes.png is not a readable image"):
        read_study([tmp_path / "notes.png"], unchanged)
