import numpy as np
import torch
from datasets import load_dataset

from train.evaluation.baselines import constant_features, pca_features, pixel_features, untrained_model


def test_pixel_controls_have_a_row_for_each_image(tiny_dataset_folder):
    splits = dict(load_dataset(str(tiny_dataset_folder)))
    controls = pixel_features(splits)
    assert set(controls) == {"pixel_pca", "hog", "no_pixels"}
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
