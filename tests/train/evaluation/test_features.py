import numpy as np
import pytest
import torch
from datasets import load_dataset

from train.evaluation.features import cache_key, cached, encode_images, encode_texts


@pytest.fixture(scope="module")
def rows(tiny_dataset_folder):
    return load_dataset(str(tiny_dataset_folder))["test"]


def test_images_are_encoded_as_the_model_does_whatever_the_batch(tiny_model, tiny_processor, rows):
    encoded = encode_images(tiny_model, tiny_processor, rows, batch_size=5, description="test")
    pixels = tiny_processor(images=rows["image"][:], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        unprojected = tiny_model.get_image_features(pixels, project=False).pooler_output.numpy()
        projected = tiny_model.get_image_features(pixels).pooler_output.numpy()
    np.testing.assert_allclose(encoded["image_features"], unprojected, atol=1e-5)
    np.testing.assert_allclose(encoded["image_embeds"], projected, atol=1e-5)


def test_features_are_exactly_those_of_the_processors_pixels(tiny_model, tiny_processor, rows):
    encoded = encode_images(tiny_model, tiny_processor, rows, batch_size=4, description="test")
    for start in range(0, len(rows), 4):
        pixels = tiny_processor(images=rows[start : start + 4]["image"], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            expected = tiny_model.get_image_features(pixels, project=False).pooler_output.numpy()
        np.testing.assert_array_equal(encoded["image_features"][start : start + 4], expected)


def test_texts_that_repeat_are_encoded_once_and_come_back_in_order(tiny_model, tiny_processor, monkeypatch):
    texts = ["disc bulge at l4/l5.", "no.", "disc bulge at l4/l5.", "normal disc."]
    encoded_rows = []
    original = tiny_model.get_text_features

    def counting(input_ids, **kwargs):
        encoded_rows.append(len(input_ids))
        return original(input_ids, **kwargs)

    monkeypatch.setattr(tiny_model, "get_text_features", counting)
    embeds = encode_texts(tiny_model, tiny_processor, texts, batch_size=2)
    assert sum(encoded_rows) == 3
    with torch.inference_mode():
        for text, embed in zip(texts, embeds, strict=True):
            alone = original(**tiny_processor(text=[text], return_tensors="pt")).pooler_output.numpy()[0]
            np.testing.assert_allclose(embed, alone, atol=1e-5)


def test_training_mode_is_restored_and_does_not_matter(tiny_model, tiny_processor, rows):
    calm = encode_images(tiny_model, tiny_processor, rows, batch_size=8, description="test")
    tiny_model.train()
    again = encode_images(tiny_model, tiny_processor, rows, batch_size=8, description="test")
    assert tiny_model.training
    np.testing.assert_array_equal(calm["image_embeds"], again["image_embeds"])


def test_cache_is_read_and_a_damaged_one_is_made_again(tmp_path, caplog):
    path = tmp_path / "features" / "test.safetensors"
    made = []

    def make():
        made.append(1)
        return {"image_features": np.arange(6, dtype=np.float32).reshape(2, 3).T}  # not contiguous

    first, second = cached(path, make), cached(path, make)
    assert len(made) == 1
    np.testing.assert_array_equal(first["image_features"], second["image_features"])
    path.write_bytes(path.read_bytes()[:-5])
    third = cached(path, make)
    assert len(made) == 2
    assert "Cannot read the cached features" in caplog.text
    np.testing.assert_array_equal(third["image_features"], cached(path, make)["image_features"])
    assert [file.name for file in path.parent.iterdir()] == ["test.safetensors"]


def test_cache_key_follows_weights_rows_split_and_processor(tiny_model, tiny_processor, rows):
    key = cache_key(tiny_model, tiny_processor, rows, "test")
    assert key == cache_key(tiny_model, tiny_processor, rows, "test")
    others = [
        cache_key(tiny_model, tiny_processor, rows, "validation"),
        cache_key(tiny_model, tiny_processor, rows.select(range(3)), "test"),
    ]
    tiny_processor.image_processor.size = {"height": 16, "width": 16}
    others.append(cache_key(tiny_model, tiny_processor, rows, "test"))
    with torch.no_grad():
        next(tiny_model.vision_model.parameters()).view(-1)[0] += 1e-3
    others.append(cache_key(tiny_model, tiny_processor, rows, "test"))
    assert len({key, *others}) == 5
