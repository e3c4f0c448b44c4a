"""Read, normalise, split and mirror the text of a report, and name its classes. Pure functions."""

import re
import unicodedata
from itertools import chain, pairwise

from data_scripts.reports.findings import Finding, ReportReading, read_report, report_facts, report_findings
from data_scripts.reports.lexicon import FINDING_KINDS, LABEL_OF_KIND, NOT_LOW_BACK_PAIN
from data_scripts.reports.words import (
    DISC_LEVELS,
    Word,
    has_unclear_side,
    read_statements,
    replace_spans,
    starts_statement,
)

__all__ = [
    "DISC_LEVELS",
    "FINDING_KINDS",
    "REPORT_LABELS",
    "Finding",
    "exchange_sides",
    "has_unclear_side",
    "labels_at_level",
    "labels_from_report",
    "normalise_report",
    "read_report",
    "replace_spans",
    "report_facts",
    "report_findings",
    "report_measures",
    "report_sentences",
]

REPORT_LABELS = ("LBP", *LABEL_OF_KIND.values(), "No Finding")

# A line that ends in one of these words runs on: "noted at the level of / L4/L5".
_RUNS_ON = re.compile(r"(?:[,:;&(-]|\b(?:a|an|and|at|by|for|from|in|of|on|or|over|the|to|with))$", re.IGNORECASE)
_CAPITAL = re.compile(r"[A-Z](?![0-9])")  # not that of a level
_BULLET = re.compile(r"^\s*(?:[-*•]\s*)+")
# Separators of two statements, up to the first character that belongs to the second.
_BETWEEN_STATEMENTS = re.compile(r"[.;•\r\n/\\]+[\s*•-]*")
_CLOSING_BRACKET = re.compile(r"\)[.,;]*")
# A statement of only these and numbers says nothing: a heading, a place in a list, a level, a sign.
_SAYS_NOTHING = {
    *("<level>", "<vertebra>", "level", "and", "at", *".,;:()&+?-"),
    *("findings", "conclusion", "opinion", "technique", "comparison", "indication", "comment", "report"),
    *("mri", "lss", "lumbosacral", "lumbo", "sacral", "lumbar", "cervical", "spine", "of", "the", "c", "d", "l"),
}


