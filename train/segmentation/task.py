"""Segmentation as a task of the training loop."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import reduce
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedModel

from data_scripts.system.command_line import JsonMapping
from modeling_lumbarclip import (
    LumbarCLIPConfig,
    LumbarCLIPForSemanticSegmentation,
    LumbarCLIPImageProcessor,
    LumbarCLIPProcessor,
)
from train.checkpoints.loading import find_checkpoint, load_parts, load_processor, read_config
from train.data.batch_sampler import EpochBatches
from train.data.provenance import DataFacts
from train.evaluation.checkpoint_scope import fit_scope
from train.evaluation.features import features_of_rows
from train.evaluation.statistics.metrics import Array
from train.objectives.segmentation import SegmentationLoss, SegmentationLossSettings
from train.reporting.run_report import START_IN_WORDS
from train.segmentation.arguments import FinetuneSegmentationArguments
from train.segmentation.data import MaskedImages, SegmentationData, read_data
from train.segmentation.variation import IGNORED, Variation
from train.training.adapters import add_adapters
from train.training.initial_towers import from_towers
from train.training.run_folder import describe_start
from train.training.task import Task

logger = logging.getLogger(__name__)

IMAGE_SIZE = 224  # of towers, without --image_size
UNUSED_TEXT_TOWER = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
Processor = LumbarCLIPProcessor | LumbarCLIPImageProcessor


class SegmenterAndLoss(nn.Module):
    """The model, and the loss with what it adapts from epoch to epoch, which a state of the run keeps."""

    def __init__(self, model: nn.Module, loss: SegmentationLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits of images (B, 3, S, S). Shape (B, K, S, S), float32."""
        return self.model(pixel_values=pixel_values).logits.float()


class SegmentationTask(Task):
    """Train a vision tower, a decoder and, with prompts, a text tower on masks."""

    verb: ClassVar[str] = "segmentation"
    args: FinetuneSegmentationArguments
    processor: Processor

    def __init__(self, args: FinetuneSegmentationArguments, dataset: DatasetDict, facts: DataFacts) -> None:
        super().__init__(args)
        self.start = describe_start(args.checkpoint, facts.rows_sha256) if args.checkpoint else None
        if self.start and (warning := START_IN_WORDS.get(self.start["rows"])):
            logger.warning("%s: %s The metrics may be too good.", args.checkpoint, warning)
        self.data, self.facts = read_data(dataset, args), facts
        self._of_epoch: dict[str, float] = {}

    def new_model(self) -> PreTrainedModel:
        """Build the model to train, on the CPU, and set `processor`."""
        model, self.processor = build_segmenter(self.args, self.data)
        return model

    def build_model(self) -> nn.Module:
        args = self.args
        model = self.model = self.new_model()
        self.frozen: list[Any] = []
        if args.freeze_tower:
            self.frozen.append(model.vision_model)
        if hasattr(model, "text_model") and args.is_pretrained("text"):
            self.frozen.append(model.text_model)  # or it would forget all texts but these few
        for tower in self.frozen:
            tower.requires_grad_(False)
        variation = Variation(args.augment, args.contrast_inversion, args.patch_size)
        show = PartialState().is_main_process
        images = _images_of(self.processor)
        if args.patch_size > images.size["height"]:
            raise ValueError(
                f"patch_size is {args.patch_size}, and images have {images.size['height']} pixels a side: set a larger "
                "--image_size, or patch_size 0 for whole images."
            )
        self.train_rows = MaskedImages(self.data, "train", images, args.seed, variation, show)
        self.validation_rows = MaskedImages(self.data, "validation", images, args.seed, None, show)
        model = add_adapters(model, args.lora_rank, ["vision_model"]) if args.lora_rank else model
        self.adaptive_loss = build_loss(args, self.data)  # that of training, not of an average of the weights
        return SegmenterAndLoss(model, self.adaptive_loss)

    def batches(self, process_index: int, num_processes: int) -> tuple[MaskedImages, EpochBatches]:
        args = self.args
        self.order = EpochBatches(len(self.train_rows), args.batch_size, args.seed, process_index, num_processes)
        return self.train_rows, self.order

    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        for tower in self.frozen:
            tower.eval()  # keeps batch statistics; no dropout
        logits = annotated_logits(prepared(pixel_values=batch["pixel_values"]), batch["annotated"])
        return self.adaptive_loss(logits, batch["labels"]), {}

    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        self._of_epoch = self.adaptive_loss.end_epoch()
        batches = _batches(self.validation_rows, self.args.batch_size, accelerator)
        counts = count_pixels(cast(SegmenterAndLoss, trained), batches, len(self.data.class_names))
        dice = pooled_dice(cast(Tensor, reduce(counts.to(accelerator.device), "sum")).cpu())
        names = self.data.class_names[1:]
        known = [(name, value) for name, value in zip(names, dice.tolist(), strict=True) if value == value]
        self._of_epoch |= {f"validation_dice/{name}": value for name, value in known}
        return 1 - sum(value for _, value in known) / len(known)

    def validation_statistics(self) -> dict[str, float]:
        return self._of_epoch

    def model_in(self, trained: nn.Module) -> PreTrainedModel:
        return cast(PreTrainedModel, cast(SegmenterAndLoss, trained).model)

    def load(self, checkpoint: Path) -> PreTrainedModel:
        model, self.processor = load_parts(
            checkpoint, LumbarCLIPForSemanticSegmentation, _processor_class(self.args.cross_attention)
        )
        return model

    def calibrate(self, model: PreTrainedModel) -> None:
        if not hasattr(model, "set_scope"):
            return

        def encode(split: str, rows: Dataset) -> Array:
            return features_of_rows(model, rows, _images_of(self.processor), self.args.batch_size)

        fit_scope(model, self.data.rows, self.facts.description["anatomy"], encode)


