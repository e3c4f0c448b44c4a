"""Which classes the rows of a build get: the source's own, those read from the reports, or the paper's pair."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from data_scripts.records import PAPER_LABELS, Exclusion, Record, SourceInfo, paper_labels
from data_scripts.reports.text import DISC_LEVELS, REPORT_LABELS, labels_at_level, labels_from_report, normalise_report
from data_scripts.writing.build_arguments import BuildArguments


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How the rows of a build are labelled."""

    paper: bool  # the exclusive pair `LBP` / `No Finding` instead of findings
    replaces: bool  # labels are read from the reports here, whatever the source gives
    from_reports: bool  # labels come from the reports, here or in the source
    reports_say_them: bool = True  # not where reports were composed from grades

    @classmethod
    def of(cls, args: BuildArguments, info: SourceInfo) -> "Labelling":
        """Plan the labels; without labels in the source, the paper's pair is read from the reports."""
        paper = args.labels == "paper"
        replaces = info.about.labels_from == "source" and (args.labels_from_reports or (paper and not info.label_names))
        from_reports = replaces or info.about.labels_from == "reports"
        reports_say_them = info.about.labels_from != "grades"
        return cls(paper=paper, replaces=replaces, from_reports=from_reports, reports_say_them=reports_say_them)

    def describe(self, info: SourceInfo) -> SourceInfo:
        """Give a source the classes that its rows will have."""
        names = REPORT_LABELS if self.replaces else info.label_names
        return replace(info, label_names=PAPER_LABELS if self.paper else names)

    def label(self, items: Iterable[Record | Exclusion]) -> Iterator[Record | Exclusion]:
        """Label the records; exclusions pass."""
        for item in items:
            if isinstance(item, Exclusion) or not (self.paper or self.replaces):
                yield item
                continue
            labels = read_labels(item.report, item.level) if self.replaces else item.labels
            yield replace(item, labels=paper_labels(labels) if self.paper else labels)


@lru_cache(maxsize=4096)  # the slices of a study share their report
def read_labels(report: str, level: str) -> tuple[str, ...] | None:
    """Read the classes of an image from its report: at its disc if one is named, else those of the whole report.

    Returns:
        Classes among `REPORT_LABELS`; None if the report was not understood.

    Example:
        >>> read_labels("Disc bulge at L4/L5.", "L4/L5"), read_labels("Disc bulge at L4/L5.", "L5/S1")
        (('LBP', 'disc bulge'), ('LBP',))
    """
    text = normalise_report(report)  # as it is stored
    return (labels_at_level(text, level) if level in DISC_LEVELS else labels_from_report(text)) or None


def labels_report(
    labelling: Labelling, written: Sequence[Record], own_name_of: Mapping[str, str], source_names: Sequence[str]
) -> dict[str, Any]:
    """Account for the labels of the written rows.

    Args:
        labelling: How they were labelled.
        written: The records.
        own_name_of: The user's name of a row by its `source`.
        source_names: The source's own classes.

    Returns:
        A JSON value: `classes`, `from_reports`, `not_used` (the source's classes, if reports were read instead),
        `rows_without`, and where labels come from reports `not_understood`: for each report without a class, its first
        row and the number of its rows.
    """
    without = [record for record in written if record.labels is None]
    first_row = {record.report: own_name_of[record.source] for record in reversed(without)}
    counts = Counter(record.report for record in without)
    return {
        "classes": "paper" if labelling.paper else "findings",
        "from_reports": labelling.from_reports,
        "reports_say_them": labelling.reports_say_them,
        "not_used": [*source_names] if labelling.replaces else [],
        "rows_without": len(without),
        "not_understood": [{"first_row": first_row[report], "rows": count} for report, count in counts.items()]
        if labelling.from_reports
        else [],
    }


def label_lines(report: Mapping[str, Any]) -> list[str]:
    """Say for a terminal which rows have no label, and what to do about it.

    Example:
        >>> account = {"rows_without": 2, "not_used": [], "from_reports": True, "not_understood": [{}]}
        >>> label_lines({"rows_written": 9, "labels": account})
        ['2 rows have no label: 1 report was not understood; build_report.json lists it']
    """
    account, num_rows = report["labels"], report["rows_written"]
    lines, without = [], account["rows_without"]
    if account["not_used"]:
        lines.append(f"labels were read from the reports; not used: {', '.join(account['not_used'])}")
    if without and account["from_reports"]:
        count = len(account["not_understood"])
        reports = "1 report was" if count == 1 else f"{count} reports were"
        lines.append(
            f"{without} rows have no label: {reports} not understood; build_report.json lists "
            + ("it" if count == 1 else "them")
        )
    elif without:
        rows = "no row has a label" if without == num_rows else f"{without} of {num_rows} rows have no label"
        lines.append(rows + "; --labels_from_reports reads labels from the reports" * account["reports_say_them"])
    return lines
