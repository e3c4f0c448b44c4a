"""The images or the reports of a data set, for the bulk encoder."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, Image

from data_scripts.imaging.images import UnusableImageError
from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPProcessor
from train.encoding.crashes import CRASHED
from train.encoding.read_batch import ReadBatch, Reference, eight_bits, resized

COLUMNS = ("source", "patient_id", "report")


class DatasetRows:
    """Rows of a data set, known by split and number.

    Args:
        splits: By name, as `open_dataset` gives them.
    """

    schema = pa.schema(
        [
            *((name, pa.string()) for name in COLUMNS),
            ("labels", pa.list_(pa.string())),
            ("split", pa.string()),
        ]
    )
    name = "rows"

    def __init__(self, splits: Mapping[str, Dataset]) -> None:
        self.num_files = sum(map(len, splits.values()))
        self.crashing: set[Reference] = set()
        self._fingerprints = {split: [len(rows), rows._fingerprint] for split, rows in splits.items()}
        self._rows = {
            split: rows.with_format(None).select_columns([*COLUMNS, "labels"]) for split, rows in splits.items()
        }
        self._label_names = {split: rows.features["labels"].feature.names for split, rows in splits.items()}

    def identity(self) -> dict[str, Any]:
        """Length and fingerprint of each split, which `datasets` keeps from load to load."""
        return {"splits": self._fingerprints}

    def references(self) -> Iterator[Reference]:
        """List the rows, split by split."""
        return ((split, row) for split, rows in self._rows.items() for row in range(len(rows)))

    def columns(self, references: list[Reference]) -> dict[str, list[Any]]:
        """Read what is written beside the embeddings."""
        rows = [self._rows[split][row] for split, row in references]
        return {
            **{name: [row[name] for row in rows] for name in COLUMNS},
            "labels": [
                [self._label_names[split][label] for label in row["labels"]]
                for (split, _), row in zip(references, rows, strict=True)
            ],
            "split": [split for split, _ in references],
        }


class DatasetImages(DatasetRows):
    """The images of a data set.

    Args:
        splits: By name.
        image_processor: Of the checkpoint.
    """

    def __init__(self, splits: Mapping[str, Dataset], image_processor: LumbarCLIPImageProcessor) -> None:
        super().__init__(splits)
        self.image_processor = image_processor
        self._feature = {split: rows.features["image"] for split, rows in splits.items()}
        self._stored = {
            split: rows.with_format(None).select_columns(["image"]).cast_column("image", Image(decode=False))
            for split, rows in splits.items()
        }

    def __getitem__(self, references: list[Reference]) -> ReadBatch:
        """Decode images, bring them to 8 bits, pad and resize them."""
        read, images, unreadable = [], [], []
        for split, row in references:
            try:
                if (split, row) in self.crashing:
                    raise UnusableImageError(CRASHED)
                images.append(eight_bits(self._feature[split].decode_example(self._stored[split][row]["image"])))
            # Pillow's plug-ins raise whatever their parser meets; the file is named, and the run goes on.
            except Exception as error:
                (source,) = self.columns([(split, row)])["source"]
                unreadable.append({"source": source, "split": split, "reason": f"{type(error).__name__}: {error}"})
            else:
                read.append((split, row))
        return ReadBatch(self.columns(read), resized(images, self.image_processor), unreadable, len(references))


class DatasetReports(DatasetRows):
    """The reports of a data set; one that several rows of a batch share is encoded once.

    Args:
        splits: By name.
        processor: Of the checkpoint.
    """

    def __init__(self, splits: Mapping[str, Dataset], processor: LumbarCLIPProcessor) -> None:
        super().__init__(splits)
        self.processor = processor

    def __getitem__(self, references: list[Reference]) -> ReadBatch:
        """Tokenise reports."""
        columns = self.columns(references)
        row_of_text = {text: row for row, text in enumerate(dict.fromkeys(columns["report"]))}
        tokens = self.processor(text=list(row_of_text), return_tensors="pt")
        text_index = torch.tensor([row_of_text[text] for text in columns["report"]])
        return ReadBatch(columns, {**tokens, "text_index": text_index}, [], len(references))
