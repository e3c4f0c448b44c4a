"""Measure how much text burnt into real images is found, by kind, what is suspected without any, and the time.

    python -m tests.benchmarks.burnt_in_text --data ../shared/data --out FILE.json
    python -m tests.benchmarks.burnt_in_text --data ../shared/data --fit

`--data` holds lumbar slices, crops of discs and knee radiographs, as the folders of `SETS` do. Half of the patients and
most fonts served to choose the rule; the table is about the other half. `--fit` fits the rule to the first half again.
"""

import io
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_scripts.privacy.burnt_in_text import has_burnt_in_text, line_features
from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table
from tests.data_scripts.privacy.drawn_texts import KINDS, drawings

SETS = {
    "axial": "mendeley_axial/*.png",
    "sagittal": "spider_sagittal/images/*.jpg",
    "sagittal T2 SPACE": "spider_masks/images/*.jpg",
    "discs": "spider_discs/images/*.png",
    "knees": "knee_kl/*/*/*.jpg",
}
FITTED_EVERY = {"axial": 1, "sagittal": 1, "sagittal T2 SPACE": 4, "discs": 6, "knees": 4}
VARIED_EVERY = {"axial": 2, "sagittal": 5, "sagittal T2 SPACE": 16, "knees": 30}
DRAWN_ON = {"axial": 1, "sagittal": 2, "sagittal T2 SPACE": 6}
MARGIN = 2.3  # off the fitted log odds, so that images without text stay below zero
SIDE = 512  # pixels, of the slices that are timed


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    data: Path = field(metadata={"help": "Folder of the real images."})
    drawings: int = field(default=20, metadata={"help": "Texts drawn of each kind."})
    fit: bool = field(default=False, metadata={"help": "Fit the rule instead, and print its numbers."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BenchArguments) -> None:
    """Measure and print."""
    if args.fit:
        print(*fit(args.data, args.drawings))
        return
    slices = canvases(args.data, 1)
    found = {kind: sum(map(has_burnt_in_text, drawings(kind, slices, args.drawings, 1))) for kind in KINDS}
    suspected = {}
    for name in SETS:
        paths = paths_of(args.data, name, 1)
        suspected[name] = {"images": len(paths), "suspected": [p.name for p in paths if has_burnt_in_text(read(p))]}
    timed = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in slices[::20]]
    start = time.process_time()
    for image in timed:
        has_burnt_in_text(image)
    milliseconds = 1000 * (time.process_time() - start) / len(timed)
    print(markdown_table(["text", "found"], [[kind, f"{n} of {args.drawings}"] for kind, n in found.items()]))
    rows = [[name, f"{len(result['suspected'])} of {result['images']}"] for name, result in suspected.items()]
    print(markdown_table(["no text", "suspected"], rows))
    print(f"{milliseconds:.1f} ms of CPU for {SIDE} x {SIDE} pixels")
    if args.out:
        content = {
            "date": date.today().isoformat(),
            "drawings": args.drawings,
            "found": found,
            "suspected": suspected,
            "milliseconds": milliseconds,
        }
        Path(args.out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def fit(data: Path, number: int) -> tuple[float, list[float]]:
    """Return summand and factors of the most text-like line, by logistic regression on the first half."""
    slices = canvases(data, 0)
    with_text = [line_features(image) for kind in KINDS for image in drawings(kind, slices, number, 0)]
    without = [line_features(image) for image in images_without_text(data)]
    with_text, without = (
        [lines for lines in images if lines is not None and len(lines)] for images in (with_text, without)
    )
    factors = np.array([2, 0, 0, -5, -2, 0, 2, 0, 0, 0, 0, 0])  # to begin with: long, even, sharp
    for _ in range(4):  # which line is the text depends on the rule
        best = np.stack([lines[np.argmax(lines @ factors)] for lines in with_text])
        worst = np.concatenate([lines[np.argsort(-(lines @ factors))[:8]] for lines in without])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(np.concatenate([best, worst]), np.arange(len(best) + len(worst)) < len(best))
        factors = model[1].coef_[0] / model[0].scale_
        summand = model[1].intercept_[0] - factors @ model[0].mean_
    highest = sorted(float(np.max(summand + lines @ factors)) for lines in without)[-5:]
    print("highest log odds without text:", *np.round(highest, 2))
    return round(float(summand) - MARGIN, 2), [round(float(factor), 2) for factor in factors]


def images_without_text(data: Path) -> Iterator[Image.Image]:
    """Yield images of the first half, then some of them enlarged, compressed, negated, noisy and windowed."""
    random = np.random.default_rng(0)
    for name, every in FITTED_EVERY.items():
        yield from map(read, paths_of(data, name, 0)[::every])
    for name, every in VARIED_EVERY.items():
        for image in map(read, paths_of(data, name, 0)[::every]):
            pixels = np.asarray(image).astype(float)
            larger = (int(2.7 * image.width), int(2.7 * image.height))
            yield image.resize(larger, Image.Resampling.NEAREST if random.random() < 0.5 else Image.Resampling.BICUBIC)
            image.save(file := io.BytesIO(), "JPEG", quality=30)
            yield Image.open(file)
            for varied in (255 - pixels, pixels + random.normal(0, 10, pixels.shape), 2 * (pixels - 40)):
                yield Image.fromarray(np.clip(varied, 0, 255).astype(np.uint8))


def paths_of(data: Path, name: str, half: int) -> list[Path]:
    """List the images of half of the patients. The axial slices have no patient; their folder of origin has."""
    return [path for path in sorted(data.glob(SETS[name])) if half_of(path) == half]


def half_of(path: Path) -> int:
    """Return 0 or 1, the same for all images of a patient."""
    if "spine" in path.name:
        return int("without_pain" in path.name)
    patient = re.match(r"\d+", path.name)
    assert patient, path
    return crc32(patient[0].encode()) % 2


def canvases(data: Path, half: int) -> list[Image.Image]:
    """Read the slices that texts are drawn on."""
    return [read(path) for name, every in DRAWN_ON.items() for path in paths_of(data, name, half)[::every]]


def read(path: Path) -> Image.Image:
    """Read an image, grey."""
    return Image.open(path).convert("L")


if __name__ == "__main__":
    sys.exit(run(main))
