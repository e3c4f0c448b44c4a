"""Pretraining as a task of the training loop: the contrast of images and reports."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import send_to_device
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.data.batch_sampler import EpochBatches, TrainingSet
from train.data.loaders import PairedRows, plan_batches, text_and_patient_ids
from train.data.provenance import DataFacts
from train.evaluation.checkpoint_calibration import check_can_be_calibrated
from train.evaluation.checkpoint_scope import fit_scope
from train.evaluation.features import encode_images_once
from train.evaluation.statistics.metrics import Array
from train.objectives import OBJECTIVES, ModelWithObjective, build_objective
from train.objectives.objective import keep_local
from train.pretraining.arguments import PretrainArguments
from train.pretraining.batch_statistics import BatchStatistics
from train.pretraining.initial_model import build_model
from train.reporting.evaluation import FEATURES
from train.training.run_folder import describe_start
from train.training.task import Task

logger = logging.getLogger(__name__)


class PretrainingTask(Task):
    """Train both towers on the pairs of a dataset."""

    verb: ClassVar[str] = "pretraining"
    args: PretrainArguments
    processor: LumbarCLIPProcessor
    loss_of_batches: float | None = None  # of the last validation, at the pairs of a step

    def __init__(self, args: PretrainArguments, dataset: DatasetDict, facts: DataFacts) -> None:
        super().__init__(args)
        self.dataset = dataset
        self.start = describe_start(args.init_checkpoint, facts.rows_sha256) if args.init_checkpoint else None
        self.anatomy = facts.description["anatomy"]

    def build_model(self) -> ModelWithObjective:
        args = self.args
        self.processor, self.model = build_model(args, self.dataset["train"], self.anatomy)
        self.model.config.calibration = None  # it belongs to the initial weights, as does the scope
        self.model.set_scope(None)
        # Convolutions are faster this way.
        torch.nn.Module.to(self.model.vision_model, memory_format=torch.channels_last)
        show = PartialState().is_main_process
        self.train_rows, self.validation_rows = build_rows(args, self.dataset, self.processor, show)
        if show and (warning := augmentation_warning(args, self.train_rows)):
            logger.warning(warning)
        labels = self.train_rows.labels
        if show and labels is None and args.target_columns and "labels_if_any" in OBJECTIVES[args.objective].inputs:
            logger.warning(
                "No training pair has a class in target_columns %s: each pair matches only itself. Name columns that "
                "have classes, or build with --labels_from_reports.",
                ", ".join(args.target_columns),
            )
        if labels is not None and len(labels.unique(dim=0)) == 1:
            raise ValueError(
                f"All {len(labels)} training pairs have the same classes, so every report would match every image and "
                "there is nothing to learn. To contrast pairs without classes, set --target_columns none (with "
                "--objective lumbarclip) or --objective clip; or label the data."
            )
        objective = build_objective(
            args.objective, self.model, labels, alpha=args.alpha, label_temperature=args.label_temperature
        )
        self.objective = objective
        self.batch_statistics = BatchStatistics(
            *text_and_patient_ids(self.dataset["train"]),
            None if labels is None else objective.target_vectors(labels),
            "label_temperature" in objective.inputs,
        )
        return ModelWithObjective(self.model, objective)

    def batches(self, process_index: int, num_processes: int) -> tuple[PairedRows, EpochBatches]:
        settings = TrainingSet.of(vars(self.args)), self.args.batch_size, self.args.seed
        return self.train_rows, plan_batches(self.dataset["train"], *settings, process_index, num_processes)

    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        labels = batch.pop("labels", None)
        loss, inverse_temperature = prepared(batch, labels)
        return loss, {"inverse_temperature": inverse_temperature}

    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        trained = cast(ModelWithObjective, trained)
        losses = validation_losses(trained, self.validation_rows, self.args.batch_size, accelerator)
        self.loss_of_batches = losses[1]
        return losses[0]

    def validation_statistics(self) -> dict[str, float]:
        return {} if self.loss_of_batches is None else {"validation_loss_of_batches": self.loss_of_batches}

    def model_in(self, trained: nn.Module) -> LumbarCLIPModel:
        return cast(ModelWithObjective, trained).model

    def calibrate(self, model: PreTrainedModel) -> None:
        args = self.args
        # The evaluation reads the same features.
        cache = Path(args.output_dir) / FEATURES if args.evaluate else None

        def encode(split: str, rows: Dataset) -> Array:
            options: dict[str, Any] = {"batch_size": args.batch_size, "cache_dir": cache}
            of_split = encode_images_once(cast(LumbarCLIPModel, model), self.processor, rows, split, **options)
            return of_split["image_features"]

        fit_scope(model, self.dataset, self.anatomy, encode)

    def load(self, checkpoint: Path) -> LumbarCLIPModel:
        if self.args.evaluate:
            check_can_be_calibrated(checkpoint)  # now, not after minutes of evaluation
        model, self.processor = load_checkpoint(checkpoint)
        return model

    def seed_of_step(self, update: int, micro_step: int) -> tuple[int, int]:
        return update, micro_step

    def observe(self, rows: Tensor, loss: float, **numbers: float) -> None:
        self.batch_statistics.add(rows, self.objective.target_temperature(numbers["inverse_temperature"]))

    def statistics(self) -> dict[str, float]:
        warning = self.batch_statistics.target_warning()
        if warning and PartialState().is_main_process:
            logger.warning(warning)
        return {"inverse_temperature": self.model.inverse_temperature.item(), **self.batch_statistics.take()}


def build_rows(
    args: PretrainArguments, dataset: Mapping[str, Dataset], processor: LumbarCLIPProcessor, show_progress: bool
) -> tuple[PairedRows, PairedRows]:
    """Make the augmented pairs of `train` and the plain ones of `validation`.

    With several texts per pair, those of `validation` have as many. Both have classes if the training split has, so
    that the validation loss is that of the same objective.
    """
    objective_class = OBJECTIVES[args.objective]
    target_columns, count_absences = objective_class.label_settings(list[str](args.target_columns), args.count_absences)
    options: dict[str, Any] = {"count_absences": count_absences, "seed": args.seed, "show_progress": show_progress}
    text_augmentation = args.text_augmentation if args.shows_augmented_texts else "none"
    train_rows = PairedRows(
        dataset["train"],
        processor,
        target_columns,
        **options,
        augment=args.augment,
        text_unit=args.text_unit,
        text_augmentation=text_augmentation,
        texts_per_pair=args.texts_per_pair,
    )
    validation_rows = PairedRows(
        dataset["validation"],
        processor,
        [] if train_rows.labels is None else target_columns,
        **options,
        classes_even_if_none=True,
        text_augmentation=text_augmentation if args.texts_per_pair > 1 else "none",
        texts_per_pair=args.texts_per_pair,
    )
    return train_rows, validation_rows


def augmentation_warning(args: PretrainArguments, rows: PairedRows) -> str | None:
    """Tell that pairs lack the augmented text that 1 - alpha of the loss is about, or its rephrasings; None if not."""
    lacking = len(rows) - rows.num_augmented
    if args.objective != "lumbarclip" or args.alpha == 1:
        return None
    if not lacking and args.text_augmentation == "both" and not rows.num_rephrased:
        return (
            "No training pair has rephrasings, so the augmented texts are only EDA variations of the reports. Make "
            "rephrasings with `python -m data_scripts.paraphrase`, or set --text_augmentation eda if you want none."
        )
    if not lacking:
        return None
    repeats = "so the loss is that of the reports alone" if lacking == len(rows) else "so their report is used twice"
    return (
        f"alpha {args.alpha:g} leaves {1 - args.alpha:g} of the loss to augmented texts, but {lacking} of {len(rows)} "
        f"training pairs have none (text_augmentation {args.text_augmentation}), {repeats}. Make rephrasings with "
        "`python -m data_scripts.paraphrase`, or set --text_augmentation eda, which needs none; --alpha 1 if that is "
        "what you want."
    )


@torch.no_grad()
def validation_losses(
    trained: ModelWithObjective, rows: PairedRows, batch_size: int, accelerator: Accelerator
) -> tuple[float, float | None]:
    """Compute the objective on the validation pairs, the same on every process.

    All pairs make one batch, so that the loss depends neither on the batch size nor on the processes; with several
    augmented texts per pair it is the mean over as many batches, text after text. With an objective that compares
    patches with tokens, a large split does not fit in memory: its loss is the mean over batches the size of a step, in
    the order of the split, weighted by their pairs. Model and objective are left in evaluation mode.

    Returns:
        The loss in nats. Losses of different objectives cannot be compared. Then the same as a training step sees it,
        since a contrastive loss grows with the pairs of a batch: the mean over batches of as many pairs, drawn once
        without replacement; None with fewer pairs. With an objective that compares patches, that is the first loss.
    """
    trained.eval()
    objective = trained.objective
    by_batch = "local_features" in objective.inputs
    pairs_at_once = batch_size * accelerator.num_processes if by_batch else batch_size
    labels = None if rows.labels is None else rows.labels.to(accelerator.device)
    outputs, losses = [], []
    for start in range(0, len(rows), pairs_at_once):
        indices = range(start, min(start + pairs_at_once, len(rows)))
        batch = send_to_device(rows.__getitems__([(0, row) for row in indices]), accelerator.device)
        inputs = {name: value for name, value in batch.items() if name not in ("rows", "labels")}
        with accelerator.autocast():
            outputs.append(trained.encode(inputs))
            if by_batch:
                of_batch = None if labels is None else labels[indices.start : indices.stop]
                losses.append(len(indices) * objective(outputs.pop(), of_batch, gather=keep_local))
    if by_batch:
        loss = (torch.stack(losses).sum() / len(rows)).item()
        return loss, loss if len(rows) >= pairs_at_once else None
    output = _join(outputs)
    pairs_of_step = batch_size * accelerator.num_processes
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).to(output["image_embeds"].device)
    batches = [batch for batch in order.split(pairs_of_step) if len(batch) == pairs_of_step]
    with accelerator.autocast():  # for an objective with a layer of its own on half-precision features
        of_batches = [
            objective(_select(output, batch), None if labels is None else labels[batch], gather=keep_local)
            for batch in batches
        ]
        losses.append(objective(output, labels, gather=keep_local))
        for place in range(1, rows.texts_per_pair if rows.num_augmented else 1):
            output.augmented_text_embeds = _embed_augmented(trained.model, rows, place, batch_size)
            losses.append(objective(output, labels, gather=keep_local))
    return torch.stack(losses).mean().item(), torch.stack(of_batches).mean().item() if of_batches else None


def _embed_augmented(model: LumbarCLIPModel, rows: PairedRows, place: int, batch_size: int) -> Tensor:
    """Embed the augmented text `place` of each pair. Shape (N, D)."""
    embeds = []
    for start in range(0, len(rows), batch_size):
        pairs = range(start, min(start + batch_size, len(rows)))
        texts = rows.augmented_batch([(0, len(rows) * place + row) for row in pairs])
        texts = send_to_device(texts, model.device)
        of_texts = model.get_text_features(
            input_ids=texts["augmented_input_ids"], attention_mask=texts["augmented_attention_mask"]
        )
        embeds.append(of_texts.pooler_output[texts["augmented_text_index"]])
    return torch.cat(embeds)


COMPARED = ("image_embeds", "text_embeds", "image_features", "augmented_text_embeds")  # what objectives compare


def _select(output: LumbarCLIPOutput, pairs: Tensor) -> LumbarCLIPOutput:
    chosen = {name: output[name][pairs] for name in COMPARED if name in output}
    return LumbarCLIPOutput(**chosen, inverse_temperature=output.inverse_temperature)


def _join(outputs: list[LumbarCLIPOutput]) -> LumbarCLIPOutput:
    joined: dict[str, Any] = {
        name: torch.cat([output[name] for output in outputs]) for name in COMPARED if name in outputs[0]
    }
    return LumbarCLIPOutput(**joined, inverse_temperature=outputs[0].inverse_temperature)
