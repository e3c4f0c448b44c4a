import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.preprocessing.map_functions import Denoise, PseudoMasks, Rebalance
from data_scripts.records import PLANES, SEQUENCES
from tests.data_scripts.preprocessing.drawn_spine import drawn_spine

NAMES = ["background", "disc", "vertebra", "spinal canal"]
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "report": datasets.Value("string"),
        "labels": datasets.List(datasets.ClassLabel(names=["a", "b", "c"])),
        "grade": datasets.ClassLabel(names=["1", "2", "3"]),
        "patient_id": datasets.Value("string"),
        "plane": datasets.ClassLabel(names=list(PLANES)),
        "sequence": datasets.ClassLabel(names=list(SEQUENCES)),
        "level": datasets.Value("int64"),
        "pixel_spacing_mm": datasets.Value("float32"),
        "mask": datasets.Image(),
        "mask_classes": datasets.List(datasets.ClassLabel(names=NAMES)),
        "mask_origin": datasets.ClassLabel(names=["source", "pseudo"]),
        "source": datasets.Value("string"),
    }
)


def rows(*changes):
    pixels, mask = drawn_spine(128)
    plain = {
        "image": Image.fromarray(pixels),
        "report": "",
        "labels": None,
        "grade": None,
        "patient_id": "p",
        "plane": PLANES.index("sagittal"),
        "sequence": SEQUENCES.index("T2"),
        "level": 14,
        "pixel_spacing_mm": 0.8,
        "mask": Image.fromarray(mask),
        "mask_classes": [1, 2, 3],
        "mask_origin": 0,
    }
    made = [{**plain, "source": f"made/{number}", **change} for number, change in enumerate(changes)]
    return datasets.Dataset.from_list(made, features=FEATURES)


def test_denoise_smooths_images_and_keeps_masks():
    noisy = rows({})
    clean = noisy.map(Denoise(), batched=True)
    before, after = (np.asarray(data[0]["image"], np.float32) for data in (noisy, clean))
    assert after[40:44, 70:74].std() <= before[40:44, 70:74].std() and before.shape == after.shape
    assert np.array_equal(np.asarray(clean[0]["mask"]), np.asarray(noisy[0]["mask"]))


def test_pseudo_masks_fill_gaps_and_say_so():
    empty = {"mask": None, "mask_classes": None, "mask_origin": None}
    data = rows({}, empty, {**empty, "plane": PLANES.index("axial")}, {**empty, "sequence": SEQUENCES.index("T1")})
    filled = data.map(PseudoMasks.of(data.features), batched=True, features=data.features)
    assert filled["mask_origin"][:] == [0, 1, None, None]
    assert filled["mask_classes"][:] == [[1, 2, 3], [1, 2, 3], None, None]
    assert np.array_equal(np.asarray(filled[0]["mask"]), np.asarray(data[0]["mask"]))
    assert [row["mask"] is None for row in filled] == [False, False, True, True]
    found, truth = np.asarray(filled[1]["mask"]), drawn_spine(128)[1]
    vertebra = found == NAMES.index("vertebra")  # by name: the dataset numbers classes otherwise
    assert (vertebra & (truth == 1)).sum() > 0.6 * vertebra.sum() > 0


def test_pseudo_masks_need_their_classes():
    with pytest.raises(ValueError, match="no class vertebra, spinal canal, but background, disc; build the dataset"):
        PseudoMasks(mask_names=("background", "disc"))
    with pytest.raises(ValueError, match="no column 'mask_classes'"):
        PseudoMasks.of(datasets.Features({"mask": datasets.Image()}))


def test_rare_grades_get_varied_copies():
    data = rows(*({"grade": 0} for _ in range(8)), {"grade": 1}, {"grade": 1}, {"grade": None})
    balanced = data.map(Rebalance.of(data, "grade"), batched=True, batch_size=3)
    counts = {grade: balanced["grade"][:].count(grade) for grade in (0, 1, None)}
    assert counts == {0: 8, 1: 8, None: 1}  # 8 / 2 - 1 = 3 copies of each
    assert len(set(balanced["source"][:])) == len(balanced)
    copies = [row for row in balanced if " copy " in row["source"]]
    assert {row["patient_id"] for row in copies} == {"p"}
    images = {row["image"].tobytes() for row in copies}
    assert len(images) == len(copies) and data[0]["image"].tobytes() not in images
    for row in copies:  # the mask follows: its canal is still the brightest structure
        image, mask = np.asarray(row["image"], np.float32), np.asarray(row["mask"])
        assert set(np.unique(mask)) <= {0, 1, 2, 3} and image[mask == 3].mean() > 1.3 * image[mask == 1].mean()
    again = data.map(Rebalance.of(data, "grade"), batched=True, batch_size=11)
    assert sorted(again["source"][:]) == sorted(balanced["source"][:])


def test_copies_are_capped_and_follow_the_rarest_label():
    data = rows(*({"labels": [0]} for _ in range(20)), {"labels": [0, 1]}, {"labels": []}, {"labels": None})
    balanced = data.map(Rebalance.of(data, "labels", max_copies=2), batched=True)
    assert len(balanced) == len(data) + 2
    assert [row["labels"] for row in balanced if " copy " in row["source"]] == [[0, 1], [0, 1]]
    assert len(data.map(Rebalance.of(data, "labels", max_copies=0), batched=True)) == len(data)


def test_what_cannot_be_balanced():
    with pytest.raises(ValueError, match="no row has a value in grade; balance by another column"):
        Rebalance.of(rows({}), "grade")
    with pytest.raises(ValueError, match="max_copies=-1 must be 0 or more"):
        Rebalance.of(rows({"grade": 1}), "grade", max_copies=-1)
