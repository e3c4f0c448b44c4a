"""Pretraining as a task of the training loop: the contrast of images and reports."""

import logging
from pathlib import Path
from typing import ClassVar, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import send_to_device
from datasets import DatasetDict
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.data.batch_sampler import EpochBatches
from train.data.loaders import PairedRows, plan_batches, text_and_patient_ids
from train.data.provenance import DataFacts
from train.evaluation.checkpoint_calibration import check_can_be_calibrated
from train.objectives import ModelWithObjective, build_objective
from train.objectives.objective import keep_local
from train.pretraining.arguments import PretrainArguments
from train.pretraining.batch_statistics import BatchStatistics
from train.pretraining.data import build_rows, check_labels_differ
from train.pretraining.initial_model import build_model
from train.training.run_folder import describe_start
from train.training.task import Task

logger = logging.getLogger(__name__)


class PretrainingTask(Task):
    """Train both towers on the pairs of a data set.

    Args:
        args: Settings of the run.
        dataset: Splits `train` and `validation`.
        facts: Of the data set.
    """

    verb: ClassVar[str] = "pretraining"
    args: PretrainArguments
    processor: LumbarCLIPProcessor

    def __init__(self, args: PretrainArguments, dataset: DatasetDict, facts: DataFacts) -> None:
        super().__init__(args)
        self.dataset = dataset
        self.start = describe_start(args.init_checkpoint, facts.rows_sha256) if args.init_checkpoint else None

    def build_model(self) -> ModelWithObjective:
        """See `Task.build_model`."""
        args = self.args
        self.processor, self.model = build_model(args, self.dataset["train"])
        self.model.config.calibration = None  # of the weights it started from, not of those it will have
        # Convolutions are a quarter faster so.
        torch.nn.Module.to(self.model.vision_model, memory_format=torch.channels_last)
        show = PartialState().is_main_process
        self.train_rows, self.validation_rows = build_rows(args, self.dataset, self.processor, show)
        check_labels_differ(self.train_rows.labels)
        objective = build_objective(
            args.objective,
            self.model,
            self.train_rows.labels,
            alpha=args.alpha,
            label_temperature=args.label_temperature,
        )
        compared = None if self.train_rows.labels is None else objective.target_vectors(self.train_rows.labels)
        self.objective, self.inverse_temperature = objective, 0.0
        self.batch_statistics = BatchStatistics(
            *text_and_patient_ids(self.dataset["train"]), compared, objective.has_label_temperature
        )
        return ModelWithObjective(self.model, objective)

    def batches(self, process_index: int, num_processes: int) -> tuple[PairedRows, EpochBatches]:
        """See `Task.batches`."""
        args = self.args
        share = process_index, num_processes
        return self.train_rows, plan_batches(self.dataset["train"], args.balance, args.batch_size, args.seed, *share)

    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """See `Task.loss`."""
        labels = batch.pop("labels", None)
        loss, inverse_temperature = prepared(batch, labels)
        self.inverse_temperature = inverse_temperature.item()
        return loss

    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        """See `Task.validate`."""
        trained = cast(ModelWithObjective, trained)
        return validation_loss(trained, self.validation_rows, self.args.batch_size, accelerator)

    def model_in(self, trained: nn.Module) -> LumbarCLIPModel:
        """See `Task.model_in`."""
        return cast(ModelWithObjective, trained).model

    def load(self, checkpoint: Path) -> LumbarCLIPModel:
        """See `Task.load`."""
        if self.args.evaluate:
            check_can_be_calibrated(checkpoint)  # not after minutes of evaluation
        model, processor = load_checkpoint(checkpoint)
        self.processor = cast(LumbarCLIPProcessor, processor)
        return cast(LumbarCLIPModel, model)

    def seed_of_step(self, update: int, micro_step: int) -> tuple[int, int]:
        """See `Task.seed_of_step`."""
        return update, micro_step

    def observe(self, rows: Tensor, loss: float) -> None:
        """See `Task.observe`."""
        self.batch_statistics.add(rows, self.objective.target_temperature(self.inverse_temperature))

    def statistics(self) -> dict[str, float]:
        """See `Task.statistics`; warns once of targets that are nearly flat or nearly hard."""
        warning = self.batch_statistics.target_warning()
        if warning and PartialState().is_main_process:
            logger.warning(warning)
        return {"inverse_temperature": self.model.inverse_temperature.item(), **self.batch_statistics.take()}


@torch.no_grad()
def validation_loss(trained: ModelWithObjective, rows: PairedRows, batch_size: int, accelerator: Accelerator) -> float:
    """Compute the objective on the reports of the validation pairs, the same on every process.

    All pairs make one batch, so that the loss depends neither on the batch size nor on the processes. An objective that
    compares patches with tokens cannot hold all pairs of a large split at once: its loss is the mean over batches of as
    many pairs as a step of the run has, in the order of the split, weighted by their pairs.

    Args:
        trained: Model and objective; both are left in evaluation mode.
        rows: Validation pairs.
        batch_size: Pairs of a step in each process.
        accelerator: Knows device, precision and processes.

    Returns:
        The loss in nats. Losses of different objectives cannot be compared.
    """
    trained.eval()
    objective = trained.objective
    pairs_at_once = batch_size * accelerator.num_processes if "local_features" in objective.inputs else batch_size
    labels = None if rows.labels is None else rows.labels.to(accelerator.device)
    outputs, losses = [], []
    for start in range(0, len(rows), pairs_at_once):
        indices = range(start, min(start + pairs_at_once, len(rows)))
        batch = send_to_device(rows.__getitems__([(0, row) for row in indices]), accelerator.device)
        inputs = {name: value for name, value in batch.items() if name not in ("rows", "labels")}
        with accelerator.autocast():
            outputs.append(trained.encode(inputs))
            if "local_features" in objective.inputs:
                of_batch = None if labels is None else labels[indices.start : indices.stop]
                losses.append(len(indices) * objective(outputs.pop(), of_batch, gather=keep_local))
    if "local_features" in objective.inputs:
        return (torch.stack(losses).sum() / len(rows)).item()
    with accelerator.autocast():  # an objective may have a layer of its own, for features in half precision
        return objective(_join(outputs), labels, gather=keep_local).item()


def _join(outputs: list[LumbarCLIPOutput]) -> LumbarCLIPOutput:
    def joined(name: str) -> Tensor:
        return torch.cat([output[name] for output in outputs])

    return LumbarCLIPOutput(
        image_embeds=joined("image_embeds"),
        text_embeds=joined("text_embeds"),
        image_features=joined("image_features"),
        inverse_temperature=outputs[0].inverse_temperature,
    )
