import itertools

import pytest

from train.reporting.experiment.paper import FIGURE_3, FIGURE_4, format_printed, printed_values
from train.reporting.experiment.tables import HEADS

WIDTHS = (256, 512, 1024)


@pytest.mark.parametrize(
    ("backbone", "head", "width", "printed"),
    [
        *(("ResNet", head, width, "up to 0.95, up to 0.88") for head in HEADS for width in (256, 512)),
        *(("ResNet", head, 1024, "-") for head in HEADS),
        *(("ViT", head, width, "-") for head in HEADS for width in WIDTHS),
        *(("Swin", head, width, "-, 0.63 to 0.73") for head in HEADS for width in (256, 1024)),
        ("Swin", "linear", 512, "-, 0.69"),
        ("Swin", "nonlinear", 512, "-, 0.73"),
        ("Swin", "nonlinear", 64, "-"),
        ("ResNet", "none", 256, "0.92, 0.93"),
        ("convnext", "none", 256, "-"),
    ],
)
def test_bars_have_what_the_text_prints_of_them(backbone, head, width, printed):
    assert format_printed(printed_values(backbone, head, width)) == printed


def test_bars_of_figure_4_are_those_of_the_experiment():
    assert set(FIGURE_4) <= set(itertools.product(FIGURE_3, HEADS, WIDTHS))
    of_swin = [values["macro_f1"] for (backbone, *_), values in FIGURE_4.items() if backbone == "Swin"]
    assert (min(low for low, _ in of_swin), max(high for _, high in of_swin)) == (0.63, 0.73)
