"""Fine-tune the vision tower of a LumbarCLIP checkpoint to classify images.

    accelerate launch train/finetune_classification.py train/configs/finetune_spider.yaml
    accelerate launch train/finetune_classification.py train/configs/finetune_spider.yaml --target grade --resume

Training stops when the loss of the validation patients no longer falls, and keeps the weights where it was lowest. A
temperature is fitted on the same patients; the test patients are only measured. Leaves what `pipeline(
"image-classification", model="OUTPUT_DIR/checkpoint", trust_remote_code=True)` loads, `metrics.json` and `report.md`.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, send_to_device, set_seed
from datasets import DatasetDict
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

from data_scripts.system.command_line import run
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPProcessor
from train.checkpoints.checkpoint import CHECKPOINT, STATES, load_state, save_checkpoint, save_state
from train.checkpoints.manifest import check_not_parent_of_checkpoint
from train.classification.arguments import LOSSES, FinetuneClassificationArguments
from train.classification.data import ClassificationTask, LabelledImages, read_task
from train.classification.evaluation import calibrate, evaluate_classifier, predict_logits
from train.data.batch_sampler import EpochBatches
from train.data.leak_check import check_leaks
from train.data.loaders import open_dataset, rows_sha256
from train.data.provenance import describe_data
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.reporting.report import START_IN_WORDS
from train.training.adapters import ADAPTER, add_adapters, save_and_merge_adapters
from train.training.batch_norm import share_batch_statistics, take_buffers_of_first_process
from train.training.gathering import waiting_process_group
from train.training.history import HISTORY
from train.training.optimization import build_layerwise_optimizer, build_optimizer, build_schedule, check_finite
from train.training.run_folder import check_output, describe_run, describe_start, keep_history, make_output

logger = logging.getLogger(__name__)

# Of logits and labels, both (B, K).
RunLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class BestWeights:
    """The weights of the epoch with the lowest validation loss; saved with the states of a run."""

    def __init__(self) -> None:
        self.epoch, self.loss = 0, float("inf")
        self.weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, loss: float, model: nn.Module) -> None:
        """Take the weights if their loss is the lowest."""
        if loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """What `accelerate` saves."""
        return {"epoch": self.epoch, "loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `accelerate` has saved."""
        self.epoch, self.loss, self.weights = state["epoch"], state["loss"], state["weights"]


def main(args: FinetuneClassificationArguments) -> None:
    """Read data and checkpoint; train, calibrate, save, evaluate."""
    dataset = open_dataset(args.dataset)
    check_leaks(dataset, args.allow_leaks)
    finetune(args, dataset)
    PartialState().destroy_process_group()


def finetune(args: FinetuneClassificationArguments, dataset: DatasetDict) -> LumbarCLIPForImageClassification:
    """Do one run, from its folder to its evaluation.

    Args:
        args: Settings of the run; `args.dataset` only names the data set.
        dataset: Splits `train`, `validation` and `test`.

    Returns:
        The fine-tuned model.

    Raises:
        ValueError: If the output folder holds something else, or there is nothing to learn.
        FloatingPointError: If a loss or a gradient is no number.
    """
    accelerator = Accelerator(project_dir=args.output_dir, kwargs_handlers=[waiting_process_group()])
    output_dir = Path(args.output_dir)
    run = describe_run(args, accelerator, {name: rows_sha256(split) for name, split in dataset.items()})
    run["data"] = describe_data(args.dataset, dataset)
    check_output(output_dir, run, args)
    run["start"] = describe_start(args.checkpoint, run["rows_sha256"])
    if warning := START_IN_WORDS.get(run["start"]["rows"]):
        logger.warning("%s: %s The figures may be too good.", args.checkpoint, warning)
    task = read_task(dataset, args.target)
    if args.resume and (output_dir / CHECKPOINT).exists():
        logger.info("%s holds a finished checkpoint; nothing is left to train.", output_dir)
        model = LumbarCLIPForImageClassification.from_pretrained(output_dir / CHECKPOINT)
        model.to(accelerator.device)
    else:
        model = train(args, accelerator, task, run)
    if accelerator.is_main_process:
        evaluate_classifier(model, task, args, output_dir)
        logger.info("Written: %s", ", ".join(str(path) for path in sorted(output_dir.iterdir())))
    accelerator.wait_for_everyone()
    return model


