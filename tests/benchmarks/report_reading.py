"""Measure report reading: findings against labels made by reading the notes, and the time it takes.

    python -m tests.benchmarks.report_reading --notes "Radiologists Report.xlsx" --out FILE.json

The notes are those of the Mendeley lumbar set. Three sets of labels, each by a reader who saw no output of the parser:
`development` was known when the rules were written; the notes of `held_out` were neither read nor parsed before the
rules were done; those of `second` had been read for the rules, but their labels came after.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from data_scripts.reports.text import labels_from_report, report_findings
from data_scripts.sources.notes import read_notes
from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table
from tests.data_scripts.reports.report_scores import read_labels, score_reports

LABELS = Path(__file__).parents[1] / "data_scripts" / "reports"
SETS = ("development", "held_out", "second")


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    notes: str = field(metadata={"help": "Workbook of the Mendeley notes."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BenchArguments) -> None:
    """Measure and print."""
    texts = {note.patient_id: note.text for note in read_notes(Path(args.notes))}
    with_text = [text for text in texts.values() if text]
    start = time.perf_counter(), time.process_time()
    num_findings = sum(len(report_findings(text)) for text in with_text)
    seconds, cpu_seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    patients = Counter(next(iter(labels_from_report(text)), "not understood") for text in with_text)
    content = {
        "date": date.today().isoformat(),
        "notes": {"all": len(texts), "with_text": len(with_text), "findings": num_findings, "patients": patients},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "scores": {},
    }
    rows = []
    for name in SETS:
        labels = read_labels(LABELS / f"report_labels_{name}.json")
        scores = score_reports(texts, labels)
        content["scores"][name] = {"num_notes": len(labels), **asdict(scores)}
        rows.append([name, len(labels), str(scores)])
    print(markdown_table(["labels", "notes", "scores"], rows))
    print(f"{len(with_text)} notes in {seconds:.2f} s ({cpu_seconds:.2f} s of CPU); {dict(patients)}")
    if args.out:
        Path(args.out).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main))
