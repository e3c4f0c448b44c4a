"""A plain U-Net as wide as has about the parameters of ours: the same data, variation, loss, loop and budget."""

import math
from pathlib import Path
from typing import Any, ClassVar, cast

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from data_scripts.system.whole_files import read_json, write_folder, write_json
from train.checkpoints.checkpoint import save_processor
from train.segmentation.task import SegmentationTask
from train.training.optimization import build_optimizer
from train.training.run_folder import RUN

SCALES = (1, 2, 4, 8, 16)  # channels of the five scales, in widths
STRIDE = 16  # sides are padded to multiples of it
RESIDUAL_UNITS = 2
FIRST_GUESS = 16
WEIGHTS, ABOUT = "unet.safetensors", "unet.json"
NO_MONAI = "system unet needs MONAI: pip install -e '.[segmentation]'"


class UNet(nn.Module):
    """MONAI's U-Net with residual units and instance normalisation; its output is that of our model.

    Args:
        num_classes: K, background included.
        width: Channels of the finest scale.

    Raises:
        ValueError: If MONAI is not installed.
    """

    main_input_name: ClassVar[str] = "pixel_values"  # as models of transformers say

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        try:
            from monai.networks.nets import UNet as MonaiUNet
        except ImportError as error:
            raise ValueError(NO_MONAI) from error
        channels = [scale * width for scale in SCALES]
        strides = [2] * (len(SCALES) - 1)
        self.num_classes, self.width = num_classes, width
        self.unet = MonaiUNet(2, 3, num_classes, channels, strides, num_res_units=RESIDUAL_UNITS)

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        """Segment images (B, 3, H, W); `logits` have the shape (B, K, H, W)."""
        height, width = pixel_values.shape[-2:]
        padded = F.pad(pixel_values, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return SemanticSegmenterOutput(logits=self.unet(padded)[..., :height, :width])


def unet_of_size(num_classes: int, num_parameters: int) -> UNet:
    """Build the U-Net whose number of parameters is nearest to another model's; it grows with the width's square."""
    guess = FIRST_GUESS * math.sqrt(num_parameters / count_parameters(UNet(num_classes, FIRST_GUESS)))
    widths = {max(1, math.floor(guess)), max(1, math.ceil(guess))}
    return min(
        (UNet(num_classes, width) for width in sorted(widths)),
        key=lambda model: abs(count_parameters(model) - num_parameters),
    )


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model, without those of a text tower."""
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith("text_model."))


class UNetTask(SegmentationTask):
    """Train a U-Net instead of the model that the settings describe."""

    def new_model(self) -> PreTrainedModel:
        """Build the model of the settings for its processor and size, and a U-Net of that size."""
        if self.args.lora_rank or self.args.freeze_tower:
            raise ValueError("A U-Net has no tower to freeze or adapt: leave out lora_rank and freeze_tower.")
        ours = super().new_model()
        return cast(Any, unet_of_size(len(self.data.class_names), count_parameters(ours)))

    def build_optimizer(self, trained: nn.Module) -> Optimizer:
        """Build the optimizer without `layer_decay`, which a U-Net has no tower for."""
        return build_optimizer(trained, self.args.learning_rate, self.args.weight_decay)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save weights, width and processor: a U-Net is no LumbarCLIP checkpoint."""
        unet = cast(UNet, model)

        def fill(unfinished: Path) -> None:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in unet.state_dict().items()},
                unfinished / WEIGHTS,
            )
            save_processor(self.processor, unfinished)
            write_json(unfinished / ABOUT, {"num_classes": unet.num_classes, "width": unet.width})

        write_folder(folder, fill)

    def load(self, checkpoint: Path) -> PreTrainedModel:
        """Load what `save` wrote."""
        about = read_json(
            checkpoint / ABOUT, f"Delete {checkpoint.parent / RUN} to train again.", ("num_classes", "width")
        )
        super().new_model()  # sets the processor
        model = UNet(about["num_classes"], about["width"])
        model.load_state_dict(load_file(checkpoint / WEIGHTS))
        return cast(Any, model)
