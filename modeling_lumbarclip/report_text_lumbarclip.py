"""Pure functions on the text of a report."""

import re
import unicodedata

# A line that ends in one of these words runs on: "noted at the level of / L4/L5".
_RUNS_ON = re.compile(r"(?:[,:;&(-]|\b(?:a|an|and|at|by|for|from|in|of|on|or|over|the|to|with))$", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]\s*)+")


def normalise_report(text: str) -> str:
    r"""Mend the separators and blanks of a report, and leave its words alone.

    Reports are typed in a hurry: sentences end in `//`, a line break or nothing, and blanks are missing or
    doubled. The result is one line of sentences with full stops between them. Spelling mistakes stay: they are the
    author's text. Normalising twice changes nothing more.

    Args:
        text: A report as it was found.

    Returns:
        The report on one line; empty when nothing but separators was found.

    Example:
        >>> normalise_report("LSS MRI \r\n-Feature of muscle spasm. \r\n-Mild bulge at L4/L5 level , 4.5 mm")
        'LSS MRI. Feature of muscle spasm. Mild bulge at L4/L5 level, 4.5 mm'
        >>> normalise_report("bulge at L4-L5 compressing the sac.//  No stenosis")
        'bulge at L4-L5 compressing the sac. No stenosis'
        >>> normalise_report("Disc bulge,mild.Adequate  spinal canal .")
        'Disc bulge, mild. Adequate spinal canal.'
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")  # zero-width marks
    text = re.sub("/{2,}", "\n- ", text)  # from here on a separator like any bullet
    text = _join_lines(text.splitlines())
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Zs") else char for char in text)
    text = re.sub(r"\s*\.(?:\s*\.)+", ". ", text)
    text = re.sub(r"([a-z]{2}|[0-9)]|\s)\.(?=[A-Za-z])", r"\1. ", text)  # "canal.No", but not "i.e." or "4.5"
    text = re.sub(r"([,;])(?=[A-Za-z])", r"\1 ", text)
    text = re.sub(r"\s+(?=[.,;:](?:\s|$))", "", text)
    return re.sub(r"\s+", " ", text).strip().lstrip(".,;:/-*• ")


def _join_lines(lines: list[str]) -> str:
    """Join lines: as sentences where a new one begins (bullet, capital or digit), by a blank where it runs on."""
    joined = ""
    for line in lines:
        content = _BULLET.sub("", line).strip()
        if not content:
            continue
        begins = bool(_BULLET.match(line)) or not content[0].islower()
        if joined and begins and not _RUNS_ON.search(joined) and joined[-1] not in ".!?":
            joined += "."
        joined += f" {content}"
    return joined
