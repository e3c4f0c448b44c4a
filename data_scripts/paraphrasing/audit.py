"""Report which candidates of a rephrasing run were kept, in numbers and examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from data_scripts.paraphrasing.loop import CAUSES, Rephrased
from data_scripts.reports.text import report_facts
from data_scripts.system.markdown import code_block, code_span, escape_markdown, fill_markdown

AUDIT_NAME = "paraphrase_audit"
NUM_EXAMPLES = 10


def audit(
    rephrased: Sequence[Rephrased], *, model: str, num_rephrasings: int, splits: Sequence[str], command: str
) -> dict[str, Any]:
    """Count verdicts, and pick ten examples of each, as JSON values; without a model `acceptance_rate` is null."""
    candidates = [(entry.report, candidate) for entry in rephrased for candidate in entry.candidates]
    of_model = Counter(c.verdict.cause for _, c in candidates if c.origin == "model")
    kept = Counter(c.origin for _, c in candidates if c.verdict.cause == "accepted")
    # Examples of the model come first, and from as many reports as possible.
    nth = Counter[tuple[str, str, str]]()
    ranked = []
    for report, candidate in candidates:
        verdict, origin = candidate.verdict, candidate.origin
        example: dict[str, Any] = {"report": report, "candidate": candidate.text, "origin": origin}
        example |= {"missing": [*verdict.missing], "added": [*verdict.added]}
        ranked.append((origin != "model", nth[verdict.cause, origin, report], verdict.cause, example))
        nth[verdict.cause, origin, report] += 1
    ranked.sort(key=lambda item: item[:2])
    examples = {cause: [item[3] for item in ranked if item[2] == cause][:NUM_EXAMPLES] for cause in CAUSES}
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "model": model,
        "num_rephrasings": num_rephrasings,
        "splits": list(splits),
        "reports": len(rephrased),
        "reports_without_finding": sum(not report_facts(entry.report) for entry in rephrased),
        "reports_complete": sum(entry.is_complete for entry in rephrased),
        "candidates_of_model": of_model.total(),
        "acceptance_rate": of_model["accepted"] / of_model.total() if of_model else None,
        "verdicts_of_model": {cause: of_model[cause] for cause in CAUSES},
        "kept": {origin: kept[origin] for origin in ("model", "embedded")},
        "examples": {cause: found for cause, found in examples.items() if found},
    }


def audit_text(result: Mapping[str, Any]) -> str:
    """Write the audit in Markdown."""
    lines = [
        "# Rephrasings: kept and rejected",
        "",
        f"{result['reports']} distinct reports, {result['reports_complete']} of them with all "
        f"{result['num_rephrasings']} rephrasings, {result['reports_without_finding']} without a finding that could "
        f"be checked. Kept: {result['kept']['model']} from the model, {result['kept']['embedded']} from the embedded "
        "rephraser.",
        "",
    ]
    if result["acceptance_rate"] is not None:
        lines += [
            f"{code_span(result['model'])} proposed {result['candidates_of_model']} texts; "
            f"{100 * result['acceptance_rate']:.1f} % were accepted.",
            "",
            "| verdict | texts |",
            "| --- | --- |",
            *(f"| {cause} | {count} |" for cause, count in result["verdicts_of_model"].items()),
            "",
        ]
    for cause, examples in result["examples"].items():
        lines += [f"## {cause[0].upper()}{cause[1:]}", ""]
        for example in examples:
            lines += [
                fill_markdown("- Report: {report}\n  - {origin}: {candidate}", example),
                *(
                    f"  - {key}: {escape_markdown('; '.join(example[key]))}"
                    for key in ("missing", "added")
                    if example[key]
                ),
            ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def card_paragraph(result: Mapping[str, Any]) -> str:
    """Describe for the dataset card how the rephrasings were made."""
    if result["acceptance_rate"] is None:
        made = "composed from the parsed findings of each report"
    else:
        made = (
            f"proposed by {code_span(result['model'])} ({100 * result['acceptance_rate']:.1f} % of "
            f"{result['candidates_of_model']} proposals accepted); {result['kept']['embedded']} of "
            f"{sum(result['kept'].values())} were composed from the parsed findings where it gave too few"
        )
    return f"""
## Rephrasings

{result["num_rephrasings"]} for each report of {", ".join(result["splits"])}, {made}. Each was parsed again and kept
only if its facts (finding, level, side, severity, negation) equal the report's; other splits keep what they had. The
check sees only what the report parser sees; nobody has read them all.
`{AUDIT_NAME}.md` contains counts and examples. Made on {result["date"]} with

{code_block(result["command"], "sh")}
"""
