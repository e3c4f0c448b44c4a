"""Embed a folder of images, DICOM files included, or a data set: a Parquet file with one row an image.

    python train/encode.py --checkpoint runs/demo/checkpoint --images scans --out embeddings.parquet
    python train/encode.py --checkpoint USER/MODEL --dataset data/synthetic --split train --out index.parquet
    python train/encode.py --checkpoint USER/MODEL --dataset data/synthetic --what reports --out reports.parquet

Columns: `source`, of a folder `frame`, of a data set `patient_id`, `report`, `labels` and `split`; and `embedding`,
float32. The schema's metadata say under `lumbarclip` which weights made them and, of a data set, its `license` and
whether it `may_be_shared` and passed `deidentification`. `OUT.parquet.json` lists every file that could not be read,
with the reason.

Where there are processors enough, worker processes decode while the model encodes. A run that was killed goes on where
it was when the same command is given again, and its result is the same; if a broken file killed it, that is found and
listed. `--onnx` encodes with what `python train/export.py` wrote.
"""

import hashlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from data_scripts.system.command_line import run
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.data.loaders import open_dataset
from train.data.provenance import describe_build
from train.encoding.crashes import WORKER_DIED, find_crashing
from train.encoding.dataset_rows import DatasetImages, DatasetReports
from train.encoding.encoders import Encoder, ModelEncoder, OnnxEncoder
from train.encoding.folder_images import FolderImages
from train.encoding.parts import EmbeddingParts, as_table, open_parts, report_path
from train.encoding.read_batch import Inputs, ReadBatch, Reference

logger = logging.getLogger(__name__)

WHAT = ("images", "reports")
BATCHES_OF_PART = 32  # so many at most does a killed run do again


