"""Encode inputs in bulk: decode in worker processes, write chunk by chunk, and survive files that crash a decoder."""

import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from data_scripts.system.worker_pool import Announce, Workers
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.data.loaders import open_dataset
from train.data.provenance import describe_build
from train.encoding.arguments import EncodeArguments
from train.encoding.chunks import EmbeddingChunks, as_table, open_chunks, report_path
from train.encoding.encoders import Encoder, ModelEncoder, OnnxEncoder
from train.encoding.inputs import DatasetImages, DatasetReports, FolderImages, Inputs, ReadBatch, Reference

logger = logging.getLogger(__name__)

BATCHES_OF_CHUNK = 32  # at most this many are encoded again after a kill


def encode(args: EncodeArguments) -> None:
    """Load the checkpoint, encode chunk by chunk, and join the chunks."""
    model, processor = load_checkpoint(args.checkpoint)
    inputs = open_inputs(args, processor)
    settings = describe(args, model, processor, inputs)
    encoder: Encoder = (
        OnnxEncoder(args, processor.image_processor, settings["embeddings"]["weights_sha256"])
        if args.onnx
        else ModelEncoder(model, processor.image_processor, args.project)
    )
    out = Path(args.out)
    with open_chunks(out, settings, args.overwrite) as chunks:
        encode_chunks(inputs, encoder, chunks, args.batch_size, args.num_workers)
        num_unreadable = len(chunks.unreadable())
        num_rows = chunks.join(out)
    logger.info(f"Wrote {out}: {num_rows} rows.")
    if num_unreadable:
        logger.warning(f"{num_unreadable} could not be read; {report_path(out)} lists them, with the reasons.")


def open_inputs(args: EncodeArguments, processor: LumbarCLIPProcessor) -> Inputs:
    """Open the inputs; raise `ValueError` if there is nothing, or the dataset has no such split."""
    if args.images:
        return FolderImages(Path(args.images), processor.image_processor)
    dataset = open_dataset(args.dataset)
    if unknown := set(args.split) - set(dataset):
        raise ValueError(f"{args.dataset} has no split {', '.join(sorted(unknown))}; it has {', '.join(dataset)}.")
    splits = {split: dataset[split] for split in args.split or dataset}
    if args.what == "reports":
        return DatasetReports(splits, processor)
    return DatasetImages(splits, processor.image_processor)


def describe(
    args: EncodeArguments, model: LumbarCLIPModel, processor: LumbarCLIPProcessor, inputs: Inputs
) -> dict[str, Any]:
    """Describe everything the result depends on; an interrupted run resumes only if all of it is the same."""
    folder = Path(args.checkpoint)
    build = {}
    if args.dataset:  # needed to publish the reports, which are stored with the embeddings
        known = describe_build(args.dataset)
        build = {name: known[name] for name in ("license", "may_be_shared", "deidentification")}
    return {
        # Kept with the embeddings; only the name of a folder, since a path would reveal the machine.
        "embeddings": {
            "checkpoint": folder.resolve().name if folder.is_dir() else args.checkpoint,
            "weights_sha256": weights_sha256(model),
            "what": args.what,
            "projected": args.project,
            "computed_with": f"onnxruntime{' int8' * args.int8}" if args.onnx else "torch",
            **build,
        },
        "processor_sha256": hashlib.sha256(processor.to_json_string().encode()).hexdigest(),
        "batch_size": args.batch_size,
        "inputs": inputs.identity(),
    }


def encode_chunks(inputs: Inputs, encoder: Encoder, chunks: EmbeddingChunks, batch_size: int, num_workers: int) -> None:
    """Encode in order what is not in the chunks yet, while worker processes decode."""
    if chunks.is_resumed:  # a file may have killed the earlier run; now it kills only a worker process
        num_workers = max(1, num_workers)
    num_done = chunks.num_done * BATCHES_OF_CHUNK * batch_size
    batches = batches_of(inputs, batch_size, num_done)
    pool = Workers(num_workers, preload=(__name__,)) if num_workers else nullcontext()
    with pool as workers, tqdm(total=inputs.num_files, desc="encoding", unit=f" {inputs.name}") as progress:
        read = (
            workers.run(partial(read_in_worker, inputs), batches, max_waiting=2 * num_workers)
            if workers
            else map(inputs.read, batches)
        )
        progress.update(min(num_done, inputs.num_files))
        while encoded := [
            encode_batch(batch, encoder, inputs.schema, progress) for batch in itertools.islice(read, BATCHES_OF_CHUNK)
        ]:
            tables, unreadable = zip(*encoded, strict=True)
            chunks.write(pa.concat_tables(tables), [entry for entries in unreadable for entry in entries])


def read_in_worker(
    inputs: Inputs, references: list[Reference], crashed: Mapping[int, str], announce: Announce
) -> ReadBatch:
    """Read a batch in a worker process; its tensors travel as arrays, since torch would send open files."""
    torch.set_num_threads(1)
    batch = inputs.read(references, crashed, announce)
    return replace(batch, tensors={name: tensor.numpy() for name, tensor in batch.tensors.items()})


def batches_of(inputs: Inputs, batch_size: int, num_done: int) -> Iterator[list[Reference]]:
    """List what remains to be read after `num_done` inputs, a batch at a time."""
    references = itertools.islice(inputs.references(), num_done, None)
    return iter(lambda: list(itertools.islice(references, batch_size)), [])


def encode_batch(
    batch: ReadBatch, encoder: Encoder, schema: pa.Schema, progress: Any
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Encode what could be read of a batch; return its rows, and a list of what could not be read."""
    tensors = {name: torch.as_tensor(values) for name, values in batch.tensors.items()}
    embeddings = encoder(tensors) if tensors else np.empty((0, 1), dtype=np.float32)
    progress.update(batch.num_files)
    return as_table(batch.columns, embeddings, schema), batch.unreadable