def build_loss(args: FinetuneSegmentationArguments, data: SegmentationData) -> SegmentationLoss:
    """Build the loss that the settings name."""
    return SegmentationLoss(args.loss, data.class_names, SegmentationLossSettings(**args.loss_settings()))


def build_segmenter(
    args: FinetuneSegmentationArguments, data: SegmentationData
) -> tuple[LumbarCLIPForSemanticSegmentation, Processor]:
    """Build a model for the classes, with a new decoder, and its processor: from a checkpoint, or from towers.

    Raises:
        ValueError: If there is no such checkpoint or tower, or a prompt is of no class.
    """
    names = dict(enumerate(data.class_names))
    fields: dict[str, Any] = {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "cross_attention": args.cross_attention,
    }
    if args.decoder_widths:
        fields["decoder_widths"] = list(args.decoder_widths)
    if args.checkpoint:
        model, processor = _from_checkpoint(args, data, fields)
    else:
        model, processor = _from_towers(args, data, fields)
    if args.image_size:
        images = _images_of(processor)
        images.size = {"height": args.image_size, "width": args.image_size}
    return model, processor


def _from_checkpoint(
    args: FinetuneSegmentationArguments, data: SegmentationData, fields: dict[str, Any]
) -> tuple[LumbarCLIPForSemanticSegmentation, Processor]:
    folder = find_checkpoint(args.checkpoint)
    config = read_config(folder)
    if config.is_classifier or config.is_segmenter:
        kind = "classifier" if config.is_classifier else "segmenter"
        raise ValueError(f"{args.checkpoint} is a {kind}; start from the pretrained checkpoint it came from.")
    if args.cross_attention == "patch":
        fields |= _prompts(load_processor(folder, LumbarCLIPProcessor), args, data)
    model, processor = load_parts(
        folder,
        LumbarCLIPForSemanticSegmentation,
        _processor_class(args.cross_attention),
        new="decoder.",
        dtype=torch.float32,  # half precision would round away most of an update
        calibration=None,
        scope=None,
        **fields,
    )
    model.name_or_path = model.config.name_or_path = args.checkpoint  # by which adapters name their base
    return model, processor


