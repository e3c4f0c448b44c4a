"""Pretrain LumbarCLIP on paired lumbar images and reports.

    accelerate launch train/pretrain.py train/configs/demo.yaml
    accelerate launch train/pretrain.py train/configs/paper_resnet50.yaml --learning_rate 1e-4
    accelerate launch train/pretrain.py train/configs/demo.yaml --resume

A step contrasts the pairs of all processes, but not those of earlier micro-batches: gradient accumulation averages
losses, it adds no negatives. For more negatives, raise --batch_size; the loss itself needs little memory.
"""

import json
import logging
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import send_to_device, set_seed
from datasets import DatasetDict
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from data_scripts.hub.upload import Destination, check_destination
from data_scripts.system.command_line import run
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import CHECKPOINT, STATES, load_checkpoint, load_state, save_checkpoint, save_state
from train.data.batch_sampler import EpochBatches
from train.data.leak_check import check_leaks
from train.data.loaders import build_loader, open_dataset, plan_batches, rows_sha256, text_and_patient_ids
from train.data.provenance import describe_data
from train.evaluate_model import FEATURES, EvaluationSettings, evaluate
from train.evaluation.checkpoint_calibration import (
    check_can_be_calibrated,
    fit_zero_shot_calibration,
    write_calibration,
)
from train.evaluation.targets import read_targets
from train.objectives import ModelWithObjective, build_objective
from train.pretraining.arguments import PretrainArguments
from train.pretraining.batch_statistics import BatchStatistics
from train.pretraining.data import build_rows, check_labels_differ, count_updates
from train.pretraining.initial_model import build_model
from train.pretraining.validation import validation_loss
from train.publishing.publication import publish_model
from train.training.adapters import ADAPTER, save_and_merge_adapters
from train.training.batch_norm import share_batch_statistics
from train.training.gathering import waiting_process_group
from train.training.history import HISTORY
from train.training.optimization import average_weights, build_optimizer, build_schedule, check_finite
from train.training.run_folder import check_output, describe_run, describe_start, keep_history, make_output, read_start

logger = logging.getLogger(__name__)


def main(args: PretrainArguments) -> None:
    """Read the data set, refuse one that leaks; train, save, evaluate, publish."""
    if args.push_to_hub:
        # A wrong token, or a tag that is taken, is told before the training.
        destination = Destination(
            repo_id=args.hub_repo_id,
            tag=args.hub_tag,
            tag_option="--hub_tag",
            public_option="train/publish.py --public",
        )
        check_destination(HfApi(), destination, is_new=True)
    dataset = open_dataset(args.dataset)
    check_leaks(dataset, args.allow_leaks)
    pretrain(args, dataset)
    if args.push_to_hub and PartialState().is_main_process:
        logger.info("Published: %s", publish_model(Path(args.output_dir), args.hub_repo_id, args.hub_tag))
    PartialState().destroy_process_group()  # not in `pretrain`: a study does many runs in these processes