def train(
    args: FinetuneClassificationArguments, accelerator: Accelerator, task: ClassificationTask, run: dict[str, Any]
) -> LumbarCLIPForImageClassification:
    """Train from the start, or from where the run was interrupted, and save the checkpoint."""
    output_dir, show = Path(args.output_dir), accelerator.is_main_process

    # What is trained, on what, and how it learns.
    set_seed(args.seed)
    model, processor = load_pretrained(args.checkpoint, task)
    image_processor = processor.image_processor
    model.vision_model.requires_grad_(not args.freeze_tower)
    model = share_batch_statistics(model, accelerator)
    trained = add_adapters(model, args.lora_rank) if args.lora_rank else model
    train_rows, validation_rows = (
        LabelledImages(task.rows[split], task.multi_hot(split), image_processor, args.seed, augment, show)
        for split, augment in (("train", args.augment), ("validation", False))
    )
    share = accelerator.process_index, accelerator.num_processes
    batches = EpochBatches(len(train_rows), args.batch_size, args.seed, *share)
    optimizer = choose_optimizer(args, trained)
    schedule = build_schedule(optimizer, args.epochs * len(batches), args.warmup_ratio)
    loss = build_loss(args.loss, task)
    make_output(output_dir, run, args, accelerator)
    prepared, optimizer = accelerator.prepare(trained, optimizer)
    best = BestWeights()
    accelerator.register_for_checkpointing(schedule, best)  # the schedule is not prepared: it would step once a process
    first_epoch = load_state(accelerator, output_dir) // len(batches)
    keep_history(output_dir / HISTORY, first_epoch * len(batches), accelerator)

    for epoch in tqdm(range(first_epoch, args.epochs), desc="fine-tuning", unit=" epochs", disable=not show):
        if epoch - best.epoch >= args.patience:
            break
        set_training_mode(prepared, model, args.freeze_tower)
        mean_loss = train_epoch(epoch, args, accelerator, prepared, optimizer, schedule, loss, train_rows, batches)
        take_buffers_of_first_process(trained)
        validation_loss = loss_of_rows(trained, validation_rows, loss, task.answerable("validation"), args.batch_size)
        # One loss for all: if one process stopped at its own, the others would wait for it.
        (validation_loss,) = broadcast_object_list([validation_loss])
        update = (epoch + 1) * len(batches)
        check_finite("validation loss", validation_loss, update, optimizer)
        best.consider(epoch + 1, validation_loss, trained)
        line = {"update": update, "epoch": epoch + 1, "loss": mean_loss, "validation_loss": validation_loss}
        if show:
            with (output_dir / HISTORY).open("a") as history:
                history.write(json.dumps({**line, "learning_rate": schedule.get_last_lr()[-1]}) + "\n")
        save_state(accelerator, output_dir, update)

    trained.load_state_dict(best.weights)
    final = trained.eval()
    if args.lora_rank:
        final = save_and_merge_adapters(final, processor, output_dir / ADAPTER if show else None)
    calibrate(final, task, validation_rows, args.batch_size)
    if show:
        save_checkpoint(final, image_processor, output_dir / CHECKPOINT)
        shutil.rmtree(output_dir / STATES, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def train_epoch(
    epoch: int,
    args: FinetuneClassificationArguments,
    accelerator: Accelerator,
    prepared: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    loss: RunLoss,
    train_rows: LabelledImages,
    batches: EpochBatches,
) -> float:
    """Take the steps of an epoch, each on this process's share of a batch, and return their mean loss."""
    total, rank = 0.0, accelerator.process_index
    for step, rows in enumerate(batches.batches_of_epoch(epoch)):
        own = rows[rank * args.batch_size : (rank + 1) * args.batch_size]
        batch = send_to_device(train_rows.__getitems__([(epoch, int(row)) for row in own]), accelerator.device)
        update, sources = epoch * len(batches) + step + 1, [train_rows.sources[row] for row in own]
        torch.manual_seed(hash((args.seed, epoch, step, rank)))  # of dropout
        step_loss = loss(prepared(batch["pixel_values"]).logits.float(), batch["labels"])
        check_finite("loss", step_loss.item(), update, optimizer, sources)
        accelerator.backward(step_loss)
        norm = accelerator.clip_grad_norm_(prepared.parameters(), args.max_grad_norm)
        check_finite("gradient norm", norm.item(), update, optimizer, sources)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += step_loss.item()
    return total / len(batches)


def load_pretrained(
    checkpoint: str, task: ClassificationTask
) -> tuple[LumbarCLIPForImageClassification, LumbarCLIPProcessor]:
    """Load the vision tower of a checkpoint, with a new head for the task.

    Raises:
        ValueError: If there is no such checkpoint, it lacks weights of the tower, or it is a classifier.
    """
    names = dict(enumerate(task.class_names))
    check_not_parent_of_checkpoint(Path(checkpoint))
    try:
        if LumbarCLIPConfig.from_pretrained(checkpoint).is_classifier:
            raise ValueError(
                f"{checkpoint} is a classifier already; start from the pretrained checkpoint it came from."
            )
        model, loading = cast(Any, LumbarCLIPForImageClassification).from_pretrained(
            checkpoint,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type=task.problem_type,
            calibration=None,  # of prompts
            class_temperatures=None,
            output_loading_info=True,
        )
        processor = LumbarCLIPProcessor.from_pretrained(checkpoint)
    except OSError as error:
        raise ValueError(
            f"No checkpoint at {checkpoint}: neither a folder that holds one nor a Hub id. {error}"
        ) from error
    if missing := sorted(name for name in loading["missing_keys"] if not name.startswith("classifier.")):
        raise ValueError(
            f"The weights in {checkpoint} lack {len(missing)} parameters of the tower, such as {missing[0]}."
        )
    return model, processor


def choose_optimizer(args: FinetuneClassificationArguments, model: nn.Module) -> Optimizer:
    """AdamW, with a rate for each layer of the tower if asked for.

    Raises:
        ValueError: If the tower is none of timm, which knows its layers.
    """
    if args.layer_decay == 1:
        return build_optimizer(model, args.learning_rate, args.weight_decay)
    towers = [module.timm_model for module in model.modules() if isinstance(module, TimmWrapperModel)]
    if not towers:
        raise ValueError(f"layer_decay {args.layer_decay} needs a timm tower, which knows its layers; set it to 1.")
    return build_layerwise_optimizer(model, towers[0], args.learning_rate, args.weight_decay, args.layer_decay)


def build_loss(name: str, task: ClassificationTask) -> RunLoss:
    """The loss of that name, which knows how many training rows each class has."""
    loss = PROBE_LOSSES[LOSSES[name]]
    of_task = loss.of_classes if task.exclusive else loss.of_findings
    of_training = task.multi_hot("train")
    counts, num_rows = of_training.sum(0), len(of_training)
    return lambda logits, labels: of_task(logits, labels, counts.to(logits.device), num_rows)


def set_training_mode(prepared: nn.Module, model: LumbarCLIPForImageClassification, freeze_tower: bool) -> None:
    """Train; a frozen tower keeps its batch statistics and drops nothing out."""
    prepared.train()
    if freeze_tower:
        model.vision_model.eval()


def loss_of_rows(model: nn.Module, rows: LabelledImages, loss: RunLoss, answerable: Tensor, batch_size: int) -> float:
    """The loss of a run's own kind on the validation rows that can be answered; the others would only add noise."""
    logits = torch.from_numpy(predict_logits(model, rows, batch_size)).float()
    return loss(logits[answerable], rows.labels[answerable]).item()


if __name__ == "__main__":
    sys.exit(run(main, interrupted="Rerun with --resume to go on."))