def _from_towers(
    args: FinetuneSegmentationArguments, data: SegmentationData, fields: dict[str, Any]
) -> tuple[LumbarCLIPForSemanticSegmentation, Processor]:
    texts = [*data.class_names[1:], *args.prompts.values(), "The ."]  # the words of `_prompts`

    def words() -> Iterator[str]:
        yield from texts
        yield from data.rows["train"]["report"]

    towers = replace(args, image_size=args.image_size or IMAGE_SIZE)
    if args.cross_attention == "none":
        towers.text_config = JsonMapping(UNUSED_TEXT_TOWER)
    full_processor, joined = from_towers(towers, words)
    if args.cross_attention == "patch":
        fields |= _prompts(full_processor, args, data)
    config = LumbarCLIPConfig.from_dict({**joined.config.to_dict(), **fields})
    given = {"vision_model": joined.vision_model}
    if args.cross_attention == "patch":
        given["text_model"] = joined.text_model
    model = LumbarCLIPForSemanticSegmentation(config, **given)
    return model, full_processor if args.cross_attention == "patch" else full_processor.image_processor


def _prompts(
    processor: LumbarCLIPProcessor, args: FinetuneSegmentationArguments, data: SegmentationData
) -> dict[str, Any]:
    try:
        return processor.segmentation_prompts(data.class_names[1:], texts=args.prompts)
    except ValueError as error:
        raise ValueError(f"prompts: {error}") from error


def _images_of(processor: Any) -> LumbarCLIPImageProcessor:
    return cast(LumbarCLIPImageProcessor, getattr(processor, "image_processor", processor))


def _processor_class(cross_attention: str) -> Any:
    return LumbarCLIPProcessor if cross_attention == "patch" else LumbarCLIPImageProcessor


def annotated_logits(logits: Tensor, annotated: Tensor) -> Tensor:
    """Take the classes that a row's mask does not mark out of its softmax: they are neither present nor absent there.

    With prompts, this asks only those of the annotated classes, since the map of a prompt depends on no other.

    Args:
        logits: Shape (B, K, S, S).
        annotated: Shape (B, K), bool.

    Returns:
        Shape (B, K, S, S), minus infinity where a class is not annotated.

    Example:
        >>> annotated_logits(torch.zeros(1, 3, 1, 1), torch.tensor([[True, False, True]])).softmax(1).flatten().tolist()
        [0.5, 0.0, 0.5]
    """
    return logits.masked_fill(~annotated[:, :, None, None], float("-inf"))


@torch.inference_mode()
def count_pixels(model: SegmenterAndLoss, batches: Iterator[dict[str, Tensor]], num_classes: int) -> Tensor:
    """Count true positives, and predicted and true pixels, of the classes but the background. Shape (3, K - 1), int64.

    The prediction is the likeliest of the classes that a row's mask marks. Leaves the model in evaluation mode.
    """
    model.eval()
    device = next(model.parameters()).device
    counts = torch.zeros(3, num_classes, dtype=torch.int64)
    for batch in batches:
        logits = annotated_logits(model(batch["pixel_values"].to(device)).cpu(), batch["annotated"])
        counted = batch["labels"] != IGNORED
        predicted, truth = logits.argmax(1)[counted], batch["labels"][counted]
        for place, values in enumerate((truth[predicted == truth], predicted, truth)):
            counts[place] += torch.bincount(values, minlength=num_classes)
    return counts[:, 1:]


def pooled_dice(counts: Tensor) -> Tensor:
    """Compute Dice from `count_pixels`; NaN for a class that no mask shows. Shape (K - 1,), float64.

    Example:
        >>> pooled_dice(torch.tensor([[2, 0], [3, 1], [5, 0]]))
        tensor([0.5000,    nan], dtype=torch.float64)
    """
    both, predicted, truth = counts.double()
    return torch.where(truth > 0, 2 * both / (predicted + truth), torch.nan)


def _batches(images: MaskedImages, batch_size: int, accelerator: Accelerator) -> Iterator[dict[str, Tensor]]:
    """Yield this process's share of the rows, as stored."""
    own = range(accelerator.process_index, len(images), accelerator.num_processes)
    for start in range(0, len(own), batch_size):
        yield images.__getitems__([(0, row) for row in own[start : start + batch_size]])
