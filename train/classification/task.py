"""Fine-tuning for classification as a task of the training loop."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_lumbarclip import (
    LumbarCLIPForImageClassification,
    LumbarCLIPForSemanticSegmentation,
    LumbarCLIPImageProcessor,
    LumbarCLIPModel,
    LumbarCLIPProcessor,
)
from modeling_lumbarclip.calibration_lumbarclip import DIGESTS, weights_digests
from modeling_lumbarclip.towers_lumbarclip import pooled_text, run_text_tower
from train.checkpoints.loading import find_checkpoint, load_parts, read_config
from train.classification.arguments import FinetuneClassificationArguments
from train.classification.data import ClassificationData, LabelledImages, read_data
from train.classification.evaluation import predict_logits, predictions_of_runs
from train.data.batch_sampler import EpochBatches
from train.data.provenance import DataFacts
from train.evaluation.checkpoint_scope import fit_scope
from train.evaluation.features import encode_texts, features_of_rows
from train.evaluation.protocols.calibration import fit_calibration, warn_of_reasons
from train.evaluation.protocols.grade_classifiers import grade_texts
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.protocols.zero_shot import prompt_ensemble
from train.evaluation.statistics.metrics import Array
from train.reporting.run_report import START_IN_WORDS
from train.training.adapters import add_adapters
from train.training.run_folder import describe_start
from train.training.task import Task

logger = logging.getLogger(__name__)

KEPT_PARTS = ("vision_model", "text_model", "decoder")  # of the checkpoint; what else the model has is new
LOSSES = {"plain": "paper", "class_balanced": "paper_balanced", "logit_adjusted": "paper_logit_adjusted"}


class ClassificationTask(Task):
    """Train the vision tower of a checkpoint, and a segmenter's decoder, with a new head, to classify images."""

    verb: ClassVar[str] = "fine-tuning"
    args: FinetuneClassificationArguments
    processor: LumbarCLIPImageProcessor

    def __init__(self, args: FinetuneClassificationArguments, dataset: DatasetDict, facts: DataFacts) -> None:
        super().__init__(args)
        self.start = describe_start(args.checkpoint, facts.rows_sha256)
        if warning := START_IN_WORDS.get(self.start["rows"]):
            logger.warning("%s: %s The metrics may be too good.", args.checkpoint, warning)
        self.data, self.facts = read_data(dataset, args.target), facts
        predictions_of_runs(args.compare_with, self.data.targets["test"])  # or raises, before anything is trained

    def build_model(self) -> nn.Module:
        args = self.args
        self.model, self.processor = load_pretrained(args.checkpoint, self.data, args.head)
        parts = {name: part for name, part in self.model.named_children() if name in KEPT_PARTS}
        # A text tower would forget all texts but the few prompts of the masks.
        self.frozen = [part for name, part in parts.items() if args.freeze_tower or name == "text_model"]
        for part in self.frozen:
            part.requires_grad_(False)
        show = PartialState().is_main_process
        self.train_rows, self.validation_rows = (
            LabelledImages(self.data.rows[split], self.data.multi_hot(split), self.processor, args.seed, augment, show)
            for split, augment in (("train", args.augment), ("validation", False))
        )
        self.run_loss = build_loss(args.loss, self.data)
        return add_adapters(self.model, args.lora_rank, ["vision_model"]) if args.lora_rank else self.model

    def batches(self, process_index: int, num_processes: int) -> tuple[LabelledImages, EpochBatches]:
        args = self.args
        self.order = EpochBatches(len(self.train_rows), args.batch_size, args.seed, process_index, num_processes)
        return self.train_rows, self.order

    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        for part in self.frozen:
            part.eval()  # keeps batch statistics; no dropout
        return self.run_loss(prepared(pixel_values=batch["pixel_values"]).logits.float(), batch["labels"]), {}

    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        logits = torch.from_numpy(predict_logits(trained, self.validation_rows, self.args.batch_size)).float()
        # Rows of classes without a training row would only add noise.
        answerable = self.data.answerable("validation")
        return self.run_loss(logits[answerable], self.validation_rows.labels[answerable]).item()

    def model_in(self, trained: nn.Module) -> PreTrainedModel:
        return cast(PreTrainedModel, trained)

    def load(self, checkpoint: Path) -> PreTrainedModel:
        model, self.processor = load_parts(checkpoint, LumbarCLIPForImageClassification, LumbarCLIPImageProcessor)
        return model

    def calibrate(self, model: PreTrainedModel) -> None:
        model.config.class_temperatures = model.config.class_temperatures_fitted_on = None
        logits = predict_logits(model, self.validation_rows, self.args.batch_size)
        calibration = fit_calibration(logits, self.data.targets["validation"])
        warn_of_reasons([calibration])
        fitted = calibration.temperatures.tolist()
        model.config.class_temperatures = fitted * len(self.data.class_names) if self.data.exclusive else fitted
        model.config.class_temperatures_fitted_on = {DIGESTS: weights_digests(model)}

        def encode(split: str, rows: Dataset) -> Array:
            return features_of_rows(model, rows, self.processor, self.args.batch_size)

        fit_scope(model, self.data.rows, self.facts.description["anatomy"], encode)


