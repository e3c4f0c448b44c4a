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

BATCH_SIZE, IMAGE_SIZE, NUM_TOKENS, WIDTH, NUM_HEADS = 4, 32, 7, 32, 2
TWO_TOWERS = "There are two towers, not one list of layers"
TIMM_CHECKPOINTING = "Counts the calls of transformers' checkpointed layers, which timm's towers do not have"
TEXT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": NUM_HEADS,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
# By name: the tower, how many hidden states it returns, and the last two dimensions of the first.
TOWERS: dict[str, tuple[dict[str, Any], int, tuple[int, int]]] = {
    "TimmResNet": (
        {
            "model_type": "timm_wrapper",
            "architecture": "resnet10t",
            "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
        },
        5,
        (16, 16),
    ),
    "TimmViT": (
        {
            "model_type": "timm_wrapper",
            "architecture": "vit_tiny_patch16_224",
            "model_args": {"img_size": IMAGE_SIZE, "embed_dim": WIDTH, "depth": 2, "num_heads": 2},
        },
        2,
        (2, 2),
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
        (8, 8),
    ),
    "ViT": (
        {
            "model_type": "vit",
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": NUM_HEADS,
            "intermediate_size": 37,
        },
        3,
        (17, WIDTH),
    ),
    "Swin": (
        {
            "model_type": "swin",
            "image_size": IMAGE_SIZE,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [NUM_HEADS, NUM_HEADS],
            "window_size": 4,
        },
        3,
        (64, 16),
    ),
}


class Tester:
    """A tiny model and its inputs, in the attributes that the common tests read."""

    is_training = True
    batch_size, seq_length, num_hidden_layers = BATCH_SIZE, NUM_TOKENS, 2

    def __init__(self, name: str) -> None:
        self.vision, num_hidden_states, _ = TOWERS[name]
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
    """The same for the classifier, which takes only images and returns what its tower does."""

    num_attention_heads = NUM_HEADS

    def __init__(self, name: str) -> None:
        super().__init__(name)
        _, self.expected_num_hidden_layers, (self.seq_length, self.hidden_size) = TOWERS[name]

    def prepare_config_and_inputs_for_common(self) -> tuple[LumbarCLIPConfig, dict[str, Any]]:
        config = self.get_config()
        config.num_labels = 3
        return config, self.image_inputs()


class Cases(ModelTesterMixin):
    """What holds for both models."""

    _is_composite = True
    test_resize_embeddings = False  # as in SigLIP: the words of the text tower are those of its tokenizer
    test_can_init_all_missing_weights_before_2023 = True  # off by default for files without a year
    model_tester_class: type[Tester]
    tower: str

    def setUp(self) -> None:
        self.model_tester = self.model_tester_class(self.tower)
        # The test reads the width of the last layer from fields that ResNets and Swins do not have.
        self.skip_test_image_features_output_shape = self.tower in ("TimmResNet", "TimmSwin", "Swin")


class ModelCases(Cases):
    """Tests of `LumbarCLIPModel`."""

    all_model_classes = (LumbarCLIPModel,)
    model_tester_class = Tester
    additional_model_inputs = ["pixel_values"]  # noqa: RUF012 - read by transformers

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: Any, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "return_loss": True} if return_labels else inputs

    @unittest.skip(f"{TWO_TOWERS}: test_get_image_features_attentions and test_get_text_features_attentions")
    def test_attention_outputs(self) -> None: ...

    @unittest.skip(f"{TWO_TOWERS}: test_get_image_features_hidden_states and test_get_text_features_hidden_states")
    def test_hidden_states_output(self) -> None: ...

    @unittest.skip(f"{TWO_TOWERS}; run for the classifier")
    def test_retain_grad_hidden_states_attentions(self) -> None: ...


class ClassifierCases(Cases):
    """Tests of `LumbarCLIPForImageClassification`."""

    all_model_classes = (LumbarCLIPForImageClassification,)
    model_tester_class = ClassifierTester

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: Any, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "labels": torch.zeros(BATCH_SIZE, dtype=torch.long)} if return_labels else inputs

    def test_attention_outputs(self) -> None:
        if self.tower == "Swin":
            self.model_tester.seq_length = 16  # patches that attend to each other, those of a window
        super().test_attention_outputs()

    @unittest.skip("A model of images has no embeddings of words")
    def test_model_get_set_embeddings(self) -> None: ...


class TimmCases:
    """What differs with a tower of timm: it returns no attentions, and says so when asked."""

    def test_get_image_features_attentions(self) -> None:
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        model = self.all_model_classes[0](config).eval()
        with self.assertRaisesRegex(ValueError, "returns no attentions"):
            model.get_image_features(**self.model_tester.image_inputs(), output_attentions=True)

    def test_model_outputs_equivalence(self) -> None:
        self.has_attentions = False
        super().test_model_outputs_equivalence()


class TimmModelCases(TimmCases, ModelCases):
    """Tests of `LumbarCLIPModel` with a tower of timm."""

    @unittest.skip("Asks both towers for attentions; timm's have none to return")
    def test_capture_outputs_decorator(self) -> None: ...


class TimmClassifierCases(TimmCases, ClassifierCases):
    """Tests of the classifier with a tower of timm, which checkpoints in its own way."""

    @unittest.skip("timm's towers have no attentions to return")
    def test_attention_outputs(self) -> None: ...

    def test_retain_grad_hidden_states_attentions(self) -> None:
        if self.tower != "TimmResNet":
            self.skipTest("timm's transformers return their hidden states as maps, not the tensors that blocks pass on")
        self.has_attentions = False
        super().test_retain_grad_hidden_states_attentions()

    def test_gradient_checkpointing_enable_disable(self) -> None:
        model = LumbarCLIPForImageClassification(self.model_tester.get_config())
        self.assertFalse(model.is_activation_checkpointing)
        for switch, is_on in (("enable", True), ("disable", False)):
            getattr(model, f"activation_checkpointing_{switch}")()
            self.assertEqual(model.is_activation_checkpointing, is_on)
            switches = {
                name: module.grad_checkpointing
                for name, module in model.named_modules()
                if hasattr(module, "grad_checkpointing")
            }
            self.assertEqual(set(switches.values()), {is_on}, switches)

    @unittest.skip(TIMM_CHECKPOINTING)
    def test_training_gradient_checkpointing(self) -> None: ...

    @unittest.skip(TIMM_CHECKPOINTING)
    def test_training_gradient_checkpointing_use_reentrant_false(self) -> None: ...

    @unittest.skip(TIMM_CHECKPOINTING)
    def test_training_gradient_checkpointing_use_reentrant_true(self) -> None: ...


for tower in TOWERS:
    for cases in (TimmModelCases, TimmClassifierCases) if tower.startswith("Timm") else (ModelCases, ClassifierCases):
        name = f"Test{tower}{cases.__name__.removeprefix('Timm')}"
        globals()[name] = type(name, (cases, unittest.TestCase), {"tower": tower})


class TestConfig(unittest.TestCase):
    """The configuration, of a model with a native ViT."""

    def setUp(self) -> None:
        self.model_tester = Tester("ViT")
        self.config_tester = ConfigTester(self, LumbarCLIPConfig, has_text_modality=False, projection_dim=8)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


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
