"""Export a checkpoint to ONNX: both towers with their heads, dynamic in batch and text length, checked against torch.

    pip install lumbarclip[export]
    python train/export.py runs/demo/checkpoint --out runs/demo/onnx
    python train/export.py USER/MODEL --out onnx --int8

Writes `vision_model.onnx` (`pixel_values` to `image_embeds` and `image_features`), `text_model.onnx` (`input_ids` and
`attention_mask` to `text_embeds` and `text_features`) or, of a classifier, `vision_model.onnx` with `logits`; the files
of the processor; and `export.json`: the inverse temperature, the calibration, how far the export is from the model, and
size and SHA-256 of every ONNX file, by which `train/encode.py` knows one that has changed since. With --int8 also a
quantised copy of each. The folder appears once all is written and checked, or not at all.

Numbers of images, of texts and of their tokens are dynamic; height and width of the images are not: they are those that
the checkpoint's processor makes.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import HfArgumentParser, PreTrainedModel
from transformers.utils import logging

from train.checkpoints.golden_outputs import load_for_golden_outputs
from train.checkpoints.onnx_graphs import (
    PACKAGES,
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
from train.checkpoints.verification import find_checkpoint

EXPORT = "export.json"
# Beside the graphs: what makes their inputs, and says what they are.
COPIED = (
    "config.json",
    "*processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.py",
)


@dataclass
class ExportArguments:
    """Export a checkpoint to ONNX."""

    out: str = field(metadata={"help": "Folder to write; it must not exist."})
    int8: bool = field(default=False, metadata={"help": "Write copies with weights of 8 bits, too."})


def export(folder_or_id: str | Path, out: Path, *, int8: bool = False) -> dict[str, Any]:
    """Write a checkpoint as ONNX.

    Args:
        folder_or_id: A `LumbarCLIPModel` or `LumbarCLIPForImageClassification`.
        out: Folder to write.
        int8: Whether to write quantised copies, too.

    Returns:
        What `export.json` holds.

    Raises:
        ImportError: If the packages of the extra `export` are missing.
        ValueError: If `out` exists, there is no such checkpoint, or what ONNX computes differs from what torch does.
    """
    require_packages()
    if out.exists():
        raise ValueError(f"--out {out} exists; remove it, or name another folder.")
    checkpoint = find_checkpoint(folder_or_id)
    model, processor = load_for_golden_outputs(checkpoint, trust_remote_code=False)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    try:
        description = _write(model, processor, unfinished, int8)
        for pattern in COPIED:
            for path in checkpoint.glob(pattern):
                shutil.copy(path, unfinished)
        (unfinished / EXPORT).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.rename(out)
    except BaseException:  # Ctrl-C, too: what is half written must not be taken for an export
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return description


def _write(model: PreTrainedModel, processor: Any, folder: Path, int8: bool) -> dict[str, Any]:
    files = {}
    for graph in graphs_of(model):
        samples = list(sample_inputs(model, processor, graph))
        write_onnx(graph, samples[-1], folder / graph.file)
        moved = deviations(graph, samples, folder / graph.file)
        check_deviation(graph.file, moved)
        files[graph.file] = describe_file(folder / graph.file, moved)
        if int8:
            quantised = folder / int8_name(graph.file)
            quantise(folder / graph.file, quantised)
            files[quantised.name] = describe_file(quantised, deviations(graph, samples, quantised))
    inverse_temperature = getattr(model, "inverse_temperature", None)
    return {
        "architecture": type(model).__name__,
        "weights_sha256": weights_sha256(model),
        "inverse_temperature": None if inverse_temperature is None else inverse_temperature.detach().item(),
        "calibration": model.config.calibration,
        "id2label": model.config.id2label if model.config.is_classifier else None,
        "files": files,
        "packages": {name: version(name) for name in ("torch", "transformers", *PACKAGES)},
    }


def read_export(folder: Path) -> dict[str, Any]:
    """Read what `export` returned when it wrote a folder.

    Raises:
        ValueError: If it holds no `export.json`, a broken one, or one of a version that recorded no digests.
    """
    path = folder / EXPORT
    if not path.exists():
        raise ValueError(
            f"{folder} holds no {EXPORT}: write an export with `python train/export.py CHECKPOINT --out {folder}`."
        )
    try:
        description = _checked(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}). {export_again(folder)}") from error
    if not all(name in entry.get("parts", ()) for name, entry in description["files"].items()):
        raise ValueError(f"{path} is of an older version, without digests to know its files by. {export_again(folder)}")
    return description


def _checked(description: Any) -> dict[str, Any]:
    if not isinstance(description, dict) or not isinstance(description.get("weights_sha256"), str):
        raise ValueError("it lacks weights_sha256")
    files = description.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError("it names no files")
    for name, entry in files.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("parts", {}), dict):
            raise ValueError(f"it does not describe {name}")
    return description


def weights_sha256(model: nn.Module) -> str:
    """Digest of the names, shapes and values of all weights, whatever they were loaded from and in which precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Export, and print the files with their sizes.

    Returns:
        The exit code.
    """
    logging.disable_progress_bar()
    # `HfArgumentParser` declares its argument as a NewType that no class satisfies.
    parser = HfArgumentParser(ExportArguments, description=ExportArguments.__doc__)  # type: ignore[arg-type]
    parser.add_argument("checkpoint", help="Folder of a checkpoint, or a Hub id.")
    try:
        args, named = parser.parse_args_into_dataclasses(list(sys.argv[1:] if argv is None else argv))
        description = export(named.checkpoint, Path(args.out), int8=args.int8)
    except (ImportError, ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for name, entry in description["files"].items():
        print(summary(name, entry))
    return 0


def summary(name: str, entry: dict[str, Any]) -> str:
    """Say in a line how large a file is and how far from the model.

    Example:
        >>> entry = {"bytes": 5157793, "deviation": {"image_embeds": 2.5e-07}, "operations": {"Conv": 14, "Gemm": 1}}
        >>> summary("vision_model.onnx", entry)
        'vision_model.onnx: 5.2 MB, 14 Conv, 1 Gemm; image_embeds within 2.5e-07 of torch'
    """
    operations = ", ".join(f"{count} {kind}" for kind, count in entry["operations"].items() if count)
    moved = ", ".join(f"{output} within {distance:.1e}" for output, distance in entry["deviation"].items())
    return f"{name}: {entry['bytes'] / 1e6:.1f} MB, {operations}; {moved} of torch"
