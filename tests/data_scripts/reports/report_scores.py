"""How well findings agree with labels made by reading: counts that a test and a command can print."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_scripts.reports.text import report_findings

LABELLED_KINDS = (
    "bulge",
    "protrusion",
    "extrusion",
    "sequestration",
    "herniation",
    "thecal sac compression",
    "nerve root compression",
    "stenosis",
    "foraminal narrowing",
)
Label = tuple[str | None, str, str | None, bool]  # level, kind, side, negated


@dataclass
class ReportScores:
    """Counts over labelled reports.

    Attributes:
        found: Affirmed (report, level, kind) that are labelled and read.
        invented: Read, not labelled.
        missed: Labelled, not read.
        negations: Labelled (report, level, kind) that were read either way, and labelled denials that were not.
        right_negations: Those of them whose negation agrees.
        sides: Affirmed labels that were read and have a side in the labels or in what was read.
        right_sides: Those of them whose side agrees.
        differences: Each disagreement in words.
    """

    found: int = 0
    invented: int = 0
    missed: int = 0
    negations: int = 0
    right_negations: int = 0
    sides: int = 0
    right_sides: int = 0
    differences: list[str] | None = None

    @property
    def f1(self) -> float:
        return 2 * self.found / (2 * self.found + self.invented + self.missed)

    @property
    def negation_accuracy(self) -> float:
        return self.right_negations / self.negations

    @property
    def side_accuracy(self) -> float:
        return self.right_sides / self.sides

    def __str__(self) -> str:
        return (
            f"micro-F1 {self.f1:.3f} ({self.found} found, {self.invented} invented, {self.missed} missed), "
            f"negation {self.negation_accuracy:.3f} ({self.right_negations} of {self.negations}), "
            f"side {self.side_accuracy:.3f} ({self.right_sides} of {self.sides})"
        )


def read_labels(path: Path) -> dict[str, list[Label]]:
    """Labels by patient id in four digits."""
    labels = json.loads(path.read_text(encoding="utf-8"))
    return {patient_id.zfill(4): [tuple(label) for label in of_report] for patient_id, of_report in labels.items()}


def score_reports(texts: Mapping[str, str], labels: Mapping[str, Sequence[Label]]) -> ReportScores:
    """Compare what is read in each labelled text with its labels."""
    scores = ReportScores(differences=[])
    for patient_id, labelled in labels.items():
        read = [
            (finding.level, finding.kind, finding.side, finding.negated)
            for finding in report_findings(texts[patient_id])
            if finding.kind in LABELLED_KINDS
        ]
        _score(scores, patient_id, read, labelled)
    return scores


def _score(scores: ReportScores, patient_id: str, read: Sequence[Label], labelled: Sequence[Label]) -> None:
    affirmed_read = {(level, kind): side for level, kind, side, negated in read if not negated}
    affirmed_labels = {(level, kind): side for level, kind, side, negated in labelled if not negated}
    scores.found += len(affirmed_read.keys() & affirmed_labels.keys())
    scores.invented += len(affirmed_read.keys() - affirmed_labels.keys())
    scores.missed += len(affirmed_labels.keys() - affirmed_read.keys())
    scores.differences += [
        f"{patient_id}: {what} {entry}"
        for what, entries in (
            ("invented", affirmed_read.keys() - affirmed_labels.keys()),
            ("missed", affirmed_labels.keys() - affirmed_read.keys()),
        )
        for entry in sorted(entries, key=str)
    ]
    ways_read: dict[tuple[str | None, str], set[bool]] = {}
    for level, kind, _, negated in read:
        ways_read.setdefault((level, kind), set()).add(negated)
    for level, kind, _, negated in labelled:
        if (level, kind) in ways_read or negated:
            scores.negations += 1
            agrees = negated in ways_read.get((level, kind), set())
            scores.right_negations += agrees
            scores.differences += [] if agrees else [f"{patient_id}: negation of {level} {kind} is {negated}"]
    for entry in affirmed_read.keys() & affirmed_labels.keys():
        if affirmed_read[entry] or affirmed_labels[entry]:
            scores.sides += 1
            scores.right_sides += affirmed_read[entry] == affirmed_labels[entry]
            if affirmed_read[entry] != affirmed_labels[entry]:
                scores.differences.append(
                    f"{patient_id}: side of {entry} is {affirmed_labels[entry]}, read {affirmed_read[entry]}"
                )
