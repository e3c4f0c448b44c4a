"""The content of `build_report.json`: every row of the source is written, or listed with a reason."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_scripts.auditing.privacy_check import few_images_with_letters
from data_scripts.privacy.identifiers import scrub_text
from data_scripts.privacy.protection import LANGUAGE
from data_scripts.privacy.pseudonyms import holds_date
from data_scripts.records import Exclusion, Record, SourceInfo
from data_scripts.splits import num_shared_patients
from data_scripts.writing.row_labels import label_lines

REPORT_NAME = "build_report.json"
NUM_PRINTED = 10
PATHS = ("raw", "out", "notes", "pseudonym_key")  # arguments; a folder may have the name of a patient


def build_report(
    info: SourceInfo,
    *,
    command: str,
    arguments: Mapping[str, Any],
    num_read: int,
    exclusions: Sequence[Exclusion],
    records_of_split: Mapping[str, Sequence[Record]],
    split_rule: str,
    deidentification: Mapping[str, Any],
    labels: Mapping[str, Any],
    facts_changed: Sequence[str],
    orientation_not_stated: Sequence[str],
    windows_replaced: Sequence[str],
    num_pseudo_masks: int = 0,
) -> dict[str, Any]:
    """Account for all rows.

    `facts_changed` names those in which a finding was taken for a name and replaced, `orientation_not_stated` those
    whose image is as it was stored, and `windows_replaced` those whose header had a window that did not show them.
    """
    written = [record for records in records_of_split.values() for record in records]
    assert num_read == len(written) + len(exclusions)
    patient_ids = [record.patient_id for record in written]
    splits = [split for split, records in records_of_split.items() for _ in records]
    leak = {"num_shared": num_shared_patients(patient_ids, splits), "num_patients": len(set(patient_ids))}
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "arguments": dict(arguments),
        "source": {
            "name": info.about.name,
            "anatomy": info.about.anatomy,
            "license": info.about.license,
            "citation": info.about.citation,
            "summary": info.summary or info.about.summary,
            "report_origin": info.report_origin,
        },
        "may_be_shared": info.about.may_be_shared,
        "rows_read": num_read,
        "rows_written": len(written),
        "num_masks": sum(record.load_mask is not None for record in written) + num_pseudo_masks,
        "pseudo_masks": {
            "written": num_pseudo_masks,
            "tried": sum(record.gets_pseudo_mask for record in written),
        },
        "split_rule": split_rule,
        "splits": split_table(records_of_split),
        "labels": dict(labels),
        "leak": leak if arguments["split_by"] == "record" else None,
        "deidentification": dict(deidentification),
        "facts_changed": {"count": len(facts_changed), "first": list(facts_changed[:NUM_PRINTED])},
        "orientation_not_stated": list(orientation_not_stated),
        "windows_replaced": list(windows_replaced),
        "exclusions": [asdict(exclusion) for exclusion in exclusions],
    }


def deidentification_report(
    written: Iterable[Record],
    *,
    has_public_ids: bool,
    keep_ids: bool,
    replaced: Mapping[str, int],
    left: Mapping[str, int],
    rows_left: Mapping[str, Sequence[str]],
    burnt_in_text: Sequence[str],
    own_name_of: Mapping[str, str],
) -> dict[str, Any]:
    """Summarise the de-identification, and whether the written rows pass, as publishing requires.

    Passages `replaced` in texts, or still `left`, are counted by kind, `LANGUAGE` for a text that seems not to be
    English, in which the rules may miss names; `rows_left` has these kinds by row. `burnt_in_text` lists the sources
    of images that seem to contain text, and `own_name_of` gives the user's name of a row by its source as written.
    """
    records = list(written)
    dates = [record.source for record in records if any(map(holds_date, _names_in(record)))]
    few_letters = few_images_with_letters(len(burnt_in_text), len(records))
    return {
        "passed": not left and not dates and few_letters and (has_public_ids or not keep_ids),
        "ids": "kept" if keep_ids else "as published" if has_public_ids else "pseudonyms",
        "replaced_in_texts": dict(sorted(replaced.items())),
        "left_in_texts": dict(sorted(left.items())),
        "rows_left": [{"source": own_name_of[source], "kinds": list(kinds)} for source, kinds in rows_left.items()],
        "dates_in_names": [own_name_of[source] for source in dates],
        "burnt_in_text": [own_name_of[source] for source in burnt_in_text],
    }


def _names_in(record: Record) -> tuple[str, ...]:
    return record.study_id, record.series_id or "", record.source


def without_row_names(
    report: Mapping[str, Any], pseudonym_of: Callable[[str], str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the names of rows, files and folders, which may be those of patients, out of a report.

    Args:
        report: As `build_report` makes it.
        pseudonym_of: Gives the pseudonym of a row by the user's name of it.

    Returns:
        The report, whose rows go by their pseudonyms, or by their number in the table; and what the user needs to find
        them: the names of the rows that it lists, and the reasons for exclusions in full. The second is empty if the
        report lists no row.
    """
    names: dict[str, str] = {}

    def shown(name: str) -> str:
        row = _ROW_OF_TABLE.search(name)
        table = name.partition(".")[0].casefold()
        pseudonym = f"{table if table in _USUAL_TABLES else 'table'}{row[0]}" if row else pseudonym_of(name)
        names[pseudonym] = name
        return pseudonym

    found, labels = report["deidentification"], report["labels"]
    nameless = {
        **report,
        "arguments": {
            name: name.upper() if value and name in PATHS else value for name, value in report["arguments"].items()
        },
        "deidentification": {
            **found,
            "rows_left": [{**row, "source": shown(row["source"])} for row in found["rows_left"]],
            "dates_in_names": [*map(shown, found["dates_in_names"])],
            "burnt_in_text": [*map(shown, found["burnt_in_text"])],
        },
        "labels": {
            **labels,
            "not_understood": [{**row, "first_row": shown(row["first_row"])} for row in labels["not_understood"]],
        },
        "facts_changed": {**report["facts_changed"], "first": [*map(shown, report["facts_changed"]["first"])]},
        "orientation_not_stated": [*map(shown, report["orientation_not_stated"])],
        "windows_replaced": [*map(shown, report["windows_replaced"])],
        "exclusions": [
            {**exclusion, "source": shown(exclusion["source"]), "reason": without_quoted_names(exclusion["reason"])}
            for exclusion in report["exclusions"]
        ],
    }
    return nameless, {"rows": names, "exclusions": report["exclusions"]} if names else {}


