import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from data_scripts.auditing.privacy_check import check_dataset
from tests.data_scripts.made_rows import dataset_of, png, row, slice_of


def with_metadata() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "Salem, Ahmad")
    buffer = io.BytesIO()
    slice_of(0).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_letters(number: int) -> bytes:
    image = slice_of(number, 200)
    image.paste(0, (0, 0, 200, 30))
    ImageDraw.Draw(image).text((4, 4), "SALEM AHMAD 1961", fill=255, font_size=14)
    return png(image)


@pytest.mark.parametrize(
    "changes, column, kind",
    [
        ({"report": "Seen by Dr. Salem: bulge at L4/L5, tel 0795551234."}, "report", "NAME"),
        ({"rephrasings": ["Fine.", "Compared with 12/03/2016, bulge."]}, "rephrasings", "DATE"),
        ({"source": "LSS_20160309_091629/1.ima"}, "source", "DATE"),
        ({"patient_id": "1961-04-02-x"}, "patient_id", "DATE"),
        ({"study_id": "20160309"}, "study_id", "DATE"),
        ({"series_id": "20160309"}, "series_id", "DATE"),
        ({"patient_id": "SALEM^AHMAD"}, "patient_id", "NAME"),
        ({"patient_id": "Salem Ahmad"}, "patient_id", "NAME"),
        ({"study_id": "MRN: 12345"}, "study_id", "ID"),
        ({"study_id": "Dr. Ahmad Salem"}, "study_id", "NAME"),
        ({"source": "ahmad@hospital.org/0795551234"}, "source", "EMAIL"),
        ({"report": "Images from john. smith@hospital. org"}, "report", "EMAIL"),
        ({"report": "Ask john.smith at hospital dot org"}, "report", "EMAIL"),
        ({"report": "Ask j\u00adohn＠hospital.org"}, "report", "EMAIL"),
        ({"rephrasings": ["See www. hospital. org/patient/8842"]}, "rephrasings", "URL"),
        ({"source": "tel: +962 6 535 3666"}, "source", "PHONE"),
        ({"report": "Bandscheibenvorfall L5/S1 links."}, "report", "LANGUAGE"),
        ({"rephrasings": ["Fine.", "腰椎间盘突出"]}, "rephrasings", "LANGUAGE"),
        ({"image": {"bytes": with_metadata(), "path": None}}, "image", "METADATA"),
    ],
)
def test_whatever_names_someone_is_found_and_not_repeated(changes, column, kind):
    report = check_dataset(dataset_of(train=[row(1)], test=[row(2), row(3, **changes)]))
    assert not report.passed and report.num_rows == 3
    first = report.findings[0]
    assert (first.split, first.row, first.column, first.kind) == ("test", 1, column, kind)
    shown = str(report.as_dict())
    assert not any(secret in shown for secret in ("Salem", "2016", "1961", "0795551234"))
    assert report.as_dict()["found_by_kind"][kind] == 1


def test_clean_rows_pass_and_letters_are_listed():
    clean = [row(number) for number in range(8)]
    assert check_dataset(dataset_of(train=clean)).passed
    one = check_dataset(dataset_of(train=[*clean, row(8, image={"bytes": with_letters(8), "path": None})]))
    assert one.passed and one.burnt_in_text == (("train", 8),)  # one may be chance: someone looks at it
    lettered = [row(number, image={"bytes": with_letters(number), "path": None}) for number in range(3)]
    several = check_dataset(dataset_of(train=clean, test=lettered))
    assert not several.passed and list(several.burnt_in_text) == [("test", n) for n in range(3)]


def test_letters_in_16_bits_are_seen():
    """A plain cast to 8 bits would turn the whole slice white."""
    deep = np.asarray(Image.open(io.BytesIO(with_letters(1)))).astype(np.uint16) * 100 + 500
    data = dataset_of(train=[row(1, image={"bytes": png(Image.fromarray(deep)), "path": None}), row(2)])
    assert check_dataset(data).burnt_in_text == (("train", 0),)


@pytest.mark.parametrize(
    "ids",
    [
        {
            "patient_id": "patient-0123456789abcdef",
            "study_id": "study-0123456789012345",
            "series_id": "series-0123456789012345",
            "source": "a/file-" + "1" * 16,
        },
        {"patient_id": "9003175", "study_id": "4003253124", "source": "0001/L-SPINE_LSS_240000/T2_0005_001.ima"},
        {"patient_id": "1_t1", "study_id": "1.2.840.113619.2.55.3", "source": "knee/train/0/9003175L.png"},
    ],
)
def test_numbers_and_pseudonyms_pass_as_ids(ids):
    assert check_dataset(dataset_of(train=[row(1, **ids)])).passed


@pytest.mark.slow
def test_two_processes_say_the_same():
    data = dataset_of(train=[row(n, image={"bytes": with_letters(n), "path": None}) for n in range(5)])
    assert check_dataset(data, num_proc=2) == check_dataset(data)
