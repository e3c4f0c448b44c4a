import numpy as np
import pytest

from data_scripts.imaging.dicom import read_headers
from data_scripts.imaging.dicom_series import order_slices
from tests.data_scripts.imaging.dicom_files import AXIAL, draw_pixels, make_dicom, tilted


@pytest.mark.parametrize("orientation", [AXIAL, tilted(20, (1, 2))])
def test_slices_are_ordered_by_place(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    shuffled = np.random.default_rng(1).permutation(9)
    names = np.random.default_rng(2).permutation(9)
    for place, number, name in zip(range(9), shuffled, names, strict=True):
        make_dicom(
            tmp_path / f"{name}.ima", draw_pixels(np.uint8, 8), orientation=orientation, position=4.4 * place * normal,
            InstanceNumber=int(number),
        )  # fmt: skip
    headers = [header for path in sorted(tmp_path.iterdir()) for header in read_headers(path)]
    assert [header.path.stem for header in order_slices(headers)] == [str(name) for name in names]
    # Without the place of one slice, the scanner's count.
    make_dicom(tmp_path / f"{names[0]}.ima", draw_pixels(np.uint8, 8), position=None, InstanceNumber=int(shuffled[0]))
    headers = [header for path in sorted(tmp_path.iterdir()) for header in read_headers(path)]
    assert [header.instance_number for header in order_slices(headers)] == list(range(9))
