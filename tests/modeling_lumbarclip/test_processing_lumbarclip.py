"""The processor pads, cuts, and carries its prompts."""

import pytest

from modeling_lumbarclip import LumbarCLIPProcessor


def test_texts_are_padded_to_the_longest_and_cut(tiny_processor):
    batch = tiny_processor(text=["disc", "no disc bulge ."], return_tensors="pt")
    assert batch.input_ids.shape == (2, 6)
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 6]
    assert tiny_processor(text=["disc " * 100], return_tensors="pt").input_ids.shape == (1, 32)


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
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_processor, options, message):
    with pytest.raises(ValueError, match=message):
        LumbarCLIPProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, **options)
