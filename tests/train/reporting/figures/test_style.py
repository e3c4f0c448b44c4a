"""Figures are kept as PNG and SVG, the same each time."""

from xml.dom import minidom

import pytest

from train.reporting.figures.style import new_figure, save_figures


def drawn():
    figure = new_figure(3, 2, "Cost of $5 & more")
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_each_figure_is_kept_as_png_with_the_same_svg_each_time(tmp_path):
    kept = []
    for _ in range(2):
        save_figures({"cost.png": drawn()}, tmp_path)
        assert {path.name for path in (tmp_path / "figures").iterdir()} == {"cost.png", "cost.svg"}
        kept.append((tmp_path / "figures" / "cost.svg").read_text())
    assert kept[0] == kept[1] and "<svg" in kept[0] and "<dc:date>" not in kept[0]


@pytest.mark.parametrize("title", ["a\x1bb\x00", "--><script>alert(1)</script>", "a $x^2$ & <b>", "日本"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_title_breaks_the_svg(tmp_path, title):
    save_figures({"a.png": new_figure(3, 2, title)}, tmp_path)
    drawing = (tmp_path / "figures" / "a.svg").read_bytes()
    assert not minidom.parseString(drawing).getElementsByTagName("script") and b"alert" not in drawing