def default_num_workers() -> int:
    """Half of the processors, less the one that feeds the model; on two, a worker costs more than it gains."""
    return max(0, min(8, (os.cpu_count() or 1) // 2 - 1))


@dataclass
class EncodeArguments:
    """Embed a folder of images or a data set."""

    checkpoint: str = field(metadata={"help": "Folder of a checkpoint, or a Hub id."})
    out: str = field(metadata={"help": "Parquet file to write."})
    images: str = field(default="", metadata={"help": "Folder of images and DICOM files, known by their content."})
    dataset: str = field(
        default="", metadata={"help": "In place of images: folder of data_scripts.build, or a Hub id."}
    )
    split: list[str] = field(default_factory=list, metadata={"help": "Splits of the data set; none: all."})
    what: str = field(default="images", metadata={"help": "What of the data set is embedded: images or reports."})
    project: bool = field(
        default=True,
        metadata={"help": "Unit-length embeddings of the shared space, or the pooled outputs of the towers."},
    )
    onnx: str = field(default="", metadata={"help": "Folder of train.checkpoints.onnx_export to encode with."})
    int8: bool = field(default=False, metadata={"help": "With onnx: take the quantised copy."})
    batch_size: int = field(default=32, metadata={"help": "Images or rows a forward pass."})
    num_workers: int = field(
        default=default_num_workers(),
        metadata={"help": "Processes that decode while the model encodes; 0: the main process, in turn."},
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace OUT, and drop what an interrupted run with other settings left."}
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        out = Path(self.out)
        if bool(self.images) == bool(self.dataset):
            raise ValueError("Name a folder with --images, or a data set with --dataset; one of the two.")
        if self.what not in WHAT or (self.images and self.what != "images"):
            raise ValueError(f"--what is images, or of a data set reports; got {self.what!r}.")
        if self.int8 and not self.onnx:
            raise ValueError("--int8 takes the quantised copy of an export: name its folder with --onnx.")
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"--batch_size is at least 1 and --num_workers at least 0; got {self.batch_size}, {self.num_workers}."
            )
        if out.suffix != ".parquet":
            raise ValueError(f"--out is the Parquet file to write, such as embeddings.parquet; got {self.out!r}.")
        if self.images and out.resolve().is_relative_to(Path(self.images).resolve()):
            raise ValueError(f"--out {out} lies in the folder that is read; write it elsewhere.")
        if out.exists() and not self.overwrite:
            raise ValueError(f"--out {out} exists; replace it with --overwrite, or name another file.")


def main(args: EncodeArguments) -> None:
    """Load, encode part by part, and join the parts."""
    model, processor = cast(tuple[LumbarCLIPModel, LumbarCLIPProcessor], load_checkpoint(args.checkpoint))
    inputs = open_inputs(args, processor)
    settings = describe(args, model, processor, inputs)
    encoder = build_encoder(args, model, processor, settings["embeddings"]["weights_sha256"])
    out = Path(args.out)
    with open_parts(out, settings, args.overwrite) as parts:
        encode_parts(inputs, encoder, parts, args.batch_size, args.num_workers)
        num_unreadable = len(parts.unreadable())
        num_rows = parts.join(out)
    logger.info(f"Written: {out}, {num_rows} rows.")
    if num_unreadable:
        logger.warning(f"{num_unreadable} could not be read; {report_path(out)} lists them, with the reasons.")


def open_inputs(args: EncodeArguments, processor: LumbarCLIPProcessor) -> Inputs:
    """Find what is to be encoded.

    Raises:
        ValueError: If there is nothing, or the data set has no such split.
    """
    if args.images:
        return FolderImages(Path(args.images), processor.image_processor)
    dataset = open_dataset(args.dataset)
    if unknown := set(args.split) - set(dataset):
        raise ValueError(f"{args.dataset} has no split {', '.join(sorted(unknown))}; it has {', '.join(dataset)}.")
    splits = {split: dataset[split] for split in args.split or dataset}
    if args.what == "reports":
        return DatasetReports(splits, processor)
    return DatasetImages(splits, processor.image_processor)


def build_encoder(
    args: EncodeArguments, model: LumbarCLIPModel, processor: LumbarCLIPProcessor, weights: str
) -> Encoder:
    """Take the model, or its export to ONNX."""
    if args.onnx:
        return OnnxEncoder(Path(args.onnx), processor.image_processor, args.project, weights, args.what, args.int8)
    return ModelEncoder(model, processor.image_processor, args.project)


def describe(
    args: EncodeArguments, model: LumbarCLIPModel, processor: LumbarCLIPProcessor, inputs: Inputs
) -> dict[str, Any]:
    """Everything that the result depends on; a run is gone on with if all of it is the same."""
    folder = Path(args.checkpoint)
    build = {}
    if args.dataset:  # whoever publishes the reports that lie beside the embeddings is asked for it
        known = describe_build(args.dataset)
        build = {name: known[name] for name in ("license", "may_be_shared", "deidentification")}
    return {
        # Kept with the embeddings; of a folder its name alone, since a path tells of the machine.
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


def encode_parts(inputs: Inputs, encoder: Encoder, parts: EmbeddingParts, batch_size: int, num_workers: int) -> None:
    """Encode what the parts do not hold yet, and list what crashes its decoder.

    Raises:
        ValueError: If a worker process died, and not of a file.
    """
    if parts.is_resumed:  # a file may have killed the earlier run; a worker process dies of it alone
        num_workers = max(1, num_workers)
    while True:
        try:
            return encode_rest(inputs, encoder, parts, batch_size, num_workers)
        except RuntimeError as error:
            if not str(error).startswith(WORKER_DIED):
                raise
            # Beyond the part that was not finished, a loader has two batches a worker under way.
            batches = batches_of(inputs, batch_size, parts.num_done * BATCHES_OF_PART * batch_size)
            crashing = find_crashing(inputs, itertools.islice(batches, BATCHES_OF_PART + 2 * num_workers))
            if not crashing:
                raise ValueError(
                    f"A process that decodes was killed, and no file does it by itself ({error}). Memory may have run "
                    "out: give the same command again with fewer --num_workers, or a smaller --batch_size and "
                    "--overwrite."
                ) from error
            logger.warning(f"Left out, since the decoder crashes: {', '.join(map(str, sorted(crashing)))}")
            inputs.crashing |= crashing


def encode_rest(inputs: Inputs, encoder: Encoder, parts: EmbeddingParts, batch_size: int, num_workers: int) -> None:
    """Encode what the parts do not hold yet; decoding goes on meanwhile, in order, in worker processes."""
    num_done = parts.num_done * BATCHES_OF_PART * batch_size
    loader = DataLoader(
        cast(Any, inputs),
        sampler=cast(Any, batches_of(inputs, batch_size, num_done)),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=cast(Any, as_read),
    )
    batches = iter(loader)
    with tqdm(total=inputs.num_files, desc="encoding", unit=f" {inputs.name}") as progress:
        progress.update(min(num_done, inputs.num_files))
        while encoded := [
            encode_batch(batch, encoder, inputs.schema, progress)
            for batch in itertools.islice(batches, BATCHES_OF_PART)
        ]:
            tables, unreadable = zip(*encoded, strict=True)
            parts.write(pa.concat_tables(tables), [entry for entries in unreadable for entry in entries])


def batches_of(inputs: Inputs, batch_size: int, num_done: int) -> Iterator[list[Reference]]:
    """List what is to be read, a batch at a time, from where an earlier run was."""
    references = itertools.islice(inputs.references(), num_done, None)
    return iter(lambda: list(itertools.islice(references, batch_size)), [])


def encode_batch(
    batch: ReadBatch, encoder: Encoder, schema: pa.Schema, progress: Any
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Encode what could be read of a batch; give the rows, and what could not."""
    embeddings = encoder(batch.tensors) if batch.tensors else np.empty((0, 1), dtype=np.float32)
    progress.update(batch.num_files)
    return as_table(batch.columns, embeddings, schema), batch.unreadable


def as_read(batch: ReadBatch) -> ReadBatch:
    """Leave a batch as it was read."""
    return batch


if __name__ == "__main__":
    sys.exit(run(main))
