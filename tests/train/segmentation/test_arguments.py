"""Settings that contradict each other are told before anything is loaded."""

import pytest

from train.segmentation.arguments import FinetuneSegmentationArguments


def arguments(**more):
    return FinetuneSegmentationArguments(dataset="drawn", output_dir="run", **more)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"contrast_inversion": 1.5}, r"a share of the images, in \[0, 1\]; got 1.5"),
        ({"contrast_inversion": 0.5, "augment": False}, "augment is off"),
        ({"prompts": {"disc": "a disc"}, "cross_attention": "none"}, "which cross_attention patch reads|it is none"),
        ({"freeze_tower": True, "lora_rank": 4}, "leave out lora_rank and layer_decay"),
        ({"freeze_tower": True, "pretrained": False}, "freeze_tower would leave a random vision tower random"),
        ({"lora_rank": 4, "pretrained": False}, "lora_rank 4 would leave a random vision tower random"),
        ({"patch_size": -1}, "patch_size must be at least 0; got -1"),
        ({"decoder_widths": [16, 0]}, r"at least 1 each; got \[16, 0\]"),
        ({"loss": "dce"}, "loss must be"),
        ({"loss": "dice", "false_negative_weight": 0.7}, "dice does not use false_negative_weight"),
        ({"loss": "pid_tversky", "pid_gains": [1.0]}, "pid_gains must be three numbers"),
        ({"vision": "packaged:no_such_tower"}, "no_such_tower"),
    ],
)
def test_contradictions(settings, said):
    with pytest.raises(ValueError, match=said):
        arguments(**settings)


def test_a_text_tower_that_is_not_used_is_not_loaded():
    assert arguments().is_pretrained("text") and arguments(checkpoint="demo", pretrained=False).is_pretrained("text")
    assert not arguments(cross_attention="none").is_pretrained("text")
    assert arguments(cross_attention="none").is_pretrained("vision")


def test_a_checkpoint_replaces_the_towers_of_the_settings():
    arguments(checkpoint="demo", vision="packaged:no_such_tower", lora_rank=4, pretrained=False)
