"""Baselines: what pixels, textures, image sizes, an untrained tower and one trained on photographs already tell.

A pretrained encoder has learned something only if a probe reads more from its features than from these.
Each baseline is a feature matrix by split, shape (N, D); the principal components are fitted on only the
training split.
"""

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import timm
import torch
from datasets import Dataset
from huggingface_hub import constants, get_session, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image, ImageOps
from scipy.stats import entropy, kurtosis, skew
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern
from sklearn.decomposition import PCA
from tqdm.auto import tqdm

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.towers_lumbarclip import load_vision_tower
from train.checkpoints.packaged_towers import packaged_folder
from train.evaluation.features import encode_images
from train.evaluation.statistics.metrics import Array

logger = logging.getLogger(__name__)

THUMBNAIL_SIZE = 64
# The probe standardises, which amplifies later components, noise, to the size of the signal. On the SPIDER discs 32 are
# (nearly) the best number: macro AUROC over five folds is 0.78, with 128 it is 0.72. A baseline should be at its best.
MAX_COMPONENTS = 32
ROWS_OF_A_COMPONENT = 10
BASELINES = ("majority", "untrained", "pixel_pca", "hog", "texture", "imagenet", "no_pixels")
DESCRIBING_COLUMNS = ("sequence", "level", "plane")

TEXTURE_SIDE = 96  # larger images are shrunk to this longer side: finer texture is noise and costs time
GREY_LEVELS = 32
DISTANCES = (1, 2, 4)
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
PATTERNS = ((8, 1), (16, 2))  # points and radius

# Read best at 96 pixels: on validation patients of the SPIDER discs macro AUROC is 0.69 at 64, 0.73 at 96, 0.67 at 128.
IMAGENET_TOWER, PACKAGED_TOWER = "tf_efficientnet_lite0", "packaged:efficientnet_lite0"
HUB_TOWER, WEIGHTS = "timm/tf_efficientnet_lite0.in1k", "model.safetensors"
IMAGENET_SIDE = 96
BATCH_SIZE = 32
MAX_REASON = 300  # characters of an error that are told
MAX_DESCRIBED = 20_000  # images, 100 MB
_DESCRIBED: dict[tuple[Any, ...], Array] = {}


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


def texture_features(images: Sequence[Image.Image]) -> Array:
    """Describe the grey levels of images: their statistics, their co-occurrence and their local patterns.

    An image is shrunk to 96 pixels on its longer side. 11 statistics of the whole image and the means and standard
    deviations of its 3 x 3 parts; five properties of co-occurrence (32 grey levels, distances 1, 2 and 4), mean and
    range over four angles; histograms of uniform local binary patterns (8 points at radius 1, 16 at 2).

    Returns:
        Shape (N, 87).

    Source:
        Haralick et al., Textural Features for Image Classification, 1973. Ojala et al., Multiresolution Gray-Scale and
        Rotation Invariant Texture Classification, 2002. What is measured where is ours.
    """
    return np.stack([_texture(image) for image in images])


def _texture(image: Image.Image) -> Array:
    grey = image.convert("L")
    grey.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey)
    if min(pixels.shape) < 3:  # a strip without three parts
        pixels = np.asarray(grey.resize((max(3, grey.width), max(3, grey.height))))
    flat = pixels.ravel().astype(np.float64)
    shape = [skew(flat), kurtosis(flat)] if np.ptp(flat) else [0.0, 0.0]
    levels = pixels // (256 // GREY_LEVELS)
    shares = np.bincount(levels.ravel(), minlength=GREY_LEVELS)
    statistics = [flat.mean(), flat.std(), *shape, entropy(shares), *np.percentile(flat, [5, 10, 25, 50, 75, 90])]
    parts = [part for rows in np.array_split(pixels, 3) for part in np.array_split(rows, 3, axis=1)]
    near = graycomatrix(levels, DISTANCES, ANGLES, GREY_LEVELS, symmetric=True, normed=True)
    of_angles = np.stack([graycoprops(near, name) for name in GLCM_PROPERTIES])  # (properties, distances, angles)
    patterns = [
        np.bincount(local_binary_pattern(pixels, points, radius, "uniform").astype(int).ravel(), minlength=points + 2)
        for points, radius in PATTERNS
    ]
    return np.concatenate(
        [
            statistics,
            *([part.mean(), part.std()] for part in parts),
            of_angles.mean(2).ravel(),
            np.ptp(of_angles, axis=2).ravel(),
            *(pattern / pixels.size for pattern in patterns),
        ]
    )


def imagenet_features(images: Sequence[Image.Image], tower: torch.nn.Module) -> Array:
    """Encode images, grey and padded to 96 pixels, by the frozen ImageNet tower. Shape (N, D), float32."""
    side = (IMAGENET_SIDE, IMAGENET_SIDE)
    squares = [np.asarray(ImageOps.pad(image.convert("L"), side, Image.Resampling.BILINEAR)) for image in images]
    pixels = torch.from_numpy(np.stack(squares)).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1  # as it was trained
    pixels = pixels.to(next(tower.parameters()).device, memory_format=torch.channels_last)
    with torch.inference_mode():
        features: Array = tower(pixels).float().cpu().numpy()
    return features


