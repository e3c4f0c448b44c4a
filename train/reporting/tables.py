"""Write tables of metrics in Markdown.

An entry of `metrics.json` is `{"value", "low", "high", "n"}` in which null means not defined, with a `reason`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_scripts.system.markdown import Markdown, code_span, markdown_table, quoted_as_code

Entry = Mapping[str, Any]
MAX_REASON = 100  # characters of a reason in a cell; a longer one is listed below the tables


def format_entry(entry: Entry | None, decimals: int = 3) -> Markdown:
    """Write one metric with its interval; `-` for None, if a system lacks it.

    Example:
        >>> format_entry({"value": 0.9123, "low": 0.871, "high": 0.95, "n": 132})
        '0.912 [0.871, 0.950]'
        >>> format_entry({"value": None, "low": None, "high": None, "n": 132, "reason": "no positive row"})
        'not defined: no positive row'
    """
    if entry is None:
        return Markdown("-")
    if entry["value"] is None:
        reason = str(entry.get("reason") or "no row defines it")
        return Markdown(f"not defined: {quoted_as_code(reason) if len(reason) <= MAX_REASON else 'see below'}")
    value = Markdown(f"{entry['value']:.{decimals}f}")
    if entry["low"] is None:
        return value
    return Markdown(f"{value} [{entry['low']:.{decimals}f}, {entry['high']:.{decimals}f}]")


def reasons_once(cells: Sequence[Markdown]) -> list[Markdown]:
    """Say why once in a row: cells that repeat the reason of an earlier one say only `not defined`.

    Example:
        >>> reasons_once([Markdown("0.5"), Markdown("not defined: no row"), Markdown("not defined: no row")])
        ['0.5', 'not defined: no row', 'not defined']
    """
    return [
        Markdown("not defined") if cell.startswith("not defined") and cell in cells[:place] else cell
        for place, cell in enumerate(cells)
    ]


def systems_table(systems: Mapping[str, Mapping[str, Entry]], metrics: Sequence[str]) -> Markdown:
    """Compare systems, one per row, by some of their metrics, one per column."""
    rows = [
        [name, *reasons_once([format_entry(entries.get(metric)) for metric in metrics])]
        for name, entries in systems.items()
    ]
    return markdown_table(["system", *(readable(metric) for metric in metrics)], rows)


def metrics_table(columns: Mapping[str, Mapping[str, Entry]]) -> Markdown:
    """List metrics, one per row, with a column for each heading and its entries by metric."""
    names = list(dict.fromkeys(name for entries in columns.values() for name in entries))
    rows = [
        [readable(name), *reasons_once([format_entry(entries.get(name)) for entries in columns.values()])]
        for name in names
    ]
    return markdown_table(["metric", *columns], rows)


def retrieval_table(entries: Mapping[str, Entry]) -> Markdown:
    """List recall at each depth with chance, and the median rank, for both directions."""
    rows = []
    for direction in ("image_to_text", "text_to_image"):
        cells = {name.removeprefix(f"{direction}_"): e for name, e in entries.items() if name.startswith(direction)}
        for name, entry in cells.items():
            if name.startswith("chance"):
                continue
            chance = cells.get(name.replace("recall", "chance")) if name.startswith("recall") else None
            decimals = 3 if name.startswith("recall") else 1
            chance_text = f"{chance['value']:.3f}" if chance else "-"
            rows.append([readable(direction), readable(name), format_entry(entry, decimals), chance_text])
    return markdown_table(["direction", "metric", "value", "chance"], rows)


def counts_table(counted: str, counts: Mapping[str, Mapping[str, int]]) -> Markdown:
    """List the images and patients of each `label` or `split`."""
    rows = [[name, str(of["rows"]), str(of["patients"])] for name, of in counts.items()]
    return markdown_table([counted, "images", "patients"], rows)


def undefined_notes(groups: Iterable[Mapping[str, Entry]]) -> list[Markdown]:
    """Say why metrics are not defined: each reason once, in order of appearance, with the metrics it applies to."""
    reasons: dict[str, dict[str, None]] = {}
    for entries in groups:
        for name, entry in entries.items():
            if entry["value"] is None:
                reasons.setdefault(entry["reason"], {})[name] = None
    return [
        Markdown(f"{', '.join(map(code_span, names))}: {quoted_as_code(reason)}.") for reason, names in reasons.items()
    ]


ABBREVIATIONS = {"auroc": "AUROC", "brier": "Brier", "dice": "Dice", "f1": "F1", "iou": "IoU"}


def readable(metric: str) -> str:
    """Turn the key of a metric into words.

    Example:
        >>> readable("macro_auroc"), readable("auroc/disc narrowing"), readable("recall_at_5")
        ('macro AUROC', 'AUROC disc narrowing', 'recall at 5')
    """
    key, _, label = metric.partition("/")
    words = [ABBREVIATIONS.get(word, word) for word in key.split("_")]
    return " ".join([*words, label]).strip()
