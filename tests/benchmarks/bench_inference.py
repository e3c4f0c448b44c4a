"""Measure images per second of the bulk encoder, transformers' pipeline, and the forward pass: eager, ONNX and int8.

    make demo
    python -m tests.benchmarks.bench_inference --out tests/benchmarks/results/inference.json

Pipelines and bulk encoder start from the same PNG files with the same checkpoint and the same number of threads; the
encoder writes its Parquet file. Forward passes start from tensors. Every system takes its turn, so that a noisy
machine is noisy for all: a ratio is taken within each turn, and the median over the turns is reported. Models are
loaded, and everything has run once, before the clock starts.

The pipeline is the one that `pipeline("image-feature-extraction", model=CHECKPOINT)` gives, one image at a time (its
default) and in batches; also with a worker process that decodes.

Then the cost of int8: a linear probe on the pooled features of both exports, on the same rows, with the difference.
"""

import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import DatasetDict, disable_progress_bars
from torch import Tensor
from tqdm import tqdm
from transformers import pipeline
from transformers.utils import logging

from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from train.checkpoints.onnx_export import export
from train.checkpoints.onnx_graphs import VISION_MODEL, int8_name, open_session
from train.data.loaders import open_dataset
from train.encoding import bulk_encoding
from train.encoding.arguments import EncodeArguments
from train.evaluation.label_metrics import label_difference, label_estimates
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.statistics.bootstrap import Estimate, Resampling
from train.evaluation.targets import read_targets
from train.export import calibration_images

RATIOS = {
    "encode / pipeline, batch 1": ("encode", "pipeline, batch 1"),
    "encode / pipeline, batch 8": ("encode", "pipeline, batch 8"),
    "encode / pipeline, batch 8, 1 worker": ("encode", "pipeline, batch 8, 1 worker"),
    "encode, ONNX / pipeline, batch 1": ("encode, ONNX", "pipeline, batch 1"),
    "forward: eager, batch 32 / batch 1": ("eager, batch 32", "eager, batch 1"),
    "forward, batch 32: ONNX / eager": ("ONNX, batch 32", "eager, batch 32"),
    "forward, batch 32: int8 / ONNX": ("int8, batch 32", "ONNX, batch 32"),
}
SIDE = 224


