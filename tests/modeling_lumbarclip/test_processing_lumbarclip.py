"""The processor pads, cuts, and carries its prompts."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPProcessor


def test_texts_are_padded_to_the_longest_and_cut(tiny_processor):
    batch = tiny_processor(text=["disc", "no disc bulge ."], return_tensors="pt")
    assert batch.input_ids.shape == (2, 6)
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 6]
    assert tiny_processor(text=["disc " * 100], return_tensors="pt").input_ids.shape == (1, 32)


def test_files_are_opened_beside_texts(tiny_processor, tmp_path):
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    deep.save(tmp_path / "deep.tif")
    deep.convert("L").save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("L", (30, 20))])
    given = tiny_processor(images=str(tmp_path / "deep.tif"), text="disc", return_tensors="pt")
    torch.testing.assert_close(given.pixel_values, tiny_processor(images=deep, return_tensors="pt").pixel_values)
    with pytest.raises(ValueError, match="has 2 frames"):
        tiny_processor(images=str(tmp_path / "moving.gif"), text="disc")


@pytest.mark.parametrize("nothing", [{"images": []}, {"text": []}, {"images": [], "text": ["disc"]}])
def test_empty_lists_are_refused(tiny_processor, nothing):
    with pytest.raises(ValueError, match="is empty"):
        tiny_processor(**nothing, return_tensors="pt")


def test_prompts_travel_with_the_saved_processor(tiny_processor, tmp_path):
    processor = LumbarCLIPProcessor(
        tiny_processor.image_processor,
        tiny_processor.tokenizer,
        max_length=20,
        prompt_templates=["Signs of {}."],
        class_prompts={"LBP": ["There is a disc bulge.", "Stenosis."]},
        absent_class_prompts={"LBP": ["Normal."]},
    )
    processor.save_pretrained(tmp_path)
    loaded = LumbarCLIPProcessor.from_pretrained(tmp_path)
    assert loaded.max_length == 20
    assert loaded.class_prompt_texts("LBP") == ["There is a disc bulge.", "Stenosis."]
    assert loaded.absent_class_prompt_texts("LBP") == ["Normal."]
    assert loaded.class_prompt_texts("disc bulging") == ["Signs of disc bulging."]
    assert loaded.absent_class_prompt_texts("Modic change")[0] == "No Modic change."


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt_templates": ["There is a disc."]}, "got 'There is a disc.'"),
        ({"max_length": 2}, "got 2"),
        ({"class_prompts": {"LBP": "A bulge."}}, "class 'LBP' must be a list of sentences; got 'A bulge.'"),
        ({"absent_class_prompts": {"LBP": ["Normal.", 5]}}, "class 'LBP' must be a list"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_processor, options, message):
    with pytest.raises(ValueError, match=message):
        LumbarCLIPProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, **options)
