"""Baselines for the linear probe: what pixels, sizes and an untrained tower already tell.

A pretrained encoder has learned something only where the same probe reads more from its features than from these.
Each baseline is a feature matrix by split; whatever has to be fitted (the principal components) sees the training
split alone.
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

from modeling_lumbarclip import LumbarCLIPModel
from train.evaluation.statistics.metrics import Array

THUMBNAIL_SIZE = 64
# The probe standardises: beyond the first few, components are noise blown up to the size of the signal. On the SPIDER
# discs 32 do best or nearly so (macro AUROC 0.78 over five folds; 128: 0.72), and a baseline should be at its best.
MAX_COMPONENTS = 32
ROWS_OF_A_COMPONENT = 10
BASELINES = ("majority", "untrained", "pixel_pca", "hog", "no_pixels")
DESCRIBING_COLUMNS = ("sequence", "level", "plane")


def constant_features(splits: Mapping[str, Dataset]) -> dict[str, Array]:
    """No information at all: the probe answers the majority class, whatever the image. Shape (N, 1)."""
    return {name: np.zeros((len(rows), 1), dtype=np.float32) for name, rows in splits.items()}


def pixel_features(splits: Mapping[str, Dataset]) -> dict[str, dict[str, Array]]:
    """Compute every baseline that needs the images, decoding each once.

    Args:
        splits: By name, with the columns of the record; `train` among them.

    Returns:
        `pixel_pca`, `hog` and `no_pixels`, each by split, shape (N, D).
    """
    thumbnails, sizes = {}, {}
    for name, rows in splits.items():
        images = rows.select_columns("image")
        pairs = []
        for index in tqdm(range(len(images)), desc=f"Pixels, {name}", unit=" images"):
            image = images[index]["image"]
            pairs.append((_thumbnail(image), image.size))
        thumbnails[name] = np.stack([thumbnail for thumbnail, _ in pairs])
        sizes[name] = np.array([size for _, size in pairs], dtype=np.float32)
    return {
        "pixel_pca": pca_features(thumbnails),
        "hog": {name: hog_features(images) for name, images in thumbnails.items()},
        "no_pixels": {name: describing_features(rows, sizes[name]) for name, rows in splits.items()},
    }


def pca_features(thumbnails: Mapping[str, Array]) -> dict[str, Array]:
    """Project grey thumbnails onto the principal components of the training ones.

    Args:
        thumbnails: By split, shape (N, H, W), 8-bit; `train` among them.

    Returns:
        By split, shape (N, C); C is 32, or fewer for less than 320 training images.
    """
    flat = {name: images.reshape(len(images), -1) / 255 for name, images in thumbnails.items()}
    num_components = max(1, min(MAX_COMPONENTS, len(flat["train"]) // ROWS_OF_A_COMPONENT))
    components = PCA(num_components, svd_solver="full").fit(flat["train"])
    return {name: components.transform(rows) for name, rows in flat.items()}


def hog_features(thumbnails: Array) -> Array:
    """Histograms of oriented gradients of grey thumbnails: 8-pixel cells, 2 x 2 blocks, 9 orientations.

    Args:
        thumbnails: Shape (N, H, W), 8-bit.

    Returns:
        Shape (N, 1764) for 64 x 64 thumbnails.

    Source:
        Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005.
    """
    return np.stack(
        [hog(image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in thumbnails]
    )


def describing_features(rows: Dataset, sizes: Array) -> Array:
    """What is known of an image without looking: sequence, level, plane, and its size.

    Args:
        rows: With the columns `sequence`, `level` and `plane`.
        sizes: Width and height of the stored images in pixels. Shape (N, 2).

    Returns:
        One-hot columns, then width, height and width / height. Shape (N, D).
    """
    one_hot = [np.eye(rows.features[column].num_classes)[np.asarray(rows[column][:])] for column in DESCRIBING_COLUMNS]
    return np.concatenate([*one_hot, sizes, sizes[:, :1] / sizes[:, 1:]], axis=1)


def untrained_model(model: LumbarCLIPModel, seed: int) -> Any:
    """Build the same architecture with fresh random weights, on the same device.

    Args:
        model: The trained model; it is not touched.
        seed: Seed of the weights; the global random state is left as it was.

    Returns:
        A model of the same class and configuration.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model_class: Any = type(model)  # of our package or, for a checkpoint off the Hub, of its own code
        fresh = model_class(copy.deepcopy(model.config))
    return fresh.to(device=model.device, dtype=model.dtype)


def _thumbnail(image: Image.Image) -> Array:
    """Grey, padded to square, 64 x 64."""
    return np.asarray(ImageOps.pad(image.convert("L"), (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR))