def without_quoted_names(reason: str) -> str:
    """Replace file names, ids, quoted words and long numbers in the reason for an exclusion: they may name someone.

    Example:
        >>> without_quoted_names("missing image: 'Salem 3.png' is not in the folder; unknown level 'L5/L6'")
        "missing image: '...' is not in the folder; unknown level 'L5/L6'"
        >>> without_quoted_names("study 'A7' has several patients; no report of sub-Salem in ses-2")
        "study '...' has several patients; no report of sub-... in ses-..."
    """
    return scrub_text(_FILE_NAME.sub("...", _BIDS_LABEL.sub(r"\1-...", _QUOTED.sub(_without_name, reason))))


def _without_name(quoted: re.Match[str]) -> str:
    may_name = quoted["id"] or _MAY_NAME.search(quoted["text"])
    return f"{quoted['id'] or ''}{quoted['text'][0]}...{quoted['text'][0]}" if may_name else quoted[0]


_ROW_OF_TABLE = re.compile(r" row \d+$")
_USUAL_TABLES = ("metadata", "reports", "participants")  # a table of another name may be called after a patient
# As `repr` quotes: "O'Brien.png".
_QUOTED = re.compile(
    r"""(?P<id>\b(?:patient|study|series)(?:_id)?\s)?(?<!\w)(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
)
_MAY_NAME = re.compile(r"[^\W\d_]{3}|\d{5}")
_BIDS_LABEL = re.compile(r"\b(sub|ses)-\w+")
_FILE_NAME = re.compile(
    r"(?<![^\s'\":;,])[^\s'\":;,]+\.(?:png|jpe?g|tiff?|bmp|gif|dcm|ima|nii|gz|mha|mhd|nrrd|csv|tsv|jsonl?|xlsx?|txt)\b",
    re.IGNORECASE,
)


def row_names_path(out: Path) -> Path:
    """Return the file next to a built folder that gives the names of the rows in its report."""
    return out.with_name(f"{out.name}.rows.json")


def split_table(records_of_split: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Count rows, patients and rows of each label, by split."""
    return {
        split: {
            "rows": len(records),
            "patients": len({record.patient_id for record in records}),
            "labels": dict(sorted(Counter(label for record in records for label in set(record.labels or ())).items())),
        }
        for split, records in records_of_split.items()
    }


def rule_summary(exclusions: Sequence[Mapping[str, Any]]) -> str:
    """Summarise the rows left out by rule in one line, by reason; empty if there are none.

    Example:
        >>> rule_summary([{"source": "a", "reason": "empty note", "by_rule": True}] * 60)
        '60 rows left out by rule: 60 empty note'
    """
    reasons = Counter(exclusion["reason"] for exclusion in exclusions if exclusion["by_rule"])
    if not reasons:
        return ""
    rarest = f", {len(reasons) - NUM_PRINTED} more reasons" if len(reasons) > NUM_PRINTED else ""
    named = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(NUM_PRINTED))
    total = reasons.total()
    return f"{total} row{'s' * (total != 1)} left out by rule: {named}{rarest}"


