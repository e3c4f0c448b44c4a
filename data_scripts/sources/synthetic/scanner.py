"""How a synthetic scanner sees the anatomy: tissue contrast, coil profile, saturation band, noise and grey levels."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from data_scripts.sources.synthetic.canvas import Field, smooth_noise

# Brightness of the tissues on turbo spin-echo images, subcutaneous fat near 1.
SIGNAL = {
    "T1": {
        "fat": 0.95, "deep fat": 0.86, "skin": 0.35, "fascia": 0.12, "muscle": 0.35, "marrow": 0.52, "cortex": 0.07,
        "ligament": 0.26, "nerve": 0.33, "joint fluid": 0.22, "dura": 0.16, "csf": 0.20, "rootlet": 0.30,
        "nucleus": 0.44, "annulus": 0.40, "dehydrated nucleus": 0.33, "vessel": 0.06, "vessel wall": 0.30,
        "bowel": 0.42, "air": 0.02, "cord": 0.36, "vein": 0.30, "urine": 0.20,
    },
    "T2": {
        "fat": 0.92, "deep fat": 0.80, "skin": 0.30, "fascia": 0.08, "muscle": 0.17, "marrow": 0.44, "cortex": 0.04,
        "ligament": 0.13, "nerve": 0.30, "joint fluid": 0.75, "dura": 0.12, "csf": 1.05, "rootlet": 0.30,
        "nucleus": 0.66, "annulus": 0.20, "dehydrated nucleus": 0.19, "vessel": 0.04, "vessel wall": 0.20,
        "bowel": 0.42, "air": 0.02, "cord": 0.44, "vein": 0.70, "urine": 1.00,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What one examination's scanner and protocol do to every slice; independent of findings."""

    spacing_mm: float  # side of a pixel
    blur_pixels: float  # width of the point spread
    noise: float  # deviation of the noise in each channel, fat near 1
    coil_fall_mm: float  # depth over which the surface coil loses a factor of e
    contrast: float  # exponent on the brightness; above 1 darkens the middle greys
    exposure: float  # grey level of fat at the spine, of 1
    saturation_mm: float  # how far in front of the disc the anterior saturation band ends


def sample_scanner(rng: np.random.Generator) -> Scanner:
    """Draw the scanner of one examination."""
    return Scanner(
        spacing_mm=float(rng.choice((0.9375, 0.96875, 1.0, 1.03125))),
        blur_pixels=rng.uniform(0.3, 0.5),
        noise=rng.uniform(0.010, 0.030),
        coil_fall_mm=rng.uniform(75, 150),
        contrast=rng.uniform(1.0, 1.3),
        exposure=rng.uniform(0.72, 0.90),
        saturation_mm=rng.uniform(12, 28),
    )


def expose(
    image: Field, x: Field, y: Field, disc_front: float, scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """Turn painted tissue (fat near 1) into the 8-bit axial slice that the scanner delivers. Shapes (H, W).

    `x` and `y` are the pixels' coordinates, `disc_front` is y of the anterior disc margin, all in mm.
    """
    size = image.shape[0]
    coil = np.exp(np.clip(y - 10.0, -90.0, 45.0) / scanner.coil_fall_mm) * (1.0 + 0.06 * smooth_noise(rng, size, 60.0))
    coil *= 1.0 - 0.25 * (x / 100.0) ** 2
    # The anterior saturation band hides moving bowel; what is left of it is a dim ghost.
    band = _band(y - disc_front + scanner.saturation_mm)
    return _receive(
        gaussian_filter(image, scanner.blur_pixels) * coil * (0.07 + 0.93 * band), scanner.exposure, scanner, rng
    )


def expose_sagittal(
    image: Field, x: Field, y: Field, front: Field, scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """Turn painted tissue into the 8-bit sagittal slice, as `expose` does; `front` is x of the spine's front, in mm."""
    size = image.shape[0]
    coil = np.exp(np.clip(x, -110.0, 70.0) / scanner.coil_fall_mm) * (1.0 + 0.06 * smooth_noise(rng, size, 70.0))
    coil *= 1.0 - 0.45 * np.clip(np.abs(y + 10.0) / 190.0, 0.0, 1.3) ** 3  # the coil's ends
    ghost = rng.uniform(0.05, 0.9)  # the band is placed by hand, and often left out
    band = _band(x - front + scanner.saturation_mm)
    signal = gaussian_filter(image, scanner.blur_pixels) * coil * (ghost + (1.0 - ghost) * band)
    return _receive(signal, scanner.exposure * rng.uniform(1.0, 1.45), scanner, rng)


def _band(behind: Field) -> Field:
    return 1.0 / (1.0 + np.exp(np.clip(-behind / 2.5, -30, 30)))


def _receive(signal: Field, exposure: float, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    noise = scanner.noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(signal + noise[0], noise[1])  # Rician: the magnitude of a complex signal
    grey = exposure * np.clip(magnitude, 0.0, 2.0) ** scanner.contrast
    return np.clip(255.0 * grey + 0.5, 0, 255).astype(np.uint8)