def pretrain(args: PretrainArguments, dataset: DatasetDict) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Do one run, from its folder to its evaluation.

    Args:
        args: Settings of the run; `args.dataset` only names the data set.
        dataset: Splits `train`, `validation` and `test`.

    Returns:
        Processor and trained model.

    Raises:
        ValueError: If the output folder holds something else, or the data set cannot be learned from.
        FloatingPointError: If the loss is no number.
    """
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        kwargs_handlers=[waiting_process_group()],
    )
    output_dir = Path(args.output_dir)
    run = describe_run(args, accelerator, {name: rows_sha256(split) for name, split in dataset.items()})
    run["data"] = describe_data(args.dataset, dataset)
    run["start"] = describe_start(args.init_checkpoint, run["rows_sha256"]) if args.init_checkpoint else None
    check_output(output_dir, run, args)
    if args.resume and (output_dir / CHECKPOINT).exists():
        if args.evaluate:
            check_can_be_calibrated(output_dir / CHECKPOINT)  # not after minutes of evaluation
        logger.info("%s holds a finished checkpoint; nothing is left to train.", output_dir)
        model, processor = cast(tuple[LumbarCLIPModel, LumbarCLIPProcessor], load_checkpoint(output_dir / CHECKPOINT))
        model.to(accelerator.device)
    else:
        processor, model = train(args, accelerator, dataset, run)
    if args.evaluate and accelerator.is_main_process:
        settings = EvaluationSettings(
            dataset_name=Path(args.dataset).name,
            batch_size=args.batch_size,
            baselines=args.baselines,
            seed=args.seed,
            start=read_start(output_dir),
        )
        evaluate(model, processor, dataset, output_dir, settings=settings)
        calibrate(model, processor, dataset, output_dir, args)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.is_main_process:
        logger.info("Written: %s", ", ".join(str(path) for path in sorted(output_dir.iterdir())))
    return processor, model


def calibrate(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    dataset: DatasetDict,
    output_dir: Path,
    args: PretrainArguments,
) -> None:
    """Fit temperature and prediction sets of the prompts on validation patients; they travel with the checkpoint."""
    calibration = fit_zero_shot_calibration(
        model,
        processor,
        dataset["validation"],
        read_targets(dataset)["validation"],
        dataset_name=Path(args.dataset).name,
        batch_size=args.batch_size,
        cache_dir=output_dir / FEATURES,
    )
    write_calibration(output_dir / CHECKPOINT, calibration)
    model.config.calibration = asdict(calibration)


def train(
    args: PretrainArguments, accelerator: Accelerator, dataset: DatasetDict, run: dict[str, Any]
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Train from the start, or from where the run was interrupted, and save the checkpoint."""
    output_dir = Path(args.output_dir)

    # What is trained, on what, and how it learns.
    set_seed(args.seed)
    processor, model = build_model(args, dataset["train"])
    model.config.calibration = None  # of the weights it started from, not of those it will have
    torch.nn.Module.to(model.vision_model, memory_format=torch.channels_last)  # convolutions are a quarter faster so
    show = accelerator.is_main_process
    train_rows, validation_rows = build_rows(args, dataset, processor, show)
    check_labels_differ(train_rows.labels)
    objective = build_objective(
        args.objective, model, train_rows.labels, alpha=args.alpha, label_temperature=args.label_temperature
    )
    share = accelerator.process_index, accelerator.num_processes
    batches = plan_batches(dataset["train"], args.balance, args.batch_size, args.seed, *share)
    num_updates = count_updates(args, len(batches))
    model = share_batch_statistics(model, accelerator)
    make_output(output_dir, run, args, accelerator)
    trained = ModelWithObjective(model, objective)
    optimizer = build_optimizer(trained, args.learning_rate, args.weight_decay)
    schedule = build_schedule(optimizer, num_updates, args.warmup_ratio)
    prepared, optimizer = accelerator.prepare(trained, optimizer)
    published = trained
    # Not prepared: Accelerate would step it once for each process.
    accelerator.register_for_checkpointing(schedule)
    if args.weight_average:
        average = average_weights(trained, args.weight_average)
        accelerator.register_for_checkpointing(average)
        published = cast(ModelWithObjective, average.module)

    first_update = load_state(accelerator, output_dir)
    keep_history(output_dir / HISTORY, first_update, accelerator)
    accelerator.init_trackers("logs", config={})

    # The loop. An update is one step of the optimizer, on one or several micro-batches.
    batches.first_step = first_update * args.gradient_accumulation_steps
    pairs_of_update = args.batch_size * accelerator.num_processes * args.gradient_accumulation_steps
    loader = iter(build_loader(train_rows, batches, args.num_workers))
    bar = tqdm(
        initial=first_update * pairs_of_update,
        total=num_updates * pairs_of_update,
        desc="pretraining",
        unit=" pairs",
        disable=not show,
    )
    compared = None if train_rows.labels is None else objective.target_vectors(train_rows.labels)
    statistics = BatchStatistics(*text_and_patient_ids(dataset["train"]), compared, objective.has_label_temperature)
    seconds, pairs_since = 0.0, 0
    for update in range(first_update + 1, num_updates + 1):
        started = time.perf_counter()
        loss = torch.zeros((), device=accelerator.device)
        prepared.train()
        for micro_step in range(args.gradient_accumulation_steps):
            batch = send_to_device(next(loader), accelerator.device)
            rows, labels = batch.pop("rows"), batch.pop("labels", None)
            # Dropout, too, depends on where the run stands and not on how it came there.
            torch.manual_seed(hash((args.seed, update, micro_step, accelerator.process_index)))
            with accelerator.accumulate(prepared):
                micro_loss, inverse_temperature = prepared(batch, labels)
                sources = [train_rows.sources[row] for row in rows.tolist()]
                check_finite("loss", micro_loss.item(), update, optimizer, sources)
                accelerator.backward(micro_loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(prepared.parameters(), args.max_grad_norm)
                    check_finite("gradient norm", norm.item(), update, optimizer, sources)
                optimizer.step()
                optimizer.zero_grad()
            statistics.add(accelerator.gather(rows), objective.target_temperature(inverse_temperature.item()))
            loss += micro_loss.detach() / args.gradient_accumulation_steps
        schedule.step()
        if args.weight_average:
            average.update_parameters(trained)
        seconds, pairs_since = seconds + time.perf_counter() - started, pairs_since + pairs_of_update
        bar.update(pairs_of_update)

        epoch_ended = update == num_updates or starts_epoch(update, args, batches)
        if update % args.log_every == 0 or epoch_ended:
            line = {
                "update": update,
                "epoch": update * args.gradient_accumulation_steps / len(batches),
                "loss": loss.item(),
                "learning_rate": schedule.get_last_lr()[0],
                "inverse_temperature": model.inverse_temperature.item(),
                "pairs_per_second": pairs_since / seconds,
                **statistics.take(),
            }
            seconds, pairs_since = 0.0, 0
            if show and (warning := statistics.target_warning()):
                logger.warning(warning)
            if epoch_ended:
                line["validation_loss"] = validation_loss(published, validation_rows, args.batch_size, accelerator)
                check_finite("validation loss", line["validation_loss"], update, optimizer)
            log(line, output_dir / HISTORY, accelerator, bar)
        if update % args.save_every == 0 if args.save_every else epoch_ended:
            save_state(accelerator, output_dir, update)

    final = published.model.eval()
    if args.lora_rank:
        final = save_and_merge_adapters(final, processor, output_dir / ADAPTER if show else None)
    if accelerator.is_main_process:
        save_checkpoint(final, processor, output_dir / CHECKPOINT)
        shutil.rmtree(output_dir / STATES, ignore_errors=True)
    accelerator.wait_for_everyone()
    return processor, final


def starts_epoch(update: int, args: PretrainArguments, batches: EpochBatches) -> bool:
    """Whether this update was the last one that begins within its epoch."""
    steps = args.gradient_accumulation_steps
    return (update * steps) // len(batches) > ((update - 1) * steps) // len(batches)


def log(line: dict[str, float], path: Path, accelerator: Accelerator, bar: Any) -> None:
    """Add a line to the history, the trackers and the progress bar."""
    accelerator.log({name: value for name, value in line.items() if name != "update"}, step=int(line["update"]))
    if accelerator.is_main_process:
        with path.open("a") as history:
            history.write(json.dumps(line) + "\n")
        bar.set_postfix_str(f"loss {line['loss']:.3f}")


if __name__ == "__main__":
    sys.exit(run(main, interrupted="Rerun with --resume to go on."))
