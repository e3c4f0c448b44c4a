import numpy as np
import pytest

from data_scripts.preprocessing.denoising import denoised


def test_noise_goes_and_edges_stay():
    clean = np.where(np.arange(48) < 24, 60, 180) * np.ones((48, 1))
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    grey = 255 * denoised(noisy)
    assert np.abs(grey - clean).mean() < 0.4 * np.abs(noisy - clean).mean()
    assert (grey[:, 25] - grey[:, 22]).min() > 80


@pytest.mark.parametrize("pixels", [np.zeros((32, 32), np.uint8), np.full((1, 5), 7, np.uint8)])
def test_without_noise_nothing_changes(pixels):
    assert np.allclose(255 * denoised(pixels), pixels)
