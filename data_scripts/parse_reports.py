"""Read a workbook of radiologists' notes into findings: one line for each finding and level.

    python -m data_scripts.parse_reports --notes "Radiologists Report.xlsx" --out findings.jsonl
    python -m data_scripts.parse_reports --notes "Radiologists Report.xlsx" --out findings.csv --overwrite

A line contains `patient_id`, `level` (`L4/L5`, or null), `kind`, `side`, `severity`, `negated`, `text` (the note as
typed, with placeholders for names, dates and numbers) and `span` (the characters that state the kind:
`text[span[0]:span[1]]`). `findings_report.json` next to it counts notes, findings and classes, and lists the notes that
are empty, unreadable or not understood. A note that was not understood has no class: it is not a normal one.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_scripts.privacy.identifiers import scrub_text
from data_scripts.records import LOW_BACK_PAIN, NO_FINDING
from data_scripts.reports.text import labels_from_report, read_report, report_findings
from data_scripts.sources.notes import Note, read_notes
from data_scripts.system.command_line import run, setting
from data_scripts.system.staging import staging_folder
from data_scripts.system.whole_files import write_json, write_text

COLUMNS = ("patient_id", "level", "kind", "side", "severity", "negated", "span", "text")

WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says


@dataclass(kw_only=True)
class ParseArguments:
    """Read a workbook of radiologists' notes into findings."""

    notes: Path = setting(MISSING, "Workbook (.xlsx) with a column `Patient ID` and one with notes.")
    out: Path = setting(
        MISSING,
        "Table to write, .jsonl or .csv: a line for each finding and level. `text` is the note with placeholders for "
        "names, `span` the characters of it that state the kind. NAME_report.json is written next to it.",
    )
    overwrite: bool = setting(False, "Replace --out if it exists.")


def main(args: ParseArguments) -> None:
    """Read the notes, write their findings, and print the counts."""
    report = parse_reports(args)
    print(
        f"{report['notes_read']} notes read: {report['with_text']} with text, {report['empty']} empty, "
        f"{report['left_out']} left out, {len(report['not_understood'])} not understood"
    )
    print(f"empty: {', '.join(report['empty_patient_ids']) or 'none'}")
    for exclusion in report["exclusions"][:10]:
        print(f"left out: {exclusion['source']}: {exclusion['reason']}")
    for note in report["not_understood"][:10]:
        print(f"not understood: {note['source']}: {note['reason']}")
    print(f"{report['findings']} findings written to {args.out}")
    print(", ".join(f"{count} {name}" for name, count in report["patients_by_class"].items()))


def parse_reports(args: ParseArguments) -> dict[str, Any]:
    """Write the findings of all notes and a report next to them; return the report.

    Raises:
        ValueError: If the workbook cannot be read, or `--out` exists or has another extension.
    """
    report_path = args.out.with_name(f"{args.out.stem}_report.json")
    if args.out.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"--out must end in .jsonl or .csv, got {args.out}")
    for path in (args.out, report_path):
        if path.exists() and not args.overwrite:
            raise ValueError(f"{path} exists; choose another --out, or replace it with --overwrite")
    notes = read_notes(args.notes)
    usable = [note for note in notes if note.problem is None]
    with_text = [replace(note, text=scrub_text(note.text)) for note in usable if note.text]
    rows = [row for note in tqdm(with_text, desc="notes", unit=" notes", disable=None) for row in findings_of(note)]
    classes = Counter(label for note in with_text for label in labels_from_report(note.text)[:1])  # the patient's
    problems = [(note.where, read_report(note.text).problem) for note in with_text]
    report = {
        "notes": str(args.notes),
        "notes_read": len(notes),
        "with_text": len(with_text),
        "empty": len(usable) - len(with_text),
        "left_out": len(notes) - len(usable),
        "findings": len(rows),
        "findings_by_kind": dict(Counter(row["kind"] for row in rows).most_common()),
        "patients_by_class": {name: classes[name] for name in (LOW_BACK_PAIN, NO_FINDING)},
        "not_understood": [{"source": where, "reason": problem} for where, problem in problems if problem],
        "empty_patient_ids": [note.patient_id for note in usable if not note.text],
        "exclusions": [{"source": note.where, "reason": note.problem} for note in notes if note.problem is not None],
    }
    as_lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with staging_folder(args.out) as staging:  # a full disk leaves neither
        write_text(staging / args.out.name, _as_csv(rows) if args.out.suffix == ".csv" else as_lines)
        write_json(staging / report_path.name, report)
        (staging / args.out.name).replace(args.out)
        (staging / report_path.name).replace(report_path)
    return report


def findings_of(note: Note) -> list[dict[str, Any]]:
    """List the findings of a note as rows, in the order of the text."""
    rows = [{**asdict(note), **asdict(finding), "span": list(finding.span)} for finding in report_findings(note.text)]
    return [{column: row[column] for column in COLUMNS} for row in rows]


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows as CSV: null as an empty cell, `true` or `false`, the span as `start-end`."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    for row in rows:
        start, end = row["span"]
        writer.writerow({**row, "negated": str(row["negated"]).lower(), "span": f"{start}-{end}"})
    return table.getvalue()


if __name__ == "__main__":
    sys.exit(run(main))
