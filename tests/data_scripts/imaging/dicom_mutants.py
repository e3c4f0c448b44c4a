"""Broken DICOM files, drawn by a seed: bytes flipped, files cut, headers and compressed frames that lie.

    python -m tests.data_scripts.imaging.dicom_mutants 500

Reads that many in this process and prints what came of them, and the peak of its memory in MiB.
"""

import argparse
import json
import random
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data_scripts.imaging.dicom import read_headers, read_slice, square_pixel_size
from data_scripts.imaging.images import UnusableImageError
from tests.data_scripts.imaging.dicom_files import make_dicom

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    JPEGBaseline8Bit,
)
LIES = (b"\xff\xff\xff\xff", b"\xf0\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\x00\x00", b"\x00\x00\xea\x60")
_META_END, _PIXEL_TAG = 132, b"\xe0\x7f\x10\x00"


def whole_files(folder: Path) -> list[bytes]:
    """One good file of each transfer syntax and kind of image."""
    steps = np.random.default_rng(0).normal(0, 30, (64, 64))
    grey = np.clip(np.cumsum(steps, axis=1) + 2000, 0, 4095).astype(np.uint16)
    grey_8bit = (grey // 16).astype(np.uint8)
    kinds = [
        (grey, {"bits_stored": 12, "WindowCenter": 2000, "WindowWidth": 1500}),
        (grey_8bit, {}),
        (np.stack([grey_8bit] * 3, axis=-1), {}),
        (np.stack([grey, grey // 2, grey // 3]), {"bits_stored": 12}),
        (grey, {"spacing": (1.5, 0.5), "bits_stored": 12}),
    ]
    contents = []
    for syntax in SYNTAXES:
        for pixels, tags in kinds:
            needs_8_bits = syntax == JPEGBaseline8Bit
            if needs_8_bits and pixels.dtype != np.uint8:
                continue
            make_dicom(folder / "whole", pixels, transfer_syntax=syntax, **tags)
            contents.append((folder / "whole").read_bytes())
    return contents


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Cut a file, or change a few places of its header, of the start of its pixels or of anything."""
    if rng.random() < 0.15:
        return content[: rng.randrange(len(content))]
    pixels_at = max(content.rfind(_PIXEL_TAG), len(content) // 3)
    first, last = rng.choice(
        [(_META_END, pixels_at + 40), (_META_END, pixels_at + 40), (pixels_at, pixels_at + 150), (pixels_at, None)]
    )
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(first, min(last or len(changed), len(changed) - 4))
        match rng.randrange(5):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at : at + 4] = rng.choice([*LIES, struct.pack("<I", rng.randrange(2**31))])
            case 3:
                del changed[at : at + rng.randrange(1, 4)]
            case 4:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(changed)


def mutants(folder: Path, count: int, seed: int = 0) -> Iterator[bytes]:
    """Draw broken files; the same for a seed whatever the count."""
    contents = whole_files(folder)
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        yield mutate(rng.choice(contents), rng)


def outcome(path: Path) -> str:
    """Read a file as a build does; `image`, `unusable`, or what should never be."""
    try:
        for header in read_headers(path)[:3]:
            image = read_slice(path, header.frame)
            expected = square_pixel_size(header.rows, header.columns, header.pixel_spacing_mm)
            if (image.size, image.mode) != (expected, "L"):
                return f"{image.mode} image of {image.size} instead of {expected}"
    except UnusableImageError as error:
        return "unusable" if str(path.parent) not in str(error) else f"names a folder: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "image"


def peak_mib() -> float:
    """Peak resident size of this process; `ru_maxrss` would count its parent's, before exec."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024


def main(count: int) -> None:
    """Read so many mutants."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        for content in mutants(Path(folder), count):
            path.write_bytes(content)
            outcomes[outcome(path)] += 1
    print(json.dumps(outcomes))
    print(peak_mib())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="files to draw")
    main(parser.parse_args().count)
