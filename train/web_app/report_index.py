"""Search the reports nearest to an image, by cosine similarity, in a Parquet file of embeddings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.encoding.arguments import WHAT
from train.encoding.chunks import METADATA

REPORTS_INDEX = "reports_index"  # in the head of a Space's card: the file of its index
COLUMNS = ("embedding", "report", "source")
COMMAND = "python train/encode.py --checkpoint CHECKPOINT --dataset DATASET --what {what} --out INDEX.parquet"


@dataclass(frozen=True, kw_only=True)
class NearReport:
    """A report of the index, its source, and the cosine between its embedding and the image."""

    similarity: float
    report: str
    source: str


@dataclass(frozen=True)
class ReportIndex:
    """Unit-length embeddings, (rows, D), with the report and the source of each row.

    `what` was embedded: the `images` of the reports, or the `reports`.
    """

    embeds: np.ndarray
    reports: list[str]
    sources: list[str]
    what: str

    def nearest(self, embed: np.ndarray, count: int) -> list[NearReport]:
        """Find at most `count` distinct reports whose embeddings are most similar to one of unit length, (D,).

        Example:
            >>> reports, sources = ["Bulge.", "Bulge.", "Normal."], ["a", "b", "c"]
            >>> index = ReportIndex(np.eye(3, dtype=np.float32), reports, sources, "images")
            >>> [(near.report, near.source) for near in index.nearest(np.array([0.6, 0.8, 0.0]), count=2)]
            [('Bulge.', 'b'), ('Normal.', 'c')]
        """
        similarities = self.embeds @ embed
        found: dict[str, NearReport] = {}
        for row in np.argsort(-similarities, kind="stable"):
            report = self.reports[row]
            if report not in found:
                found[report] = NearReport(similarity=float(similarities[row]), report=report, source=self.sources[row])
            if len(found) == count:
                break
        return list(found.values())


def read_index(path: Path, weights: str | None = None) -> ReportIndex:
    """Read an index that `train/encode.py` wrote, for a model with these `weights_sha256`; None not to check them.

    Raises:
        ValueError: If it cannot be read, lacks a column, or was made by another or an unknown model.
    """
    try:
        schema = pq.read_schema(path)
        table = pq.read_table(path, columns=[name for name in COLUMNS if name in schema.names])
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"No index at {path}: {error}. Write one: {COMMAND.format(what='reports')}") from error
    if missing := [name for name in COLUMNS if name not in schema.names]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(schema.names)}. Encode a dataset with "
            f"reports: {COMMAND.format(what='reports')}"
        )
    if not len(table):
        raise ValueError(f"{path} contains no report.")
    made = _made_by(path, schema)
    if weights is not None and made["weights_sha256"] != weights:
        raise ValueError(
            f"{path} was encoded by {made.get('checkpoint', 'a checkpoint')} with weights "
            f"{made['weights_sha256'][:12]}, but this model has weights {weights[:12]}: their embeddings cannot be "
            f"compared. Encode again with the checkpoint of the app: {COMMAND.format(what=made['what'])}"
        )
    embeds = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True).clip(min=1e-12)
    return ReportIndex(embeds, table["report"].to_pylist(), table["source"].to_pylist(), made["what"])


def _made_by(path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Read which model made the embeddings of a file, and check that they are of the shared space."""
    try:
        made = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    except ValueError:  # damaged
        made = None
    if not isinstance(made, dict) or not made.get("weights_sha256") or made.get("what") not in WHAT:
        raise ValueError(
            f"{path} does not say which weights made its embeddings: they may be another model's. Write it with: "
            f"{COMMAND.format(what='reports')}"
        )
    if made.get("projected") is not True:
        raise ValueError(
            f"{path} contains outputs of a tower (--no_project), which images cannot be compared with. Write it with: "
            f"{COMMAND.format(what=made['what'])}"
        )
    return made
