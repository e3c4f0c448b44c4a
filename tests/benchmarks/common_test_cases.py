"""What transformers' common tests need to know of LumbarCLIP; `common_tests.py` runs them.

The tests come from transformers' source distribution, as the package `transformers_tests`. For each tower there is a
class of tests of `LumbarCLIPModel` and one of `LumbarCLIPForImageClassification`; then one each of the image processor
and the processor. A test is skipped only where it cannot apply, with the reason.
"""

import unittest
from types import SimpleNamespace
from typing import Any

import torch
from transformers import BertTokenizer
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from transformers_tests.test_processing_common import ProcessorTesterMixin

from modeling_lumbarclip import (
    LumbarCLIPConfig,
    LumbarCLIPForImageClassification,
    LumbarCLIPImageProcessor,
    LumbarCLIPModel,
    LumbarCLIPProcessor,
)

BATCH_SIZE, IMAGE_SIZE, NUM_TOKENS, WIDTH = 4, 32, 7, 32
TEXT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
# By name: the tower, how many hidden states it returns, and the first one's last two dimensions.
TOWERS: dict[str, tuple[dict[str, Any], int, list[int]]] = {
    "TimmResNet": (
        {
            "model_type": "timm_wrapper",
            "architecture": "resnet10t",
            "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
        },
        5,
        [16, 16],
    ),
    "TimmViT": (
        {
            "model_type": "timm_wrapper",
            "architecture": "vit_tiny_patch16_224",
            "model_args": {"img_size": IMAGE_SIZE, "embed_dim": WIDTH, "depth": 2, "num_heads": 2},
        },
        2,
        [2, 2],
    ),
    "TimmSwin": (
        {
            "model_type": "timm_wrapper",
            "architecture": "swin_tiny_patch4_window7_224",
            "model_args": {
                "img_size": IMAGE_SIZE,
                "embed_dim": 16,
                "depths": [1, 1],
                "num_heads": [1, 2],
                "window_size": 4,
            },
        },
        2,
        [8, 8],
    ),
    "ViT": (
        {
            "model_type": "vit",
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 37,
        },
        3,
        [17, WIDTH],
    ),
    "Swin": (
        {
            "model_type": "swin",
            "image_size": IMAGE_SIZE,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        3,
        [64, 16],
    ),
}


class Tester:
    """A tiny model and its inputs, in the attributes that the common tests read."""

    is_training = True
    batch_size, seq_length, num_hidden_layers = BATCH_SIZE, NUM_TOKENS, 2

    def __init__(self, vision: dict[str, Any], num_hidden_states: int) -> None:
        self.vision = vision
        self.vision_config = self.text_config = {"num_hidden_layers": 2}
        self.vision_model_tester = SimpleNamespace(
            expected_num_hidden_layers=num_hidden_states,
            prepare_config_and_inputs_for_common=lambda: (None, self.image_inputs()),
        )
        self.text_model_tester = SimpleNamespace(
            num_hidden_layers=2, prepare_config_and_inputs_for_common=lambda: (None, self.text_inputs())
        )

    def get_config(self) -> LumbarCLIPConfig:
        return LumbarCLIPConfig(vision_config=dict(self.vision), text_config=dict(TEXT), projection_dim=8)

    def image_inputs(self) -> dict[str, torch.Tensor]:
        return {"pixel_values": floats_tensor([BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE])}

    def text_inputs(self) -> dict[str, torch.Tensor]:
        mask = torch.ones(BATCH_SIZE, NUM_TOKENS, dtype=torch.long)
        mask[1:, 5:] = 0
        return {"input_ids": ids_tensor([BATCH_SIZE, NUM_TOKENS], TEXT["vocab_size"]), "attention_mask": mask}

    def prepare_config_and_inputs_for_common(self) -> tuple[LumbarCLIPConfig, dict[str, Any]]:
        return self.get_config(), {**self.text_inputs(), **self.image_inputs()}


class ClassifierTester(Tester):
    """The same for the classifier, which takes only images."""

    def prepare_config_and_inputs_for_common(self) -> tuple[LumbarCLIPConfig, dict[str, Any]]:
        config = self.get_config()
        config.num_labels = 3
        return config, self.image_inputs()


class BothModels(ModelTesterMixin):
    """What holds for both models."""

    _is_composite = True
    test_resize_embeddings = False  # the text tower's embeddings belong to its tokenizer, as in SigLIP and CLIP
    hidden_shape: list[int]

    @property
    def is_timm(self) -> bool:
        return self.model_tester.vision["model_type"] == "timm_wrapper"


class ModelCases(BothModels):
    """Tests of `LumbarCLIPModel`."""

    all_model_classes = (LumbarCLIPModel,)
    additional_model_inputs = ["pixel_values"]  # noqa: RUF012 - read by transformers

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: Any, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "return_loss": True} if return_labels else inputs


class ClassifierCases(BothModels):
    """Tests of `LumbarCLIPForImageClassification`."""

    all_model_classes = (LumbarCLIPForImageClassification,)

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: Any, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "labels": torch.zeros(BATCH_SIZE, dtype=torch.long)} if return_labels else inputs


class ConfigCases:
    """Tests of the configuration, of a model with a native ViT."""

    def setUp(self) -> None:
        self.model_tester = Tester(*TOWERS["ViT"][:2])
        self.config_tester = ConfigTester(self, config_class=LumbarCLIPConfig, has_text_modality=False, projection_dim=8)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


def _cases(name: str, cases: type, tester: type) -> type:
    vision, num_hidden_states, hidden_shape = TOWERS[name]

    def set_up(self: Any) -> None:
        self.model_tester = tester(vision, num_hidden_states)

    return type(f"{name}{cases.__name__}", (cases, unittest.TestCase), {"setUp": set_up, "hidden_shape": hidden_shape})


for tower in TOWERS:
    for cases, tester in ((ModelCases, Tester), (ClassifierCases, ClassifierTester)):
        made = _cases(tower, cases, tester)
        globals()[f"Test{made.__name__}"] = made
del made


class TestConfig(ConfigCases, unittest.TestCase):
    pass


class OurImageProcessingTester(ImageProcessingTester):
    """Sizes of the images that the common tests draw."""

    def __init__(self, parent: Any) -> None:
        super().__init__(
            parent,
            batch_size=3,
            max_resolution=80,
            size={"height": 32, "width": 32},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        )

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"torchvision": LumbarCLIPImageProcessor}


class TestImageProcessor(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = OurImageProcessingTester
    test_cast_dtype = True


class TestProcessor(ProcessorTesterMixin, unittest.TestCase):
    processor_class = LumbarCLIPProcessor

    @classmethod
    def _setup_tokenizer(cls) -> BertTokenizer:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lower", "newer", "upper", "older", "longer", "string"]
        return BertTokenizer(vocab={word: index for index, word in enumerate(words)})

    @classmethod
    def _setup_image_processor(cls) -> LumbarCLIPImageProcessor:
        return LumbarCLIPImageProcessor(size={"height": 32, "width": 32})
