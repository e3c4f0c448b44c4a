"""Reports of similar images: a Parquet file of embeddings with their reports, searched by cosine similarity."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("embedding", "report", "source")


@dataclass(frozen=True, kw_only=True)
class SimilarReport:
    """A report of the index.

    Args:
        similarity: Cosine of its image and the one asked about, in [-1, 1].
        report: Its text.
        source: Where it is from, as the index says.
    """

    similarity: float
    report: str
    source: str


@dataclass(frozen=True)
class ReportIndex:
    """Embeddings of images, of unit length, and what was written of each.

    Args:
        embeds: Shape (rows, D), float32.
        reports: Of each row.
        sources: Of each row.
    """

    embeds: np.ndarray
    reports: list[str]
    sources: list[str]

    def nearest(self, embed: np.ndarray, count: int) -> list[SimilarReport]:
        """Find the reports of the images most similar to one; a report that several share is listed once.

        Args:
            embed: Unit length. Shape (D,).
            count: How many reports, at most.

        Example:
            >>> index = ReportIndex(np.eye(3, dtype=np.float32), ["Bulge.", "Bulge.", "Normal."], ["a", "b", "c"])
            >>> [(near.report, near.source) for near in index.nearest(np.array([0.6, 0.8, 0.0]), count=2)]
            [('Bulge.', 'b'), ('Normal.', 'c')]
        """
        similarities = self.embeds @ embed
        found: dict[str, SimilarReport] = {}
        for row in np.argsort(-similarities, kind="stable"):
            report = self.reports[row]
            if report not in found:
                found[report] = SimilarReport(
                    similarity=float(similarities[row]), report=report, source=self.sources[row]
                )
            if len(found) == count:
                break
        return list(found.values())


def read_index(path: Path, width: int | None = None) -> ReportIndex:
    """Read an index that `train/encode.py` wrote of a dataset.

    Args:
        path: Parquet file with the columns `embedding`, `report` and `source`.
        width: Of the checkpoint's shared space; None not to check.

    Raises:
        ValueError: If it cannot be read, lacks a column, or was written with a checkpoint of another width.
    """
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in COLUMNS if name in names])
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"No index at {path}: {error}. Write one: train/encode.py --dataset data/synthetic --out {path.name}."
        ) from error
    if missing := [name for name in COLUMNS if name not in names]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(names)}. Encode a dataset with reports: "
            "train/encode.py --dataset data/synthetic."
        )
    if not len(table):
        raise ValueError(f"{path} holds no report.")
    embeds = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    if width is not None and embeds.shape[1] != width:
        raise ValueError(
            f"{path} holds embeddings of width {embeds.shape[1]}, the checkpoint makes {width}: it was written with "
            "another checkpoint. Encode the images again with this one."
        )
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True).clip(min=1e-12)
    return ReportIndex(embeds, table["report"].to_pylist(), table["source"].to_pylist())
