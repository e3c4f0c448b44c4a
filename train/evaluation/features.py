"""Embeddings of a split: every image and every distinct text encoded once, and kept on disk; features of a tower."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from data_scripts.system.whole_files import follow_umask, unfinished_file
from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.scope_lumbarclip import SCOPE_PREFIX
from train.data.image_cache import DecodedImages, decode_images, normalise
from train.evaluation.protocols.retrieval import group_texts
from train.evaluation.statistics.metrics import Array

logger = logging.getLogger(__name__)


# Changes grey images (B, S, S), float from 0 to 255, of the given rows.
Vary = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@torch.inference_mode()
def encode_images(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    rows: Dataset,
    *,
    batch_size: int,
    description: str,
    vary: Vary | None = None,
) -> dict[str, Array]:
    """Encode the images of a split, or with `vary` a variation of each, in grey.

    Returns:
        `image_features`, the pooled output z_I of the vision tower, shape (N, d_I), and `image_embeds`, projected and
        of unit length, shape (N, D); float32.
    """
    features, embeds = [], []
    images = DecodedImages(rows, processor.image_processor)
    with _evaluation_mode(model), tqdm(total=len(rows), desc=description, unit=" images") as progress:
        for start in range(0, len(images), batch_size):
            of_batch = range(start, min(start + batch_size, len(images)))
            batch = torch.stack([images[row].expand(3, -1, -1) for row in of_batch])
            if vary is not None:
                batch = vary(batch.float().mean(dim=1), of_batch)[:, None]
            pixels = normalise(batch, processor.image_processor)
            batch_features = model.get_image_features(pixel_values=pixels.to(model.device), project=False).pooler_output
            features.append(_as_numpy(batch_features))
            embeds.append(_as_numpy(F.normalize(model.image_projection(batch_features), dim=-1)))
            progress.update(len(pixels))
    return {"image_features": np.concatenate(features), "image_embeds": np.concatenate(embeds)}


@torch.inference_mode()
def encode_texts(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    texts: Sequence[str],
    *,
    batch_size: int,
    description: str | None = None,
) -> Array:
    """Encode N texts, those that repeat only once; without `description` there is no progress bar.

    Returns:
        Projected embeddings of unit length. Shape (N, D), float32.
    """
    distinct, text_of_row = group_texts(texts)
    by_length = np.argsort([len(text) for text in distinct], kind="stable")  # batch similar lengths: less padding
    embeds: list[Array] = []
    progress = tqdm(total=len(distinct), desc=description, unit=" texts", disable=description is None)
    with _evaluation_mode(model), progress:
        for start in range(0, len(distinct), batch_size):
            chunk = [distinct[i] for i in by_length[start : start + batch_size]]
            tokens = processor(text=chunk, return_tensors="pt").to(model.device)
            embeds.append(_as_numpy(model.get_text_features(**tokens).pooler_output))
            progress.update(len(chunk))
    in_order = np.empty((len(distinct), embeds[0].shape[1]), dtype=np.float32)
    in_order[by_length] = np.concatenate(embeds)
    return in_order[text_of_row]


def cached(path: Path, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """Read arrays from a safetensors file, or make and write them. A damaged file is made again; writing is atomic."""
    if path.exists():
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            logger.warning("Cannot read the cached features %s (%s); computing them again.", path, error)
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_file(path) as unfinished:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, unfinished)
        follow_umask(unfinished)
    return arrays


def encode_images_once(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    rows: Dataset,
    split: str,
    *,
    batch_size: int,
    cache_dir: Path | None,
    vary: Vary | None = None,
) -> dict[str, Array]:
    """Call `encode_images`, unless `cache_dir` has its result under the name `split`, which tells variations apart."""

    def make() -> dict[str, Array]:
        options: dict[str, Any] = {"batch_size": batch_size, "description": f"Images, {split}", "vary": vary}
        return encode_images(model, processor, rows, **options)

    if cache_dir is None:
        return make()
    return cached(cache_dir / f"{cache_key(model, processor, rows, split)}.safetensors", make)


def cache_key(model: LumbarCLIPModel, processor: LumbarCLIPProcessor, rows: Dataset, split: str) -> str:
    """Make a name that changes with anything the embeddings depend on.

    The weights are hashed, not their path, since training continues in the same folder; so are the settings of the
    processor, and the fingerprint that `datasets` keeps for rows.
    """
    settings = json.loads(processor.to_json_string())
    for part in (settings, settings["image_processor"]):
        part.pop("auto_map", None)  # set when the processor is saved
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{rows._fingerprint} {split} {len(rows)}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(SCOPE_PREFIX):  # fitted on these embeddings
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{split}-{digest.hexdigest()[:24]}"


def features_of_rows(model: Any, rows: Dataset, image_processor: LumbarCLIPImageProcessor, batch_size: int) -> Array:
    """Compute z_I, the pooled output of the tower, for the images of rows. Shape (N, d_I), float32."""
    images = decode_images(rows, image_processor, show_progress=False)
    return tower_features(model, images, image_processor, batch_size)


@torch.inference_mode()
def tower_features(model: Any, images: Tensor, image_processor: LumbarCLIPImageProcessor, batch_size: int) -> Array:
    """Compute z_I of a model with a head for decoded images (N, S, S), which stays in evaluation mode. (N, d_I)."""
    model.eval()
    batches = (normalise(batch[:, None], image_processor).to(model.device) for batch in images.split(batch_size))
    return np.concatenate([_as_numpy(model.get_image_features(batch).pooler_output) for batch in batches])


@contextmanager
def _evaluation_mode(model: LumbarCLIPModel) -> Iterator[None]:
    """Switch dropout and batch statistics off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _as_numpy(tensor: Any) -> Array:
    return tensor.float().cpu().numpy()
