"""A drawn sagittal T2 slice: bodies, dark discs, a bright canal, muscle, fat and air."""

import numpy as np

BACKGROUND, VERTEBRA, DISC, CANAL = range(4)


def drawn_spine(size: int = 192, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a slice and its mask, both uint8 of shape (size, 0.8 size)."""
    width = int(0.8 * size)
    grey, mask = np.zeros((size, width)), np.zeros((size, width), np.uint8)
    grey[:, int(0.2 * width) :] = 60  # soft tissue
    grey[:, int(0.92 * width) :] = 0  # air behind
    front, back, behind = int(0.4 * width), int(0.57 * width), int(0.64 * width)
    grey[:, front:back] = 20  # discs and endplates
    mask[:, front:back] = DISC
    step, height = size // 8, int(size / 8 * 0.75)
    for top in range(size // 16, size - height, step):
        grey[top : top + height, front + 2 : back - 2] = 120
        mask[top : top + height, front:back] = VERTEBRA
    mask[: size // 16, front:back] = mask[top + height :, front:back] = BACKGROUND
    grey[:, back + 2 : behind] = 230
    mask[:, back + 2 : behind] = CANAL
    grey[:, behind : behind + 3] = 25
    noise = np.random.default_rng(seed).normal(0, 4, grey.shape)
    return np.clip(grey + noise * (grey > 0), 0, 255).astype(np.uint8), mask
