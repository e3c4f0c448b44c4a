"""Judge the ids of a table: destroyed by a spreadsheet, or one patient spelt in two ways?"""

import re
import unicodedata
from collections.abc import Callable, Iterable

from data_scripts.records import is_missing
from data_scripts.sources.tables import Row

ID_COLUMNS = ("patient_id", "study_id")
WAY_OUT = "format the column as text, and fill it again from where the ids come from"

# 1.23457E+11, 1,20E+11; 1.2345678E11, as Java writes it. 5E3 may be an id.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+E[+-]?|E\+)[0-9]+", re.IGNORECASE)
_ROUNDED = re.compile(r"[1-9][0-9]{14}0{3,}")  # a spreadsheet keeps 15 digits
_MONTH = r"(?:Jan|Feb|Mar|Mrz|Mär|Apr|May|Mai|Jun|Jul|Aug|Sep|Oct|Okt|Nov|Dec|Dez)"
# 3-4 typed into a spreadsheet becomes 03-Apr, or Apr-03. A centre may be called APR: only with one capital.
_MONTH_DATE = re.compile(rf"[0-9]{{1,2}}(?:-|\. ?| ){_MONTH}(?:[-. ][0-9]{{2,4}})?|{_MONTH}[- ][0-9]{{2}}")
# The same where months begin with a small letter: 03-janv, 3-ene, 03/mag. These may be the names of centres, too.
_SMALL_MONTH_DATE = re.compile(
    "[0-9]{1,2}[-./ ](?:janv?|ene|gen|f[eé]vr?|feb|mars|mar|mrt|avr|abr|apr|mai|mei|mag|maj|may|juin|juni?|giu|juil"
    "|juli?|lug|août|aout|ago|aug|sept?|set|okt|oct|out|ott|nov|d[eé]c|dic|dez|des)(?:[-./ ][0-9]{2,4})?"
)
_MIDNIGHT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]00:00:00")
_YEAR, _MONTH_NUMBER, _DAY = "(?:19|20)[0-9]{2}", "(?:0?[1-9]|1[0-2])", "(?:0?[1-9]|[12][0-9]|3[01])"
_DATE = re.compile(
    rf"{_YEAR}([-/.]){_MONTH_NUMBER}\1{_DAY}|{_DAY}([-/.]){_MONTH_NUMBER}\2{_YEAR}|{_MONTH_NUMBER}/{_DAY}/{_YEAR}"
)

_SURELY = (_MONTH_DATE, _MIDNIGHT)
_LIKE_DATES = (*_SURELY, _SMALL_MONTH_DATE, _DATE)


def read_id(row: Row, column: str) -> str:
    """Return an id as written, its accents in one form; raise a ValueError if a spreadsheet has destroyed it."""
    text = unicodedata.normalize("NFC", row.written(column))
    if _SCIENTIFIC.fullmatch(text) or _ROUNDED.fullmatch(text):
        raise ValueError(f"{column} {text[:40]!r} is a number that a spreadsheet has rounded; {WAY_OUT}")
    return text


def dates_among(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Collect the ids, by column, that a spreadsheet took for dates: what looks like a date among others that do not.

    If all look like dates, they may be; a patient called `03-Jan` is none.
    """
    dates = {}
    for column in ID_COLUMNS:
        ids = {text for row in rows if not is_missing(text := _id_or_empty(row, column))}
        like_dates = {text for text in ids if any(form.fullmatch(text) for form in _LIKE_DATES)}
        surely = {text for text in like_dates if column == "patient_id" and any(f.fullmatch(text) for f in _SURELY)}
        dates[column] = like_dates if like_dates < ids else surely
    return dates


def check_no_date(column: str, text: str, dates: Iterable[str]) -> None:
    """Raise a ValueError if an id is one of the `dates_among` the ids."""
    if text in dates:
        raise ValueError(f"{column} {text!r} is an id that a spreadsheet took for a date; {WAY_OUT}")


def check_spellings(rows: Iterable[Row]) -> None:
    """Raise a ValueError if two ids are probably one patient, who could go to two splits."""
    ids = {text for row in rows if not is_missing(text := _id_or_empty(row, "patient_id"))}
    if pair := lookalikes(ids, _patient_key):
        raise ValueError(
            f"patient_id {pair[0]!r} and {pair[1]!r} differ only in case, leading zeros or '.0'; spell a patient one "
            "way, and give different patients more distinct ids"
        )


def lookalikes(names: Iterable[str], key: Callable[[str], str]) -> tuple[str, str] | None:
    """Find two names of one key, the first in alphabetical order."""
    spellings: dict[str, str] = {}
    for name in sorted(names):
        if (other := spellings.setdefault(key(name), name)) != name:
            return other, name
    return None


def _id_or_empty(row: Row, column: str) -> str:
    try:
        return "" if row.problem else read_id(row, column)
    except ValueError:
        return ""  # its row is left out with this reason


def _patient_key(patient_id: str) -> str:
    """Reduce an id to the part that its spellings share.

    Example:
        >>> [_patient_key(patient_id) for patient_id in ("P001", "p1", "0010", "10.0", "1.2.0", "a-05", "P  1")]
        ['p1', 'p1', '10', '10', '1.2.0', 'a-5', 'p 1']
    """
    letters = " ".join(unicodedata.normalize("NFKC", patient_id).casefold().split())
    without_decimals = re.sub(r"^([0-9]+)\.0+$", r"\1", letters)
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", without_decimals)