@dataclass
class InferenceBenchArguments:
    """The settings of this benchmark."""

    checkpoint: str = field(default="runs/demo/checkpoint", metadata={"help": "Model that is measured and probed."})
    dataset: str = field(default="data/synthetic", metadata={"help": "Dataset whose training images are encoded."})
    towers: list[str] = field(
        default_factory=list, metadata={"help": f"timm names of further vision towers, random, {SIDE} px."}
    )
    num_images: int = field(default=512, metadata={"help": "Images per turn."})
    tower_images: int = field(default=64, metadata={"help": "Images per turn for the further towers."})
    turns: int = field(default=5, metadata={"help": "Turns of each system."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: InferenceBenchArguments) -> None:
    """Measure the checkpoint, further towers, and the cost of int8."""
    disable_progress_bars()
    logging.disable_progress_bar()
    bulk_encoding.tqdm = partial(tqdm, disable=True)
    dataset = open_dataset(args.dataset)
    model = LumbarCLIPModel.from_pretrained(args.checkpoint)
    processor = LumbarCLIPProcessor.from_pretrained(args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = {f"{Path(args.checkpoint).parent.name} checkpoint": model}
        models |= {name: random_model(name, model.config) for name in args.towers}
        results = {}
        for name, each in models.items():
            if each is not model:
                processor.image_processor.size = {"height": SIDE, "width": SIDE}
            num_images = args.num_images if each is model else args.tower_images
            results[name] = measure_tower(each, processor, dataset, num_images, args.turns, work / name)
            print(f"\n{name}\n\n{table(results[name])}", flush=True)
        probe = price_of_int8(args, work / next(iter(models)) / "onnx", work)
        print(f"\nprobe on the test split, int8 - float32: {probe['difference']}")
    if args.out:
        content = {
            "command": shlex.join(["python", "-m", "tests.benchmarks.bench_inference", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "arguments": asdict(args),
            "num_threads": torch.get_num_threads(),
            "towers": results,
            "int8_probe": {name: {key: e.as_dict() for key, e in each.items()} for name, each in probe.items()},
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def random_model(architecture: str, config: LumbarCLIPConfig) -> LumbarCLIPModel:
    """Build a model with another vision tower; speed does not depend on the weights."""
    torch.manual_seed(0)
    vision = {"model_type": "timm_wrapper", "architecture": architecture}
    return LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=config.text_config.to_dict())).eval()


def measure_tower(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict,
    num_images: int,
    turns: int,
    work: Path,
) -> dict[str, Any]:
    """Measure images per second of every system, in turns."""
    save_checkpoint(model, processor, work / "checkpoint")
    exported = export(work / "checkpoint", work / "onnx", int8_images=calibration_images(dataset["train"]))
    (work / "png").mkdir()
    rows = dataset["train"].select(range(num_images))
    for number, image in enumerate(rows["image"]):
        image.save(work / "png" / f"{number:05d}.png")
    paths = sorted(map(str, (work / "png").iterdir()))
    pixels = torch.cat([processor(images=image, return_tensors="pt").pixel_values for image in rows["image"]])
    systems = systems_of(model.eval(), paths, pixels, work)
    for system in systems.values():  # warm: page cache, allocator, thread pools, kernels of each shape
        system()
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for name, system in tqdm([*systems.items()] * turns, desc="turns", disable=None):
        started = time.perf_counter()
        system()
        speeds[name].append(num_images / (time.perf_counter() - started))
    return {
        "num_images": num_images,
        "image_size": processor.image_processor.size["height"],
        "file_bytes": {name: entry["bytes"] for name, entry in exported["files"].items()},
        "images_per_second": speeds,
        "ratios": {
            name: [a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True)]
            for name, (ours, theirs) in RATIOS.items()
        },
    }


def systems_of(model: LumbarCLIPModel, paths: list[str], pixels: Tensor, work: Path) -> dict[str, Callable[[], Any]]:
    """Collect everything that is timed; a call embeds all images."""
    checkpoint = work / "checkpoint"
    pipe = pipeline("image-feature-extraction", model=str(checkpoint), trust_remote_code=True, device="cpu")
    sessions = {
        name: open_session(work / "onnx" / file)
        for name, file in (("ONNX", VISION_MODEL), ("int8", int8_name(VISION_MODEL)))
    }
    return {
        "pipeline, batch 1": lambda: pipe(paths),
        "encode": bulk_encoder(checkpoint, work),
        "pipeline, batch 8": lambda: pipe(paths, batch_size=8),
        "encode, ONNX": bulk_encoder(checkpoint, work, onnx=str(work / "onnx")),
        "pipeline, batch 8, 1 worker": lambda: pipe(paths, batch_size=8, num_workers=1),
        **{f"eager, batch {size}": partial(eager, model, pixels, size) for size in (1, 8, 32)},
        **{f"{name}, batch 32": partial(onnx, session, pixels.numpy(), 32) for name, session in sessions.items()},
    }


def bulk_encoder(checkpoint: Path, work: Path, **settings: Any) -> Callable[[], None]:
    """Run `train/encode.py` from the files to the Parquet file, loading the checkpoint once."""
    loaded = load_checkpoint(checkpoint)
    args = EncodeArguments(
        checkpoint=str(checkpoint), images=str(work / "png"), out=str(work / "out.parquet"), overwrite=True, **settings
    )

    def run() -> None:
        bulk_encoding.load_checkpoint = lambda _: loaded
        try:
            bulk_encoding.encode(args)
        finally:
            bulk_encoding.load_checkpoint = load_checkpoint

    return run


@torch.inference_mode()
def eager(model: LumbarCLIPModel, pixels: Tensor, batch_size: int) -> None:
    """Run the vision tower and its head in PyTorch."""
    for batch in pixels.split(batch_size):
        model.get_image_features(pixel_values=batch)


def onnx(session: Any, pixels: Any, batch_size: int) -> None:
    """Run the same through ONNX Runtime."""
    for start in range(0, len(pixels), batch_size):
        session.run(["image_embeds"], {"pixel_values": pixels[start : start + batch_size]})


def price_of_int8(args: InferenceBenchArguments, onnx_folder: Path, work: Path) -> dict[str, dict[str, Estimate]]:
    """Probe the pooled features of both exports."""
    targets = read_targets(open_dataset(args.dataset))
    probabilities, figures = {}, {}
    for name, int8 in (("float32", False), ("int8", True)):
        out = work / f"{name}.parquet"
        checkpoint = onnx_folder.parent / "checkpoint"
        settings = {"dataset": args.dataset, "project": False, "onnx": str(onnx_folder), "int8": int8}
        bulk = EncodeArguments(checkpoint=str(checkpoint), out=str(out), **settings)
        bulk_encoding.encode(bulk)
        rows = pq.read_table(out)
        splits = np.array(rows["split"].to_pylist())
        embeddings = np.array(rows["embedding"].to_pylist(), dtype=np.float32)
        probabilities[name] = logistic_probe({split: embeddings[splits == split] for split in targets}, targets)
        figures[name] = label_estimates(targets["test"], probabilities[name], Resampling())
    difference = label_difference(targets["test"], probabilities["int8"], probabilities["float32"], Resampling())
    return {name: {key: each[key] for key in difference} for name, each in figures.items()} | {"difference": difference}


def table(result: dict[str, Any]) -> str:
    """Tabulate medians over the turns."""
    speeds = [[name, f"{statistics.median(of_turns):.1f}"] for name, of_turns in result["images_per_second"].items()]
    ratios = [[name, f"{statistics.median(of_turns):.2f}"] for name, of_turns in result["ratios"].items()]
    return f"{markdown_table(['system', 'images/s'], speeds)}\n\n{markdown_table(['ratio', ''], ratios)}"


if __name__ == "__main__":
    sys.exit(run(main))
