"""Declare the settings of the bulk encoder."""

import os
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal, get_args

from data_scripts.system.command_line import setting

What = Literal["images", "reports"]
WHAT: tuple[str, ...] = get_args(What)


def default_num_workers() -> int:
    """Take half of the processors, less the one that feeds the model; on two, a worker costs more than it gains."""
    return max(0, min(8, (os.cpu_count() or 1) // 2 - 1))


@dataclass
class EncodeArguments:
    """Embed a folder of images or a dataset."""

    checkpoint: str = setting(MISSING, "Checkpoint folder, or Hub id.")
    out: str = setting(MISSING, "Parquet file to write.")
    images: str = setting("", "Folder of images and DICOM files, recognised by their content.")
    dataset: str = setting("", "Instead of images: folder of data_scripts.build, or a Hub id.")
    split: list[str] = setting([], "Splits of the dataset; all by default.")
    what: What = setting("images", "What to embed from the dataset.")
    project: bool = setting(
        True, "Write unit-length embeddings of the shared space; otherwise the pooled outputs of the towers."
    )
    onnx: str = setting("", "Folder of train/export.py to encode with.")
    int8: bool = setting(False, "With --onnx: use the quantised copy.")
    batch_size: int = setting(32, "Images or rows per forward pass.")
    num_workers: int = setting(
        default_num_workers(), "Processes that decode while the model encodes; 0: decode in the main process."
    )
    overwrite: bool = setting(
        False, "Replace the file of --out, and drop what an interrupted run with other settings left."
    )

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded."""
        out = Path(self.out)
        if bool(self.images) == bool(self.dataset):
            raise ValueError("Name either a folder with --images, or a dataset with --dataset.")
        if self.what not in WHAT or (self.images and self.what != "images"):
            raise ValueError(f"--what must be images or, with --dataset, reports; got {self.what!r}.")
        if self.int8 and not self.onnx:
            raise ValueError("--int8 uses the quantised copy of an export: name its folder with --onnx.")
        if self.int8 and self.what != "images":
            raise ValueError(f"--int8 has a quantised vision tower only; encode {self.what} without it.")
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"--batch_size must be at least 1 and --num_workers at least 0; got {self.batch_size}, "
                f"{self.num_workers}."
            )
        if out.suffix != ".parquet":
            raise ValueError(f"--out must be a Parquet file, such as embeddings.parquet; got {self.out!r}.")
        if self.images and out.resolve().is_relative_to(Path(self.images).resolve()):
            raise ValueError(f"--out {out} is inside the folder of --images; write it elsewhere.")
        if out.exists() and not self.overwrite:
            raise ValueError(f"--out {out} exists; replace it with --overwrite, or name another file.")
