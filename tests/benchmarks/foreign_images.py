"""Measure how many images that a checkpoint was not trained for are held back, and how many of its own kind.

    python -m tests.benchmarks.foreign_images --checkpoint runs/demo/checkpoint --dataset data/synthetic \
        --other data/spider_discs --out tests/benchmarks/results/foreign_images_demo.json
    python -m tests.benchmarks.foreign_images --checkpoint runs/spider/checkpoint --dataset data/spider_discs \
        --other data/synthetic --out tests/benchmarks/results/foreign_images_spider.json

All images come without a header, so that only their features can give them away. Those of each kind are halved by
patient (photographs: by file). The way to measure a distance was chosen on the first half, where the roots of the
features held back as many as the features themselves, or more. The second half and the test patients were used twice:
before the roots were taken, too, when fewer photographs were held back, and more images of test patients. A checkpoint
without a scope gets one from the training and validation rows of the dataset, in memory only.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from data_scripts.system.command_line import parse_arguments
from data_scripts.system.markdown import markdown_table
from modeling_lumbarclip.configuration_lumbarclip import Scope
from train.checkpoints.checkpoint import load_checkpoint
from train.data.loaders import open_dataset
from train.data.provenance import anatomy_of
from train.evaluation.checkpoint_scope import fit_scope, held_back_share, threshold_of
from train.evaluation.features import encode_images
from train.evaluation.statistics.metrics import Array

TEXTURES = ("brick.png", "grass.png", "gravel.png")
PHOTOGRAPHS = (  # folders of installed packages
    *(("skimage", "data"), ("sklearn", "datasets/images"), ("gradio", "media_assets/images")),
    ("matplotlib", "mpl-data/sample_data"),
)
MIN_SIDE = 48
NUM_DRAWN = 60  # of each kind of drawn images
THUMBNAIL = 8  # pixels a side

Kind = list[tuple[str, Image.Image]]  # patient or file, and image


@dataclass
class ForeignImagesArguments:
    """The settings of this benchmark."""

    checkpoint: str = field(default="runs/demo/checkpoint", metadata={"help": "Checkpoint folder."})
    dataset: str = field(default="data/synthetic", metadata={"help": "The dataset that it was trained on."})
    other: str = field(default="", metadata={"help": "Another dataset, whose test rows are foreign."})
    data: str = field(default="../shared/data", metadata={"help": "Folder with knee_kl and other real images."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: ForeignImagesArguments) -> None:
    """Encode all images, compare the ways on the first half, and measure the chosen one on the second."""
    disable_progress_bars()
    model, processor = load_checkpoint(args.checkpoint)
    rows = open_dataset(args.dataset)

    def encode(split: str, of_split: Dataset) -> Array:
        encoded = encode_images(model, processor, of_split, batch_size=32, description=split)
        return encoded["image_features"]

    if model.config.scope is None:
        fit_scope(model, rows, anatomy_of(args.dataset, rows), encode)
    scope = Scope.from_dict(model.config.scope)
    assert scope.check is not None, scope.no_check

    kinds = {name: halves(kind) for name, kind in foreign_images(args).items()}
    seen = {split: images_of(rows[split]) for split in ("train", "validation", "test")}
    embedded = {name: embed(model, processor, [image for _, image in kind]) for name, kind in seen.items()}
    ways = {name: way(embedded["train"]) for name, way in WAYS.items()}
    compared = {
        name: compare(way, embedded, [embed(model, processor, [i for _, i in first]) for first, _ in kinds.values()])
        for name, way in ways.items()
    }
    held = {
        name: held_back(model, embed(model, processor, [image for _, image in second]), second)
        for name, (_, second) in kinds.items()
    }
    results = {
        "scope": model.config.scope,
        "false_alarms": held_back(model, embedded["test"], seen["test"]),
        "held_back": held,
        "ways_on_the_first_half": {name: dict(zip(kinds, of_way, strict=True)) for name, of_way in compared.items()},
        "checkpoint": Path(args.checkpoint).parent.name,
        "command": shlex.join(["python", "-m", "tests.benchmarks.foreign_images", *sys.argv[1:]]),
        "date": date.today().isoformat(),
    }
    print(tables(results))
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=2) + "\n")


def foreign_images(args: ForeignImagesArguments) -> dict[str, Kind]:
    """Collect the kinds of foreign images."""
    data, kinds = Path(args.data), {}
    sagittal = sorted((data / "spider_sagittal" / "images").iterdir())
    kinds["SPIDER, whole sagittal slices"] = [(path.name.split("_")[0], grey(path)) for path in sagittal]
    kinds["knee radiographs"] = [(path.name[:7], grey(path)) for path in sorted((data / "knee_kl").rglob("*.jpg"))]
    axial = sorted((data / "mendeley_axial").glob("*.png"))
    # Patients are not named; the files of one follow each other.
    kinds["Mendeley, real axial slices"] = [(str(place // 14), grey(path)) for place, path in enumerate(axial)]
    if args.other:
        kinds[f"{Path(args.other).name}, test patients"] = images_of(open_dataset(args.other)["test"])
    files = [path for package, folder in PHOTOGRAPHS for path in pictures(package, folder)]
    kinds["photographs"] = [pair for path in files if path.name not in TEXTURES for pair in crops(path, 4)]
    kinds["natural textures"] = [pair for path in files if path.name in TEXTURES for pair in crops(path, 15)]
    kinds["noise"] = [(str(seed), noise(seed)) for seed in range(NUM_DRAWN)]
    kinds["blank, ramps and boxes"] = [(str(seed), blank(seed)) for seed in range(NUM_DRAWN)]
    return kinds


def halves(kind: Kind) -> tuple[Kind, Kind]:
    """Halve the images by patient or file."""
    first = set(sorted({source for source, _ in kind})[::2])
    return [pair for pair in kind if pair[0] in first], [pair for pair in kind if pair[0] not in first]


def images_of(rows: Dataset) -> Kind:
    return list(zip(rows["patient_id"][:], rows["image"][:], strict=True))


def grey(path: Path) -> Image.Image:
    return Image.open(path).convert("L")


def pictures(package: str, folder: str) -> list[Path]:
    """List the pictures in a folder of an installed package, those that are large enough."""
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations
    paths = sorted(Path(found.submodule_search_locations[0], folder).iterdir())
    paths = [path for path in paths if path.suffix in (".png", ".jpg", ".jpeg", ".webp")]
    return [path for path in paths if min(Image.open(path).size) >= MIN_SIDE]


def crops(path: Path, number: int) -> Kind:
    """Return a picture and random crops of it."""
    image, generator = grey(path), np.random.default_rng(len(path.name))
    made = [(path.name, image)]
    for share in generator.uniform(0.35, 0.8, number):
        width, height = int(share * image.width), int(share * image.height)
        left, top = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
        made.append((path.name, image.crop((left, top, left + width, top + height))))
    return made


def noise(seed: int) -> Image.Image:
    """Draw Gaussian, uniform, smooth, coloured, salt-and-pepper or one-sided noise."""
    generator = np.random.default_rng(seed)
    side = int(generator.choice([64, 128, 256, 320]))
    white, strength = generator.normal(size=(side, side)), generator.uniform(0.1, 1)
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequencies[0, 0] = 1
    pixels = [
        128 + 60 * strength * white,
        generator.uniform(0, 255, (side, side)),
        stretched(gaussian_filter(white, 1 + 5 * strength)),
        stretched(np.fft.ifft2(np.fft.fft2(white) / frequencies ** (2 * strength)).real),
        255 * (generator.random((side, side)) < strength / 2),
        60 * np.abs(white),
    ][seed % 6]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def stretched(pixels: Array) -> Array:
    return 255 * (pixels - pixels.min()) / np.ptp(pixels)


def blank(seed: int) -> Image.Image:
    """Draw one grey level, a ramp, or a bright box."""
    generator = np.random.default_rng(seed)
    side, level = int(generator.choice([64, 128, 320])), 255 * seed / (NUM_DRAWN - 1)
    box = np.zeros((side, side))
    box[side // 4 : -side // 4, side // 4 : -side // 4] = level
    ramp = np.linspace(0.4 * level, 255, side)[:, None].repeat(side, axis=1)
    return Image.fromarray([np.full((side, side), level), ramp, box][seed % 3].astype(np.uint8))


def embed(model: Any, processor: Any, images: list[Image.Image]) -> dict[str, Array]:
    """Compute features z_I and thumbnails of images, as their processor leaves them."""
    features, thumbnails = [], []
    for start in range(0, len(images), 32):
        pixels = processor.image_processor(images[start : start + 32], return_tensors="pt").pixel_values
        with torch.inference_mode():
            found = model.get_image_features(pixel_values=pixels, project=False).pooler_output
        features.append(found.numpy())
        small = torch.nn.functional.interpolate(pixels[:, :1], (THUMBNAIL, THUMBNAIL), mode="area")
        thumbnails.append(small.flatten(1).numpy())
    return {"features": np.concatenate(features), "thumbnails": np.concatenate(thumbnails)}


Way = Callable[[dict[str, Array]], Array]  # from embedded images to a distance for each


def mahalanobis(of: str, prepare: Callable[[Array], Array] = np.asarray) -> Callable[[dict[str, Array]], Way]:
    def fit(train: dict[str, Array]) -> Way:
        fitted = LedoitWolf().fit(prepare(train[of].astype(np.float64)))
        return lambda embedded: fitted.mahalanobis(prepare(embedded[of].astype(np.float64)))

    return fit


def evened(features: Array) -> Array:
    return np.sign(features) * np.sqrt(np.abs(features))


def nearest_neighbour(train: dict[str, Array]) -> Way:
    fitted = NearestNeighbors(n_neighbors=5).fit(train["features"])
    return lambda embedded: fitted.kneighbors(embedded["features"])[0][:, -1]


def residual(train: dict[str, Array]) -> Way:
    """Distance from the 32 main directions of the training features."""
    centre = train["features"].mean(axis=0)
    directions = np.linalg.svd(train["features"] - centre, full_matrices=False)[2][:32]
    return lambda embedded: np.linalg.norm(
        (embedded["features"] - centre) @ (np.eye(len(centre)) - directions.T @ directions), axis=1
    )


WAYS: dict[str, Callable[[dict[str, Array]], Way]] = {
    "Mahalanobis, z_I": mahalanobis("features"),
    "Mahalanobis, roots of z_I (chosen)": mahalanobis("features", evened),
    "residual of 32 main directions, z_I": residual,
    "fifth nearest neighbour, z_I": nearest_neighbour,
    f"Mahalanobis, {THUMBNAIL} x {THUMBNAIL} pixels": mahalanobis("thumbnails"),
}


def compare(way: Way, embedded: dict[str, dict[str, Array]], foreign: list[dict[str, Array]]) -> list[float]:
    """Compute the share of each kind that lies beyond the threshold of the validation patients."""
    threshold = threshold_of(way(embedded["validation"]))
    return [float((way(kind) > threshold).mean()) for kind in foreign]


def held_back(model: Any, embedded: dict[str, Array], kind: Kind) -> dict[str, Any]:
    """Count the images that the model holds back."""
    reasons, sources = model.scope_reasons(torch.from_numpy(embedded["features"])), [source for source, _ in kind]
    share = held_back_share([reason is not None for reason in reasons], sources)
    return share.as_dict() | {"num_sources": len(set(sources))}


def tables(results: dict[str, Any]) -> str:
    """Show the results as Markdown."""
    entries = {**results["held_back"], "its own kind, test patients (false alarms)": results["false_alarms"]}
    rows = [
        [name, f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]", entry["n"], entry["num_sources"]]
        for name, entry in entries.items()
    ]
    ways = results["ways_on_the_first_half"]
    compared = [[name, *(f"{share:.3f}" for share in of_way.values())] for name, of_way in ways.items()]
    held = markdown_table(["images", "held back", "number", "patients or files"], rows)
    return f"{held}\n\n{markdown_table(['first half', *results['held_back']], compared)}"


if __name__ == "__main__":
    main(parse_arguments(ForeignImagesArguments))
