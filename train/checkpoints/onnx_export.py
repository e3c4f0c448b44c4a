"""Write a checkpoint as ONNX for `train/export.py`, and read what was written."""

import hashlib
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from data_scripts.system.staging import publish, staging_folder
from data_scripts.system.whole_files import read_json, write_folder, write_json
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from modeling_lumbarclip.scope_lumbarclip import SCOPE_PREFIX
from train.checkpoints.golden_outputs import load_for_golden_outputs
from train.checkpoints.loading import find_checkpoint
from train.checkpoints.manifest import check_records
from train.checkpoints.onnx_graphs import (
    CALIBRATION_BATCH,
    PACKAGES,
    VISION_MODEL,
    check_deviation,
    describe_file,
    deviations,
    export_again,
    graphs_of,
    int8_name,
    quantise,
    require_packages,
    sample_inputs,
    write_onnx,
)

EXPORT = "export.json"
# Files next to the graphs that make their inputs and describe them.
COPIED = (
    "config.json",
    "*processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.py",
)


def export(folder_or_id: str | Path, out: Path, *, int8_images: Sequence[Any] = ()) -> dict[str, Any]:
    """Write a checkpoint of any of our models as ONNX to a new folder; return `export.json`.

    Args:
        folder_or_id: Checkpoint folder, or Hub id.
        out: New folder.
        int8_images: Images of training, PIL or arrays: for an 8-bit copy of the vision tower, in the ranges that its
            values take for them. None: no copy.

    Raises:
        ImportError: If the packages of the extra `export` are missing.
        ValueError: If `out` exists, there is no such checkpoint, or the outputs of ONNX and torch differ.
    """
    require_packages()
    if out.exists():
        raise ValueError(f"--out {out} exists; remove it, or name another folder.")
    checkpoint = find_checkpoint(folder_or_id)
    model, processor = load_for_golden_outputs(checkpoint, trust_remote_code=False)
    description: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        description.update(_write(model, processor, folder, int8_images))
        for path in (path for pattern in COPIED for path in checkpoint.glob(pattern)):
            shutil.copy(path, folder)
        write_json(folder / EXPORT, description)

    with staging_folder(out) as staging:
        write_folder(staging / "export", fill)
        publish(staging / "export", out, staging)
    return description


def _write(model: PreTrainedModel, processor: Any, folder: Path, int8_images: Sequence[Any]) -> dict[str, Any]:
    files = {}
    for graph in graphs_of(model):
        samples = list(sample_inputs(model, processor, graph))
        write_onnx(graph, samples[-1], folder / graph.file)
        moved = deviations(graph, samples, folder / graph.file)
        check_deviation(graph.file, moved)
        files[graph.file] = describe_file(folder / graph.file, moved)
        if len(int8_images) and graph.file == VISION_MODEL:
            image_processor = getattr(processor, "image_processor", processor)
            seen = torch.cat([image_processor(image, return_tensors="pt").pixel_values for image in int8_images])
            quantised = folder / int8_name(graph.file)
            quantise(folder / graph.file, quantised, seen)
            batches = [{"pixel_values": batch} for batch in seen.split(CALIBRATION_BATCH)]
            files[quantised.name] = describe_file(quantised, deviations(graph, batches, quantised))
    inverse_temperature = getattr(model, "inverse_temperature", None)
    return {
        "architecture": type(model).__name__,
        "weights_sha256": weights_sha256(model),
        "inverse_temperature": None if inverse_temperature is None else inverse_temperature.detach().item(),
        "calibration": None if calibration_problem(model) else model.config.calibration,
        "id2label": model.config.id2label if model.config.is_classifier or model.config.is_segmenter else None,
        "files": files,
        "packages": {name: version(name) for name in ("torch", "transformers", *PACKAGES)},
    }


def read_export(folder: Path) -> dict[str, Any]:
    """Read `export.json`; raise `ValueError` if it is missing or broken."""
    path = folder / EXPORT
    if not path.exists():
        raise ValueError(
            f"{folder} has no {EXPORT}. Export a checkpoint: python train/export.py CHECKPOINT --out {folder}"
        )
    description = read_json(path, export_again(folder))
    try:
        _check_description(description)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}). {export_again(folder)}") from error
    return description


def _check_description(description: dict[str, Any]) -> None:
    if not isinstance(description.get("weights_sha256"), str):
        raise ValueError("it lacks weights_sha256")
    files = description.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError("it names no files")
    for name, entry in files.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("parts"), dict) or name not in entry["parts"]:
            raise ValueError(f"it has no digest of {name}")
        check_records(entry["parts"])


def weights_sha256(model: nn.Module) -> str:
    """Hash the names, shapes and values of all weights, whatever file and precision they were loaded from.

    The statistics of a scope are no weights: they are fitted to what these compute.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(SCOPE_PREFIX):
            continue
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def summary(name: str, entry: dict[str, Any]) -> str:
    """Describe in a line the size of a file and how far its outputs are from the model's.

    Example:
        >>> entry = {"bytes": 5157793, "deviation": {"image_embeds": 2.5e-07}, "operations": {"Conv": 14, "Gemm": 1}}
        >>> summary("vision_model.onnx", entry)
        'vision_model.onnx: 5.2 MB, 14 Conv, 1 Gemm; image_embeds within 2.5e-07 of torch'
    """
    operations = ", ".join(f"{count} {kind}" for kind, count in entry["operations"].items() if count)
    moved = ", ".join(f"{output} within {distance:.1e}" for output, distance in entry["deviation"].items())
    return f"{name}: {entry['bytes'] / 1e6:.1f} MB, {operations}; {moved} of torch"
