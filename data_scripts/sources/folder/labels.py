"""Read the classes of a row: not labelled, nothing found, or the classes present."""

import ast
import logging
from collections.abc import Collection, Iterable

from data_scripts.records import NO_FINDING, is_missing
from data_scripts.sources.tables import Row

logger = logging.getLogger(__name__)

# What a table may write for "nothing found", beside an empty list and a dash.
_NOTHING_FOUND = ("none", "nil", NO_FINDING.casefold(), "no findings")
_DASHES = ("-", "--", "–", "—")
_OTHER_SEPARATORS = (",", "|", "/", "+")


def read_labels(row: Row) -> tuple[str, ...] | None:
    """Return the classes of a row; None if it is not labelled: the cell is empty, or says that nothing is known.

    Raises:
        ValueError: If the cell is not a list of classes, or contains both classes and "nothing found".
    """
    value = row.cells.get("labels")
    items = value if isinstance(value, list) else _items(row.written("labels"))
    if items == []:
        return (NO_FINDING,)
    texts = [" ".join(str(item).split()) for item in items or [] if item is not None]
    labels = [NO_FINDING if _says_nothing_found(text) else text for text in texts]
    return tuple(dict.fromkeys(label for label in labels if not is_missing(label))) or None


def _items(cell: str) -> list[object] | None:
    """Split a cell; a list as Python writes it (`['bulge']`) is one, too. None if the cell is empty."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            items = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"labels must be classes separated by ';', got {cell[:60]!r}") from error
        return list(items)
    return [part for part in cell.split(";") if part.strip()] or None


def _says_nothing_found(text: str) -> bool:
    return text.casefold().replace("_", " ") in _NOTHING_FOUND or text in _DASHES


def warn_of_labels(rows: Iterable[Row], label_names: Collection[str]) -> None:
    """Warn of classes that seem to be several, separated by a sign other than `;`, and of the ambiguous `None`."""
    cells = [str(row.cells["labels"]).strip() for row in rows if row.cells.get("labels") is not None]
    are_separated = any(";" in cell or cell.startswith("[") for cell in cells)
    for name in sorted(label_names):
        for separator in _OTHER_SEPARATORS:
            parts = [part.strip() for part in name.split(separator)]
            is_list = separator == "," and not are_separated
            if len(parts) > 1 and (is_list or any(part in label_names for part in parts)):
                logger.warning(
                    "labels: %r is read as one class; separate classes by ';' if it is %d: %r",
                    name,
                    len(parts),
                    "; ".join(parts),
                )
                return
    if number := cells.count("None"):
        logger.warning(
            "labels: 'None' in %d rows is read as nothing found; leave the cells empty if these are not labelled",
            number,
        )
