"""The audit of a dataset as Markdown that also reads well in a terminal."""

from collections.abc import Mapping
from typing import Any

from data_scripts.auditing.balance import LARGE_DIFFERENCE


def audit_markdown(result: Mapping[str, Any]) -> str:
    """Write what `audit.audit` found."""
    sections = [
        f"# Audit of {result['dataset']}: {'no leak' if result['clean'] else '**leaks**'}",
        result["in_words"],
        *(_leak_section(kind, leak) for kind, leak in result["leaks"].items()),
        "## Splits\n\n" + _split_table(result),
        "Shared reports: rows whose text a split above holds word for word. They are no leak by themselves.",
        "## Classes\n\nShare of the rows; in brackets the standardised difference to the first split, "
        f"marked * above {LARGE_DIFFERENCE}.\n\n" + _class_table(result),
        f"```sh\n{result['command']}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _leak_section(kind: str, leak: Mapping[str, Any]) -> str:
    examples = "\n".join(f"- {example}" for example in leak["examples"])
    more = leak["num_shared"] - len(leak["examples"])
    return f"## Leak: {kind}\n\n{examples}" + (f"\n- and {more} more" if more > 0 else "")


def _split_table(result: Mapping[str, Any]) -> str:
    header = ["split", "rows", "patients", "studies", "distinct reports", "shared reports", "repeated images"]
    rows = []
    for split, sizes in result["splits"].items():
        shared = result["shared_reports"].get(split)
        rows.append(
            [
                split,
                *map(str, sizes.values()),
                "" if shared is None else f"{100 * shared:.1f} %",
                str(result["repeated_images"][split]),
            ]
        )
    return _table(header, rows)


def _class_table(result: Mapping[str, Any]) -> str:
    splits = list(result["splits"])
    rows = [
        [entry["column"], entry["name"], *(_share(entry, split, is_first=split == splits[0]) for split in splits)]
        for entry in result["classes"]
    ]
    return _table(["column", "class", *splits], rows)


def _share(entry: Mapping[str, Any], split: str, is_first: bool) -> str:
    share, difference = entry["shares"][split], entry["differences"][split]
    text = f"{100 * share:.1f} %"
    if is_first:
        return text
    if difference is None:
        return f"{text} (all or none)*"
    return f"{text} ({difference:+.2f}){'*' if abs(difference) > LARGE_DIFFERENCE else ''}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its columns padded so that it is one in a terminal, too."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