def normalise_report(text: str) -> str:
    r"""Fix the separators and blanks of a report: one line of sentences with full stops between them.

    Reports are typed in a hurry: sentences end in `//`, a line break or nothing, and blanks are missing or
    doubled. Spelling mistakes stay: they are the author's text. Normalising twice changes nothing more.

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
    text = re.sub(r"([a-z]{2}|[0-9)\]]|\s)\.(?=[A-Za-z])", r"\1. ", text)  # "canal.No", but not "i.e." or "4.5"
    text = re.sub(r"([,;])(?=[A-Za-z])", r"\1 ", text)
    text = re.sub(r"\s+(?=[.,;:](?:\s|$))", "", text)
    return re.sub(r"\s+", " ", text).strip().lstrip(".,;:/-*• ")


def _join_lines(lines: list[str]) -> str:
    """Join lines: sentences begin with a bullet, a capital, a digit or a word that starts statements."""
    joined = ""
    for line in lines:
        content = _BULLET.sub("", line).strip()
        if not content:
            continue
        is_bullet = bool(_BULLET.match(line))
        begins = is_bullet or not content[0].islower() or starts_statement(content)
        if joined.endswith(",") and (is_bullet or _CAPITAL.match(content)):
            joined = joined.rstrip(" ,")
        if joined and begins and not _RUNS_ON.search(joined) and joined[-1] not in ".!?":
            joined += "."
        joined += f" {content}"
    return joined


_LEFT, _RIGHT = "left leftward leftwards levo lt l't l’t lft l", "right rightward rightwards dextro rt r't r’t rght r"
_OTHER_SIDE = dict(zip(f"{_LEFT} {_RIGHT} laevo".split(), f"{_RIGHT} {_LEFT} dextro".split(), strict=True))


def exchange_sides(text: str) -> str:
    """Exchange left and right, as a horizontally flipped image requires.

    Words that the report reader takes for a side are exchanged in their spelling and case, so only the findings' sides
    change. Exchanging twice restores the text, except that a misspelt side comes back spelt right, and "laevo" as
    "levo". A bare R or L that may not be a side stays; `has_unclear_side` finds it.

    Example:
        >>> exchange_sides("Rt paracentral protrusion at L4-5, LEFT-sided levoscoliosis, upright scan, R>L")
        'Lt paracentral protrusion at L4-5, RIGHT-sided dextroscoliosis, upright scan, L>R'
    """
    exchanged = {}
    for word in chain.from_iterable(read_statements(text)):
        if word.lemma in ("left", "right"):
            found = text[word.start : word.end]
            other = _OTHER_SIDE.get(found.lower(), _OTHER_SIDE[word.lemma])
            if found.isupper():
                other = other.upper()
            elif found[0].isupper():
                other = other[0].upper() + other[1:]
            exchanged[word.start, word.end] = other
    return replace_spans(text, exchanged)


def report_measures(text: str) -> frozenset[str]:
    """Find the numbers and units of length in a report, without those of levels and vertebrae.

    Example:
        >>> sorted(report_measures("Bulge of 7x9mm and 4,50 mm at L4/5, S1 root"))
        ['4.5', '7', '9', 'mm']
    """
    lemmas = [word.lemma.replace(",", ".") for word in chain.from_iterable(read_statements(text))]
    return frozenset(
        f"{float(lemma):g}" if lemma[0] in "0123456789" else lemma
        for lemma in lemmas
        if lemma[0] in "0123456789" or lemma in ("mm", "cm")
    )


def report_sentences(text: str) -> tuple[str, ...]:
    r"""Split a report where the report reader sees its statements end; only separators are dropped.

    A list number, a heading or a bare level says nothing on its own: it stays with the sentence that follows, or at
    the end with the one before.

    Example:
        >>> report_sentences("-Mild bulge at L4-5, Rt. paracentral // no stenosis.\n- Loss of height >50%. Normal cord")
        ('Mild bulge at L4-5, Rt. paracentral', 'no stenosis.', 'Loss of height >50%.', 'Normal cord')
        >>> report_sentences("IMPRESSION:\n1. Bulge at L4-5.\n2. No stenosis.")
        ('IMPRESSION: 1. Bulge at L4-5.', '2. No stenosis.')
    """
    statements = list(read_statements(text))
    if not statements:
        return ()
    parts, begin = [], 0
    for words, next_words in pairwise(statements):
        end, start = words[-1].end, next_words[0].start
        separators = list(_BETWEEN_STATEMENTS.finditer(text, end, start))
        cut = separators[-1].start() if separators else start
        parts.append(text[begin : cut + (text[cut] == ".")])
        begin = separators[-1].end() if separators else start
    parts.append(text[begin:].rstrip(" \t\r\n/\\"))

    sentences: list[str] = []
    waiting = ""  # for the sentence that it introduces
    for part, words in zip(parts, statements, strict=True):
        part = _BULLET.sub("", part).strip()
        if sentences and not waiting and (closing := _CLOSING_BRACKET.match(part)):
            sentences[-1] += closing.group()
            part = part[closing.end() :].strip()
        waiting = _join_sentences(waiting, part)
        if not _says_nothing(part, words):
            sentences.append(waiting)
            waiting = ""
    if waiting:
        sentences.append(_join_sentences(sentences.pop() if sentences else "", waiting))
    return tuple(sentences)


def _says_nothing(part: str, words: tuple[Word, ...]) -> bool:
    """Whether a statement only introduces the next one, as "1.", "L4-L5 level:" and "There are the following:" do."""
    if words[-1].lemma == ":" or part.rstrip(". ").lower() == "impression":  # else that of a disc on the sac
        return True
    return all(word.lemma in _SAYS_NOTHING or word.lemma.isdigit() for word in words)


def _join_sentences(first: str, second: str) -> str:
    """Join by a blank, and a full stop where only a line break separated them."""
    stop = "." if first[-1:].isalnum() and second else ""
    return f"{first}{stop} {second}".strip()


def labels_from_report(text: str) -> tuple[str, ...]:
    """Name the classes of a report; none if it was not understood, which is not the same as normal.

    `LBP` (low back pain) stands for any finding that the report affirms, except muscle spasm, loss of lordosis and a
    bare Pfirrmann grade: the paper does not say which it counts; these are ours. A report without any has
    only `No Finding`. The order is that of `REPORT_LABELS`.

    Example:
        >>> labels_from_report("Features of muscle spasm. Bulge at L4/L5 compressing the thecal sac. No stenosis.")
        ('LBP', 'disc bulge', 'thecal sac compression')
        >>> labels_from_report("Features of muscle spasm. No evidence of disc herniation.")
        ('No Finding',)
        >>> labels_from_report("Hochgradige Spinalkanalstenose L3/4.")
        ()
    """
    return _labels(read_report(text), (*DISC_LEVELS, None))


def labels_at_level(text: str, level: str) -> tuple[str, ...]:
    """Name the classes of one disc of a report; none if the report was not understood.

    `LBP` and `No Finding` are the patient's, as in the paper: all images of a patient have them. The other classes
    are those that the report affirms at this level; a finding without a level ("multilevel bulges") is at none.

    Raises:
        ValueError: If `level` is unknown.

    Example:
        >>> [labels_at_level("Bulge at L4/L5. Protrusion at L5/S1.", level) for level in ("L5/S1", "L3/L4")]
        [('LBP', 'disc protrusion'), ('LBP',)]
    """
    if level not in DISC_LEVELS:
        raise ValueError(f"level must be one of {', '.join(DISC_LEVELS)}, got {level!r}")
    return _labels(read_report(text), (level,))


def _labels(reading: ReportReading, levels: tuple[str | None, ...]) -> tuple[str, ...]:
    if reading.problem:
        return ()
    affirmed = [finding for finding in reading.findings if not finding.negated]
    if all(finding.kind in NOT_LOW_BACK_PAIN for finding in affirmed):
        return ("No Finding",)
    kinds = {finding.kind for finding in affirmed if finding.level in levels}
    return ("LBP", *(label for kind, label in LABEL_OF_KIND.items() if kind in kinds))
