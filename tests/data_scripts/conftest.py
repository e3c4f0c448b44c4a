"""Small raw studies, made on the fly."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build


@pytest.fixture(autouse=True)
def _quiet_and_isolated(tmp_path_factory, monkeypatch):
    """No bars, and the library's cache in a temporary folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")
    datasets.disable_progress_bars()


@pytest.fixture
def grey_pixels() -> Callable[[int], np.ndarray]:
    """A reproducible 8-bit slice for each number."""
    return lambda number: np.random.default_rng(number).integers(0, 256, (12, 10), dtype=np.uint8)


@pytest.fixture
def study(tmp_path, grey_pixels) -> Callable[..., Path]:
    """Make a folder for the `folder` source.

    `study(rows)` writes the rows as `metadata.csv` and an image for each `file_name` that does not exist yet;
    `study(num_patients=12)` makes rows of its own: two images a patient, every third patient without findings.
    """

    def make(
        rows: Sequence[dict[str, Any]] | None = None, *, num_patients: int = 12, table: str = "metadata.csv"
    ) -> Path:
        raw = tmp_path / "study"
        (raw / "images").mkdir(parents=True, exist_ok=True)
        rows = default_rows(num_patients) if rows is None else rows
        for number, row in enumerate(rows):
            path = raw / str(row.get("file_name", ""))
            if path.suffix == ".png" and path.resolve().is_relative_to(raw.resolve()) and not path.exists():
                Image.fromarray(grey_pixels(number)).save(path)
        write_table(raw / table, rows)
        return raw

    return make


@pytest.fixture
def built(tmp_path) -> Callable[..., dict[str, Any]]:
    """Build into `tmp_path / "out"`, with ids as they are given, and return the report."""

    def run(raw: Path, **arguments: Any) -> dict[str, Any]:
        arguments = {"source": "folder", "out": tmp_path / "out", "raw": raw, "keep_ids": True, **arguments}
        return build(BuildArguments(**arguments), command="test")

    return run


def default_rows(num_patients: int) -> list[dict[str, Any]]:
    return [
        {
            "file_name": f"images/{patient}_{sequence}.png",
            "report": f"Disc bulge at L4/L5 of patient {patient}." if patient % 3 else f"Normal study {patient}.",
            "patient_id": f"p{patient}",
            "labels": "LBP" if patient % 3 else "No Finding",
            "sequence": sequence,
            "level": "L4-5",
        }
        for patient in range(num_patients)
        for sequence in ("T1", "T2")
    ]


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
