"""Draw galleries of retrieval: what the model puts first, and whether it is right: `HIT`, `ALIKE` or `MISS`."""

import textwrap
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from train.reporting.figures.style import AMBER, BLACK, GREEN, GREY, STYLE, new_figure, show_slice, without_frame

HIT, ALIKE, MISS = "hit", "alike", "miss"
MARKS = {HIT: ("✓", GREEN), ALIKE: ("≈", AMBER), MISS: ("✗", GREY)}
KEY = "✓ its own report, or the same words     ≈ another report with the same labels     ✗ other labels"
TEXT_WIDTH, MAX_LINES = 118, 2


@rc_context(STYLE)
def image_to_text_gallery(
    images: Sequence[Image.Image],
    reports: Sequence[str],
    found_texts: Sequence[Sequence[str]],
    verdicts: Sequence[Sequence[str]],
    title: str,
) -> Figure:
    """Draw each query image with its own report and the texts found for it, best first, each with a verdict."""
    figure = new_figure(11, 0.8 + 2.5 * len(images), title)
    grid = figure.subplots(len(images), 2, width_ratios=[1, 4], squeeze=False)
    for (picture, words), image, report, texts, row_verdicts in zip(
        grid, images, reports, found_texts, verdicts, strict=True
    ):
        show_slice(picture, image)
        without_frame(words)
        words.set(xlim=(0, 1), ylim=(0, 1))
        words.text(0, 0.99, _wrapped(f"Its report: {report}"), va="top", fontsize=9, fontweight="bold", color=BLACK)
        for place, (text, verdict) in enumerate(zip(texts, row_verdicts, strict=True)):
            mark, colour = MARKS[verdict]
            height = 0.79 - 0.165 * place
            words.text(0, height, f"{place + 1} {mark}", va="top", fontsize=10, color=colour, fontweight="bold")
            words.text(0.045, height, _wrapped(text), va="top", fontsize=9, color=BLACK)
    figure.supxlabel(KEY, fontsize=9)
    return figure


@rc_context(STYLE)
def text_to_image_gallery(
    texts: Sequence[str],
    found_images: Sequence[Sequence[Image.Image]],
    verdicts: Sequence[Sequence[str]],
    title: str,
) -> Figure:
    """Draw each query text with the images found for it, best first, each with a verdict."""
    columns = len(found_images[0])
    tallest = max(image.height / image.width for images in found_images for image in images)
    figure = new_figure(11, 0.9 + (0.85 + 2.1 * tallest) * len(texts), title)
    for row, panel in enumerate(figure.subfigures(len(texts), 1, squeeze=False)[:, 0]):
        lines = textwrap.wrap(texts[row], 120, max_lines=2, placeholder=" …")
        panel.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9.5)
        axes_of_row = panel.subplots(1, columns, squeeze=False)[0]
        for place, axes in enumerate(axes_of_row):
            mark, colour = MARKS[verdicts[row][place]]
            show_slice(axes, found_images[row][place])
            axes.set_xlabel(f"{place + 1} {mark}", color=colour, fontsize=11, fontweight="bold")
            for spine in axes.spines.values():
                spine.set(visible=True, color=colour, linewidth=2.5)
    figure.supxlabel(KEY, fontsize=9)
    return figure


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, TEXT_WIDTH, max_lines=MAX_LINES, placeholder=" …"))
