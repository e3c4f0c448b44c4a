"""Baselines of the linear probe: what pixels, image sizes and an untrained tower already tell.

A pretrained encoder has learned something only if the same probe reads more from its features than from these.
Each baseline is a feature matrix by split, shape (N, D); the principal components are fitted on only the
training split.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image, ImageOps
from skimage.feature import hog
from sklearn.decomposition import PCA
from tqdm.auto import tqdm

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.evaluation.features import encode_images
from train.evaluation.statistics.metrics import Array

THUMBNAIL_SIZE = 64
# The probe standardises, which amplifies later components, noise, to the size of the signal. On the SPIDER discs 32 are
# (nearly) the best number: macro AUROC over five folds is 0.78, with 128 it is 0.72. A baseline should be at its best.
MAX_COMPONENTS = 32
ROWS_OF_A_COMPONENT = 10
BASELINES = ("majority", "untrained", "pixel_pca", "hog", "no_pixels")
DESCRIBING_COLUMNS = ("sequence", "level", "plane")


def baseline_features(
    model: LumbarCLIPModel, processor: LumbarCLIPProcessor, dataset: Mapping[str, Dataset], batch_size: int, seed: int
) -> dict[str, dict[str, Array]]:
    """Compute the features of every baseline in `BASELINES`; `seed` is that of the untrained weights.

    Returns:
        By baseline, by split. Shape (N, D).
    """
    splits = {split: rows.with_format(None) for split, rows in dataset.items()}
    untrained = untrained_model(model, seed)
    encoded = {
        split: encode_images(
            untrained, processor, rows, batch_size=batch_size, description=f"Untrained encoder, {split}"
        )["image_features"]
        for split, rows in splits.items()
    }
    return {"majority": constant_features(splits), "untrained": encoded, **pixel_features(splits)}


def constant_features(splits: Mapping[str, Dataset]) -> dict[str, Array]:
    """No information: the probe predicts the majority class for every image. Shape (N, 1)."""
    return {name: np.zeros((len(rows), 1), dtype=np.float32) for name, rows in splits.items()}


def pixel_features(splits: Mapping[str, Dataset]) -> dict[str, dict[str, Array]]:
    """Compute the baselines that need the images, decoding each image once.

    Returns:
        `pixel_pca`, `hog` and `no_pixels`, each by split, shape (N, D).
    """
    thumbnails, sizes = {}, {}
    for name, rows in splits.items():
        images = tqdm(rows.select_columns("image"), desc=f"Pixels, {name}", unit=" images")
        pairs = [(_thumbnail(row["image"]), row["image"].size) for row in images]
        thumbnails[name] = np.stack([thumbnail for thumbnail, _ in pairs])
        sizes[name] = np.array([size for _, size in pairs], dtype=np.float32)
    return {
        "pixel_pca": pca_features(thumbnails),
        "hog": {name: hog_features(images) for name, images in thumbnails.items()},
        "no_pixels": {name: describing_features(rows, sizes[name]) for name, rows in splits.items()},
    }


def pca_features(thumbnails: Mapping[str, Array]) -> dict[str, Array]:
    """Project grey 8-bit thumbnails, shape (N, H, W), onto the principal components of the training ones.

    Returns:
        By split, shape (N, C); C is 32, or fewer for less than 320 training images.
    """
    flat = {name: images.reshape(len(images), -1) / 255 for name, images in thumbnails.items()}
    num_components = max(1, min(MAX_COMPONENTS, len(flat["train"]) // ROWS_OF_A_COMPONENT))
    components = PCA(num_components, svd_solver="full").fit(flat["train"])
    return {name: components.transform(rows) for name, rows in flat.items()}


def hog_features(thumbnails: Array) -> Array:
    """Compute histograms of oriented gradients: 8-pixel cells, 2 x 2 blocks, 9 orientations.

    Returns:
        Shape (N, 1764) for grey 8-bit thumbnails of shape (N, 64, 64).

    Source:
        Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005.
    """
    return np.stack(
        [hog(image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in thumbnails]
    )


def describing_features(rows: Dataset, sizes: Array) -> Array:
    """Describe images without looking at them: sequence, level, plane, and `sizes`, shape (N, 2) in pixels.

    Returns:
        One-hot columns, then width, height and width / height. Shape (N, D).
    """
    one_hot = [np.eye(rows.features[column].num_classes)[np.asarray(rows[column][:])] for column in DESCRIBING_COLUMNS]
    return np.concatenate([*one_hot, sizes, sizes[:, :1] / sizes[:, 1:]], axis=1)


def untrained_model(model: LumbarCLIPModel, seed: int) -> Any:
    """Build the same architecture with fresh random weights, on the same device; touches no global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model_class: Any = type(model)  # of our package or, for a checkpoint off the Hub, of its own code
        fresh = model_class(copy.deepcopy(model.config))
    return fresh.to(device=model.device, dtype=model.dtype)


def _thumbnail(image: Image.Image) -> Array:
    """Grey, padded to square, 64 x 64."""
    return np.asarray(ImageOps.pad(image.convert("L"), (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR))
