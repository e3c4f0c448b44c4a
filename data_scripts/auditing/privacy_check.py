"""Check a built dataset for anything that may name a person: texts, ids, file names, image metadata, text in pixels."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import datasets
from PIL import Image

from data_scripts.auditing.image_scan import scan_images
from data_scripts.imaging.images import IMAGE_FORMATS, grey_8bit
from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.privacy.identifiers import Identifier, find_identifiers, scrub_text
from data_scripts.privacy.protection import unjudged_kinds
from data_scripts.privacy.pseudonyms import holds_date

# A few slices of any set seem to contain text (one of 710 real MR slices); more than that contain it.
MAX_SHARE_OF_LETTERS = 0.01

_ID_COLUMNS = ("patient_id", "study_id", "series_id", "source")
_CLASS_COLUMNS = ("labels", "grade")  # the user names their classes
_PSEUDONYM = re.compile(r"\b(?:p|patient|study|series|file|date)-[0-9a-f]{16}\b")
_EXCERPT_MARGIN = 30  # characters shown on each side of a finding


@dataclass(frozen=True)
class IdentifyingRow:
    """Where a row may name someone; the passage itself is not repeated."""

    split: str
    row: int | None  # None for the class names of a column
    column: str
    kind: str  # kind of identifier, `LANGUAGE` or `METADATA`
    excerpt: str  # the text around it, with placeholders; or which metadata


@dataclass(frozen=True, kw_only=True)
class DeidentificationReport:
    """Outcome of a check."""

    num_rows: int
    findings: tuple[IdentifyingRow, ...]
    burnt_in_text: tuple[tuple[str, int], ...]  # split and row of each image that may contain text

    @property
    def passed(self) -> bool:
        """Whether nothing names a person, and no more images seem to contain text than by chance."""
        return not self.findings and few_images_with_letters(len(self.burnt_in_text), self.num_rows)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "passed": self.passed,
            "num_rows": self.num_rows,
            "found_by_kind": dict(sorted(Counter(finding.kind for finding in self.findings).items())),
            "findings": [asdict(finding) for finding in self.findings],
            "burnt_in_text": [{"split": split, "row": row} for split, row in self.burnt_in_text],
        }


def few_images_with_letters(num_images: int, num_rows: int) -> bool:
    """Whether the number of images that seem to contain text may be due to chance."""
    return num_images <= max(1, MAX_SHARE_OF_LETTERS * num_rows)


def check_dataset(dataset: Mapping[str, datasets.Dataset], num_proc: int = 1) -> DeidentificationReport:
    """Check every text, id, file name and image of a built dataset."""
    findings: list[IdentifyingRow] = []
    letters: list[tuple[str, int]] = []
    for name, split in dataset.items():
        findings += _identifying_texts(name, split)
        images = scan_images(split, _look_at_image, num_proc=num_proc, description=f"checking {name}")
        for row, (metadata, has_letters) in enumerate(images):
            if metadata:
                findings.append(IdentifyingRow(name, row, "image", "METADATA", metadata))
            if has_letters:
                letters.append((name, row))
    num_rows = sum(len(split) for split in dataset.values())
    return DeidentificationReport(num_rows=num_rows, findings=tuple(findings), burnt_in_text=tuple(letters))


def _identifying_texts(name: str, split: datasets.Dataset) -> Iterator[IdentifyingRow]:
    for row, (report, rephrasings) in enumerate(zip(split["report"], split["rephrasings"], strict=True)):
        for column, text in (("report", report), *(("rephrasings", text) for text in rephrasings)):
            for found in _identifiers(text):
                yield IdentifyingRow(name, row, column, found.kind, _excerpt(text, found))
            for kind in _unjudged_kinds(text):
                yield IdentifyingRow(name, row, column, kind, "seems not to be English, so names may be missed")
    for column in _CLASS_COLUMNS:
        for value, class_name in enumerate(_class_names(split.features.get(column))):
            for found in _identifiers(class_name):
                yield IdentifyingRow(name, None, column, found.kind, f"name of class {value}")
    for column in (name for name in _ID_COLUMNS if name in split.column_names):  # older builds have no series
        for row, value in enumerate(split[column]):
            for kind in kinds_in_id(column, value or ""):
                yield IdentifyingRow(name, row, column, kind, "part of the id")


def _class_names(feature: Any) -> Sequence[str]:
    """Return the class names of a column, also one of lists; empty if it has no classes."""
    names: Sequence[str] = getattr(getattr(feature, "feature", feature), "names", None) or ()
    return names


@lru_cache(maxsize=100_000)
def kinds_in_id(column: str, value: str) -> tuple[str, ...]:
    """List the kinds of identifiers in an id or file name, by stricter rules than in a report, which gives cues.

    Example:
        >>> kinds_in_id("source", "SALEM^AHMAD/scan_20160312.png")
        ('DATE', 'NAME')
    """
    value = _PSEUDONYM.sub("", value)
    kinds = {"DATE"} if holds_date(value) else set()
    if "^" in value or (column == "patient_id" and re.search(r"[^\W\d_]\s+[^\W\d_]|,", value.strip())):
        kinds.add("NAME")  # SALEM^AHMAD, as in DICOM; Salem Ahmad
    for found in find_identifiers(value):
        # Ids are numbers: only a label before one makes it an identifier, and only a whole year makes it a date.
        is_labelled = value[: found.span[0]].rstrip()[-1:] in (":", "#", ".") or found.text.startswith(("+", "("))
        if (
            found.kind in ("NAME", "EMAIL", "URL", "PLACE")
            or (found.kind in ("ID", "PHONE") and is_labelled)
            or (found.kind == "DATE" and re.search(r"\d{4}", found.text))
        ):
            kinds.add(found.kind)
    return tuple(sorted(kinds))


@lru_cache(maxsize=100_000)
def _identifiers(text: str) -> tuple[Identifier, ...]:
    return find_identifiers(text)  # reports repeat: T1 and T2 share theirs, and many say "no disc herniation"


@lru_cache(maxsize=100_000)
def _unjudged_kinds(text: str) -> tuple[str, ...]:
    return unjudged_kinds(text)


def _excerpt(text: str, found: Identifier) -> str:
    start, end = found.span
    before, after = text[:start], text[end:]
    return f"{scrub_text(before)[-_EXCERPT_MARGIN:]}[{found.kind}]{scrub_text(after)[:_EXCERPT_MARGIN]}"


def _look_at_image(file: bytes) -> tuple[str, bool]:
    """Return the keys of metadata that may name someone, and whether the pixels seem to contain text."""
    with Image.open(io.BytesIO(file), formats=IMAGE_FORMATS) as image:
        image.load()
        texts = [key for key, value in image.info.items() if isinstance(value, str | bytes) and key not in _PIXEL_KEYS]
        return ", ".join(map(str, texts)), has_burnt_in_text(grey_8bit(image))


_PIXEL_KEYS = ("transparency", "icc_profile", "background")