def load_pretrained(
    checkpoint: str, data: ClassificationData, head: str = "linear"
) -> tuple[LumbarCLIPForImageClassification, LumbarCLIPImageProcessor]:
    """Load the vision tower of a checkpoint, with a new head for the classes, and its image processor.

    Of a segmentation model, the decoder comes along. The head `fusion` gets the embeddings of the classes' texts, as
    the checkpoint's text tower embeds them; a segmentation model has no projection to compare images with them, and
    gets a new one.

    Raises:
        ValueError: If there is no such checkpoint, it is a classifier, a file of it is damaged or may not be read, or
            the head needs a text tower that it does not have.
    """
    folder = find_checkpoint(checkpoint)
    config = read_config(folder)
    if config.is_classifier:
        raise ValueError(f"{checkpoint} is already a classifier; start from the pretrained checkpoint it came from.")
    names = dict(enumerate(data.class_names))
    class_embeds = embed_classes(folder, data) if head == "fusion" else None
    text_width = 0 if class_embeds is None else class_embeds.shape[1]
    new: tuple[str, ...] = ("classifier.", "class_embeds")
    fields: dict[str, Any] = {}
    if config.is_segmenter:
        fields["mask_classes"] = config.num_labels
        new = (*new, "image_projection.", "log_inverse_temperature")
        if class_embeds is not None:
            fields |= {"projection": "linear", "projection_dim": text_width}
    model, processor = load_parts(
        folder,
        LumbarCLIPForImageClassification,
        LumbarCLIPImageProcessor,
        new=new,
        dtype=torch.float32,  # half precision would round away most of an update
        id2label=names,
        label2id={name: index for index, name in names.items()},
        problem_type=data.problem_type,
        class_text_width=text_width,
        calibration=None,
        class_temperatures=None,
        class_temperatures_fitted_on=None,
        scope=None,
        **fields,
    )
    if class_embeds is not None:
        model.set_class_embeds(class_embeds)
    model.name_or_path = model.config.name_or_path = checkpoint  # by which adapters name their base
    return model, processor


def embed_classes(folder: Path, data: ClassificationData) -> Tensor:
    """Embed the texts that state each class, the mean of its wordings at unit length. Shape (K, D).

    Without a projection that contrasted them with images, all texts point in nearly the same direction: those of a
    segmentation model are the pooled outputs of its text tower less their mean over the classes.

    Raises:
        ValueError: If the checkpoint is a segmentation model without a text tower.
    """
    config = read_config(folder)
    if config.is_segmenter and config.cross_attention == "none":
        raise ValueError(
            f"{folder} has no text tower (cross_attention none), and the head fusion reads texts. Use --head linear."
        )
    model_class = LumbarCLIPForSemanticSegmentation if config.is_segmenter else LumbarCLIPModel
    model, processor = load_parts(folder, model_class, LumbarCLIPProcessor, dtype=torch.float32)
    texts = grade_texts(data.class_names, processor.anatomy) if data.is_grade else None
    stated = texts or {name: processor.class_prompt_texts(name) for name in data.class_names}
    if config.is_segmenter:
        pooled = torch.stack([_pooled_texts(model, processor, stated[name]).mean(dim=0) for name in data.class_names])
        return F.normalize(pooled - pooled.mean(dim=0), dim=1)
    embed = partial(encode_texts, model, processor, batch_size=32)
    embeds = [prompt_ensemble(embed(stated[name])) for name in data.class_names]
    return torch.from_numpy(np.stack(embeds)).float()


@torch.inference_mode()
def _pooled_texts(model: PreTrainedModel, processor: LumbarCLIPProcessor, texts: Sequence[str]) -> Tensor:
    """Embed texts with the text tower alone, (U, d_T)."""
    tokens = processor(text=list(texts), return_tensors="pt")
    given = tokens["input_ids"], tokens["attention_mask"]
    outputs = run_text_tower(cast(PreTrainedModel, model.text_model), model.config, {}, *given)
    return pooled_text(cast(Tensor, outputs.last_hidden_state), tokens["attention_mask"], model.config.text_pooling)


def build_loss(name: str, data: ClassificationData) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the loss of logits and labels, both (B, K), from the training rows of each class."""
    loss = PROBE_LOSSES[LOSSES[name]]
    of_task = loss.of_classes if data.exclusive else loss.of_findings
    of_training = data.multi_hot("train")
    counts, num_rows = of_training.sum(0), len(of_training)
    return lambda logits, labels: of_task(logits, labels, counts.to(logits.device), num_rows)
