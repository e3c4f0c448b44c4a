"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    r"""Lay out a Markdown table; every column but the first is right-aligned.

    Example:
        >>> print(markdown_table(["system", "AUROC"], [["ours", "0.9"], ["a|b", "0.8"]]))
        | system | AUROC |
        |:-------|------:|
        | ours   |   0.9 |
        | a\|b   |   0.8 |
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    aligns = [str.ljust, *[str.rjust] * (len(header) - 1)]
    lines = [
        f"| {' | '.join(align(cell, width) for align, cell, width in zip(aligns, row, widths, strict=True))} |"
        for row in cells
    ]
    rule = "|:" + "-" * (widths[0] + 1) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([lines[0], rule, *lines[1:]])
