"""Export a checkpoint to ONNX: both towers with their heads, dynamic in batch and text length, checked against PyTorch.

    pip install lumbarclip[export]
    python train/export.py runs/demo/checkpoint --out runs/demo/onnx
    python train/export.py USER/MODEL --out onnx --int8

Writes `vision_model.onnx` (`pixel_values` to `image_embeds` and `image_features`), `text_model.onnx` (`input_ids` and
`attention_mask` to `text_embeds` and `text_features`), or, for a classifier, `vision_model.onnx` with `logits`; the
processor's files; and `export.json`: inverse temperature, calibration, how far the export is from the model, and
size and SHA-256 of every ONNX file, from which `train/encode.py` detects changes. --int8 adds a quantised copy of each.
The folder appears when everything is written and checked, or not at all.

The numbers of images, texts and tokens are dynamic. The height and width of images are fixed: those that the
checkpoint's processor makes.
"""

import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

from data_scripts.system.command_line import run, setting

WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says


@dataclass
class ExportArguments:
    """Export a checkpoint to ONNX."""

    checkpoint: str = setting(MISSING, "Checkpoint folder, or Hub id.", positional=True)
    out: str = setting(MISSING, "Folder to write; it must not exist.")
    int8: bool = setting(False, "Also write copies with 8-bit weights.")


def main(args: ExportArguments) -> None:
    """Export, and print the files with their sizes."""
    from transformers.utils import logging

    from train.checkpoints.onnx_export import export, summary

    logging.disable_progress_bar()
    description = export(args.checkpoint, Path(args.out), int8=args.int8)
    for name, entry in description["files"].items():
        print(summary(name, entry))


if __name__ == "__main__":
    sys.exit(run(main))
