"""Turn a batch that was read into embeddings, with the model itself or its ONNX export.

Shapes: B images or rows of a batch, U distinct texts, D width of the embeddings.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPModel
from train.checkpoints.onnx_export import read_export
from train.checkpoints.onnx_graphs import TEXT_MODEL, VISION_MODEL, export_again, int8_name, open_unchanged
from train.data.image_cache import normalise
from train.encoding.arguments import EncodeArguments

Embeddings = NDArray[np.float32]
# 8 images of 224 x 224: the allocator does not reuse larger activations, which costs a ResNet-50 a third of its speed
# (2 cores: 16.1 images/s in eights, 11.1 in batches of 32).
CPU_PIXELS = 8 * 224 * 224
Encoder = Callable[[dict[str, Tensor]], Embeddings]  # from the tensors of a `ReadBatch` to (B, D)


class ModelEncoder:
    """Encodes with the model, on the GPU if there is one; see `EncodeArguments` for `project`."""

    def __init__(self, model: LumbarCLIPModel, image_processor: LumbarCLIPImageProcessor, project: bool) -> None:
        device: Any = "cuda" if torch.cuda.is_available() else "cpu"
        # Convolutions are up to twice as fast if the channels of a pixel are adjacent.
        self.model = cast(Any, model).to(device=device, memory_format=torch.channels_last)
        self.image_processor, self.project = image_processor, project

    @torch.inference_mode()
    def __call__(self, tensors: dict[str, Tensor]) -> Embeddings:
        """Encode a batch."""
        tensors = {name: tensor.to(self.model.device) for name, tensor in tensors.items()}
        if "images" in tensors:
            pixels = normalise(tensors["images"], self.image_processor)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            chunks = [
                self.model.get_image_features(pixel_values=chunk, project=self.project).pooler_output
                for chunk in self._chunks(pixels)
            ]
            return torch.cat(chunks).float().cpu().numpy()
        texts = self.model.get_text_features(
            input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"], project=self.project
        ).pooler_output
        return texts[tensors["text_index"]].float().cpu().numpy()

    def _chunks(self, pixels: Tensor) -> Sequence[Tensor]:
        """Split what goes through the tower at once: on a CPU, no more than its allocator reuses."""
        if pixels.device.type != "cpu":
            return [pixels]
        return pixels.split(max(1, CPU_PIXELS // pixels[0, 0].numel()))


class OnnxEncoder:
    """Encodes with what `python train/export.py` wrote.

    Args:
        args: The folder, and what to encode how.
        image_processor: The checkpoint's.
        weights_sha256: The checkpoint's, which must be the one that was exported.

    Raises:
        ValueError: If the folder has no export, no quantised copy, or one of another checkpoint or image size; or if
            the file has changed since it was exported.
    """

    def __init__(self, args: EncodeArguments, image_processor: LumbarCLIPImageProcessor, weights_sha256: str) -> None:
        folder = Path(args.onnx)
        exported = read_export(folder)
        if exported["weights_sha256"] != weights_sha256:
            raise ValueError(
                f"--onnx {folder} was exported from other weights than those of --checkpoint; export these, or name "
                "the checkpoint that was exported."
            )
        name, kind = (VISION_MODEL, "image") if args.what == "images" else (TEXT_MODEL, "text")
        file = int8_name(name) if args.int8 else name
        if file not in exported["files"]:
            raise ValueError(f"--onnx {folder} has no {file}: export again with --int8 DATASET, or encode without it.")
        self.session = open_unchanged(folder / file, exported["files"][file]["parts"])
        height, width = image_processor.size["height"], image_processor.size["width"]
        if args.what == "images" and (made_for := self.session.get_inputs()[0].shape[2:]) != [height, width]:
            raise ValueError(
                f"--onnx {folder} takes images of {' x '.join(map(str, made_for))}, the processor of --checkpoint "
                f"makes them {height} x {width}. {export_again(folder)}"
            )
        self.output = f"{kind}_embeds" if args.project else f"{kind}_features"
        self.image_processor = image_processor

    def __call__(self, tensors: dict[str, Tensor]) -> Embeddings:
        """Encode a batch."""
        if "images" in tensors:
            pixels = normalise(tensors["images"], self.image_processor)
            return self.session.run([self.output], {"pixel_values": pixels.numpy()})[0]
        tokens = {name: tensors[name].numpy() for name in ("input_ids", "attention_mask")}
        return self.session.run([self.output], tokens)[0][tensors["text_index"].numpy()]
