"""Export a checkpoint to ONNX: both towers with their heads, dynamic in batch and text length, checked against PyTorch.

    pip install lumbarclip[export]
    python train/export.py runs/demo/checkpoint --out runs/demo/onnx
    python train/export.py USER/MODEL --out onnx --int8 data/my_study

Writes `vision_model.onnx` (`pixel_values` to `image_embeds` and `image_features`), `text_model.onnx` (`input_ids` and
`attention_mask` to `text_embeds` and `text_features`), or, for a classifier, `vision_model.onnx` with `logits`; the
processor's files; and `export.json`: inverse temperature, calibration, how far the export is from the model, and
size and SHA-256 of every ONNX file, from which `train/encode.py` detects changes. The folder appears when everything
is written and checked, or not at all.

--int8 DATASET adds `vision_model_int8.onnx`, which computes in 8 bits, in the ranges that values take for training
images of this dataset: name the one that the model was trained on.

The numbers of images, texts and tokens are dynamic. The height and width of images are fixed: those that the
checkpoint's processor makes.
"""

import sys
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_scripts.system.command_line import run, setting

if TYPE_CHECKING:
    from datasets import Dataset

NUM_CALIBRATION_IMAGES = 128
WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says


@dataclass
class ExportArguments:
    """Export a checkpoint to ONNX."""

    checkpoint: str = setting(MISSING, "Checkpoint folder, or Hub id.", positional=True)
    out: str = setting(MISSING, "Folder to write; it must not exist.")
    int8: str = setting("", "Also write an 8-bit copy of the vision tower, set up on training images of this dataset.")


def main(args: ExportArguments) -> None:
    """Export, and print the files with their sizes."""
    from transformers.utils import logging

    from train.checkpoints.onnx_export import export, summary

    logging.disable_progress_bar()
    images: list[Any] = []
    if args.int8:
        from train.data.loaders import open_dataset

        images = calibration_images(open_dataset(args.int8)["train"])
    description = export(args.checkpoint, Path(args.out), int8_images=images)
    for name, entry in description["files"].items():
        print(summary(name, entry))


def calibration_images(train: "Dataset") -> list[Any]:
    """Read training images, spread evenly over the rows."""
    rows = range(0, len(train), max(1, len(train) // NUM_CALIBRATION_IMAGES))
    return train.select(rows[:NUM_CALIBRATION_IMAGES])["image"][:]


if __name__ == "__main__":
    sys.exit(run(main))
