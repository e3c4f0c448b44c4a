"""Write text into Markdown: class names, titles and citations are shown as typed, whatever they contain."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Terminals obey control characters, and direction marks reorder what follows them.
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BLANKS = re.compile(r"[\t\n\r ]+")
# All that CommonMark, GitHub or Python-Markdown read as more than text, within a line and at the start of one.
_IN_LINE = re.compile(
    r"""
      (?P<kept>(?<=.)\[[A-Z]+\](?=[^(\[]))  # [NAME] in a sentence is no link; audits show many
    | [\[\]]                               # links, images, definitions, check boxes
    | [*`~$] | (?<![^\W_])_ | _(?![^\W_])  # emphasis, code, strike-through, mathematics
    | \\(?=[!-/:-@\[-`{-~]|$)
    | <(?!\ )
    | &(?=\#?\w+;)
    | \#(?=\#*$)                           # the end of a heading
    """,
    re.VERBOSE,
)
_AT_START = re.compile(r"^(?:[#>]|[-+](?=[ -]|$)|=(?==*$)|\d{1,9}[.)](?= |$))")  # headings, quotes, lists, rules
# Entities where not every reader knows the escape with a backslash.
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "`": "&#96;", "~": "&#126;", "$": "&#36;", "=": "&#61;"}


class Markdown(str):
    """Text that is Markdown already, and is not escaped again.

    Joined to another string, it becomes plain text, which is escaped.
    """

    __slots__ = ()

    def __html__(self) -> str:
        """Tell Jinja not to escape this."""
        return self


def printable(text: str) -> str:
    r"""Show control characters, except line breaks and tabs, as escapes, so that a terminal does not obey them.

    Example:
        >>> print(printable("bulge \x1b[2J"))
        bulge \x1b[2J
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_markdown(value: object) -> Markdown:
    r"""Write a value in Markdown so that it reads as typed, in one line; `Markdown` and numbers stay as they are.

    Example:
        >>> print(escape_markdown("![a](b.png) *T2_star* <b> & [x]"))
        !\[a\](b.png) \*T2_star\* &lt;b> & \[x\]
        >>> print(escape_markdown("# L4"), escape_markdown("1. L5"))
        \# L4 1\. L5
    """
    escaped = _in_line(value)
    return escaped if isinstance(value, Markdown | int | float) else Markdown(_AT_START.sub(_escape, escaped))


def _in_line(value: object) -> Markdown:
    """Escape a value for a place that is not the start of a line, such as the cell of a table."""
    if isinstance(value, Markdown | int | float):
        return Markdown(value)
    return Markdown(_IN_LINE.sub(_escape, _one_line(value).strip()))


def _escape(match: re.Match[str]) -> str:
    if match.lastgroup == "kept":
        return match[0]
    before, character = match[0][:-1], match[0][-1]
    return before + _ENTITIES.get(character, f"\\{character}")


def _one_line(value: object) -> str:
    return printable(_BLANKS.sub(" ", str(value)))


def code_span(value: object) -> Markdown:
    """Write a value as code within a line.

    Example:
        >>> code_span("disc_bulge"), code_span("a `b`")
        ('`disc_bulge`', '`` a `b` ``')
    """
    line = _one_line(value).strip()
    ticks, pad = "`" * (1 + _longest_run(line)), " " * ("`" in line)
    return Markdown(f"{ticks}{pad}{line}{pad}{ticks}" if line else "")


def code_block(value: object, language: str = "") -> Markdown:
    """Write a value as a fenced block of code."""
    text = printable(str(value))
    fence = "`" * max(3, 1 + _longest_run(text))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def quoted_as_code(text: str) -> Markdown:
    """Write a text whose parts between backticks are code, and the rest as typed.

    Example:
        >>> quoted_as_code("`disc_bulge` has <3> rows")
        '`disc_bulge` has &lt;3> rows'
    """
    parts = re.split(r"`([^`]+)`", text)
    return Markdown(
        "".join(code_span(part) if k % 2 else _IN_LINE.sub(_escape, _one_line(part)) for k, part in enumerate(parts))
    )


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def fill_markdown(template: str, values: Mapping[str, Any]) -> Markdown:
    """Fill the `{name}` of a Markdown text with values, which are escaped unless they are `Markdown`."""
    return Markdown(template.format_map({name: escape_markdown(value) for name, value in values.items()}))


def markdown_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Markdown:
    r"""Lay out a Markdown table of escaped cells; every column but the first is right-aligned.

    Example:
        >>> print(markdown_table(["system", "AUROC"], [["ours", "0.9"], ["a|b", "0.8"]]))
        | system | AUROC |
        |:-------|------:|
        | ours   |   0.9 |
        | a\|b   |   0.8 |
    """
    cells = [[_in_line(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    aligns = [str.ljust, *[str.rjust] * (len(header) - 1)]
    lines = [
        f"| {' | '.join(align(cell, width) for align, cell, width in zip(aligns, row, widths, strict=True))} |"
        for row in cells
    ]
    rule = "|:" + "-" * (widths[0] + 1) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return Markdown("\n".join([lines[0], rule, *lines[1:]]))