@lru_cache(maxsize=1)
def imagenet_tower() -> tuple[torch.nn.Module | None, str]:
    """Load the frozen tower that was trained on photographs; None, with the reason, if it cannot be had."""
    try:
        tower = load_imagenet_tower()
    except Exception as error:  # without a network, libraries raise anything
        reason = " ".join(str(error).split())[:MAX_REASON]
        logger.warning("The baseline imagenet is left out: %s", reason)
        return None, reason
    # Features take a quarter less time this way.
    tower.to("cuda" if torch.cuda.is_available() else "cpu").to(memory_format=torch.channels_last)
    return tower.eval().requires_grad_(False), ""


def load_imagenet_tower() -> torch.nn.Module:
    """Load the tower from its package if it is installed, else from the Hub or its cache.

    Raises:
        ValueError: If neither has it; the message says how to get it.
    """
    try:
        tower: Any = load_vision_tower(str(packaged_folder(PACKAGED_TOWER, "vision")), None)
    except ValueError as not_packaged:
        try:
            weights = _from_the_hub()
        except Exception as error:  # of the network, whichever library meets it
            raise ValueError(f"{not_packaged} The Hub cannot be reached, either.") from error
        overlay = {"file": weights}
        return timm.create_model(IMAGENET_TOWER, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    return tower.timm_model


def _from_the_hub() -> str:
    """Return the path of the tower's weights, downloaded if they are not in the cache."""
    try:
        return hf_hub_download(HUB_TOWER, WEIGHTS, local_files_only=True)
    except LocalEntryNotFoundError:
        # Without a network, a download tries again for most of a minute.
        get_session().head(constants.ENDPOINT, timeout=5.0)
        return hf_hub_download(HUB_TOWER, WEIGHTS)


def why_left_out(names: Sequence[str] = BASELINES) -> dict[str, str]:
    """Say which of the named baselines cannot be had on this machine, and why."""
    reason = imagenet_tower()[1] if "imagenet" in names else ""
    return {"imagenet": reason} if reason else {}


def described_once(
    rows: Dataset, name: str, describe: Callable[[Sequence[Image.Image]], Array], description: str
) -> Array:
    """Describe every image of a split by a function of images; one that this process has seen before is looked up.

    The folds of a cross-validation share their images. Returns shape (N, D).
    """
    found: list[Array] = []
    with tqdm(total=len(rows), desc=description, unit=" images") as progress:
        for start in range(0, len(rows), BATCH_SIZE):
            images = rows[start : start + BATCH_SIZE]["image"]
            keys = [(name, image.size, hashlib.sha256(image.tobytes()).digest()) for image in images]
            new = {key: image for key, image in zip(keys, images, strict=True) if key not in _DESCRIBED}
            described = dict(zip(new, describe(list(new.values())), strict=True)) if new else {}
            found += [described[key] if key in described else _DESCRIBED[key] for key in keys]
            if len(_DESCRIBED) < MAX_DESCRIBED:
                _DESCRIBED.update(described)
            progress.update(len(images))
    return np.stack(found)


def constant_features(splits: Mapping[str, Dataset]) -> dict[str, Array]:
    """No information: the probe predicts the majority class for every image. Shape (N, 1)."""
    return {name: np.zeros((len(rows), 1), dtype=np.float32) for name, rows in splits.items()}


def pixel_features(splits: Mapping[str, Dataset]) -> dict[str, dict[str, Array]]:
    """Compute the baselines that need the images, and no model of ours.

    Returns:
        `pixel_pca`, `hog`, `texture`, `imagenet` unless it is left out, and `no_pixels`, each by split, shape (N, D).
    """
    thumbnails, sizes = {}, {}
    for name, rows in splits.items():
        images = tqdm(rows.select_columns("image"), desc=f"Pixels, {name}", unit=" images")
        pairs = [(_thumbnail(row["image"]), row["image"].size) for row in images]
        thumbnails[name] = np.stack([thumbnail for thumbnail, _ in pairs])
        sizes[name] = np.array([size for _, size in pairs], dtype=np.float32)
    described = {"texture": texture_features}
    if (tower := imagenet_tower()[0]) is not None:
        described["imagenet"] = partial(imagenet_features, tower=tower)
    return {
        "pixel_pca": pca_features(thumbnails),
        "hog": {name: hog_features(images) for name, images in thumbnails.items()},
        **{
            baseline: {
                name: described_once(rows, baseline, describe, f"Baseline {baseline}, {name}")
                for name, rows in splits.items()
            }
            for baseline, describe in described.items()
        },
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