def summary_lines(report: Mapping[str, Any], out: object) -> list[str]:
    """List what the terminal shows at the end."""
    bad = [exclusion for exclusion in report["exclusions"] if not exclusion["by_rule"]]
    lines = [
        f"{name:>10}: {split['rows']} rows, {split['patients']} patients" for name, split in report["splits"].items()
    ]
    lines.append(f"{report['rows_written']} of {report['rows_read']} rows written to {out}")
    lines += filter(None, [rule_summary(report["exclusions"])])
    if unstated := len(report["orientation_not_stated"]):
        lines.append(f"orientation not stated: {unstated} images, which are kept as they were stored")
    if replaced := len(report["windows_replaced"]):
        lines.append(f"header windows replaced: {replaced}, which did not show the slice")
    lines += label_lines(report)
    if tried := report["pseudo_masks"]["tried"]:
        lines.append(f"pseudo-masks: {report['pseudo_masks']['written']} rows; {tried} had no mask and could have one")
    if letters := len(report["deidentification"]["burnt_in_text"]):
        lines.append(f"images that may contain text: {letters}; check those that {REPORT_NAME} names")
    if changed := report["facts_changed"]["count"]:
        lines.append(
            f"warning: rows whose findings changed when names were replaced: {changed}; {REPORT_NAME} names the first"
        )
    if unjudged := report["deidentification"]["left_in_texts"].get(LANGUAGE):
        lines.append(
            f"warning: texts that seem not to be English: {unjudged}; names and dates in them may be missed, "
            f"{REPORT_NAME} names their rows in rows_left"
        )
    if not report["deidentification"]["passed"]:
        lines.append(f"do not share: the rows may name a person, see deidentification in {REPORT_NAME}")
    lines += [f"left out: {exclusion['source']}: {exclusion['reason']}" for exclusion in bad[:NUM_PRINTED]]
    if len(bad) > NUM_PRINTED:
        lines.append(f"... and {len(bad) - NUM_PRINTED} more in {REPORT_NAME}")
    if (names := row_names_path(Path(str(out)))).exists():
        lines.append(f"{names} gives the names of these rows: keep it to yourself")
    return lines
