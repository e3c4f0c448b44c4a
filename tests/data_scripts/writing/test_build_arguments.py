import pytest

from data_scripts.sources import SOURCES
from data_scripts.writing.build_arguments import BuildArguments, check_options


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["vertebra", "disc"], "background first and each with a name of its own; got 'vertebra' 'disc'"),
        (["background"], "got 'background'"),
        (["background", "disc", "Disc "], "each with a name of its own"),
        (["background", " "], "each with a name of its own"),
        (["background", *map(str, range(255))], "names 256 classes; a mask of 8 bits has 255"),
    ],
)
def test_names_that_cannot_be_those_of_mask_classes(tmp_path, names, reason):
    with pytest.raises(ValueError, match=reason):
        BuildArguments(source="folder", raw=tmp_path, out=tmp_path / "out", mask_names=names)


def test_only_own_masks_are_named(tmp_path):
    args = BuildArguments(source="lsma_pqr", raw=tmp_path, out=tmp_path / "out", mask_names=["background", "disc"])
    with pytest.raises(ValueError, match="--mask_names is for your own masks"):
        check_options(args, SOURCES["lsma_pqr"].ABOUT)
