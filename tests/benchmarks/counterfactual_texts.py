"""Measure counterfactual reports: how many reports have one of each kind, and how fast they are made.

    python -m tests.benchmarks.counterfactual_texts --datasets data/synthetic data/spider_discs --out FILE.json

With `--notes "Radiologists Report.xlsx"`, also of the radiologists' notes of the Mendeley lumbar set. `--show 30`
prints as many reports of each with their counterfactuals, to be read.
"""

import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from datasets import load_dataset

from data_scripts.augmentations.counterfactuals import CHANGES, counterfactual_reports
from data_scripts.reports.text import normalise_report
from data_scripts.sources.notes import read_notes
from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    datasets: list[str] = field(
        default_factory=lambda: ["data/synthetic"],
        metadata={"help": "Built datasets; their training reports count."},
    )
    notes: str = field(default="", metadata={"help": "Workbook of the Mendeley notes."})
    show: int = field(default=0, metadata={"help": "Reports to print with their counterfactuals."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def measure(reports: list[str]) -> dict[str, Any]:
    """Make the counterfactuals of distinct reports, and count the reports that have one of each kind."""
    counterfactual_reports.cache_clear()
    counterfactual_reports("Mild left disc protrusion at L4-5.")  # compiles what all share
    start = time.perf_counter(), time.process_time()
    made = [counterfactual_reports(report) for report in reports]
    seconds, cpu_seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    have = Counter(change for texts in made for change in {change for change, _ in texts})
    return {
        "reports": len(reports),
        "texts": sum(map(len, made)),
        "share_with_any": sum(map(bool, made)) / len(reports),
        "share_with": {change: have[change] / len(reports) for change in CHANGES},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "reports_per_cpu_second": len(reports) / cpu_seconds,
        "texts_per_cpu_second": sum(map(len, made)) / cpu_seconds,
    }


def main(args: BenchArguments) -> None:
    """Measure and print."""
    sets = {Path(name).name: load_dataset(name)["train"]["report"][:] for name in args.datasets}
    if args.notes:
        sets["notes"] = [normalise_report(note.text) for note in read_notes(Path(args.notes)) if note.text]
    distinct = {name: list(dict.fromkeys(reports)) for name, reports in sets.items()}
    results = {name: measure(reports) for name, reports in distinct.items()}
    rows = [
        [
            *(name, found["reports"], *(f"{found['share_with'][change]:.2f}" for change in CHANGES)),
            *(f"{found['share_with_any']:.2f}", f"{found['texts_per_cpu_second']:.0f}"),
        ]
        for name, found in results.items()
    ]
    print(markdown_table(["reports", "number", *CHANGES, "any", "texts/s of CPU"], rows))
    for name, reports in distinct.items():
        for report in random.Random(0).sample(reports, min(args.show, len(reports))):
            print(f"\n{name}: {report}")
            for change, text in counterfactual_reports(report):
                print(f"  {change}: {text}")
    if args.out:
        Path(args.out).write_text(json.dumps({"date": date.today().isoformat(), "sets": results}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
