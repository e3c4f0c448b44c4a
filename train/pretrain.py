"""Pretrain LumbarCLIP on paired lumbar images and reports.

    accelerate launch train/pretrain.py train/configs/demo.yaml
    accelerate launch train/pretrain.py train/configs/paper_resnet50.yaml --learning_rate 1e-4
    accelerate launch train/pretrain.py train/configs/demo.yaml --resume

A step contrasts the pairs of all processes. Gradient accumulation averages losses and adds no negatives; for more
negatives, raise --batch_size, since the loss itself needs little memory.
"""

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data_scripts.system.command_line import run
from train.pretraining.arguments import PretrainArguments

if TYPE_CHECKING:  # `--help` answers without torch
    from datasets import DatasetDict

    from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
    from train.data.provenance import DataFacts

logger = logging.getLogger(__name__)


def main(args: PretrainArguments) -> None:
    """Read the dataset and check it for leaks; train, save, evaluate, publish."""
    from accelerate import PartialState

    from train.data.loaders import open_dataset
    from train.data.provenance import DataFacts

    if args.push_to_hub:
        check_repository(args)
    dataset = open_dataset(args.dataset, args.labels)
    facts = DataFacts(args.dataset, dataset)
    facts.check_leaks(args.allow_leaks)
    pretrain(args, dataset, facts)
    if args.push_to_hub and PartialState().is_main_process:
        from train.publishing.publication import publish_model

        logger.info("Published: %s", publish_model(Path(args.output_dir), args.hub_repo_id, args.hub_tag))
    PartialState().destroy_process_group()  # not in `pretrain`: an experiment does many runs in one process


def pretrain(
    args: PretrainArguments, dataset: "DatasetDict", facts: "DataFacts | None" = None
) -> "tuple[LumbarCLIPProcessor, LumbarCLIPModel]":
    """Do one run, from its folder to its evaluation; may be called many times in one process.

    `args.dataset` only names the dataset, whose splits are `train`, `validation` and `test`.

    Raises:
        ValueError: If the output folder holds something else, or the dataset cannot be learned from.
        FloatingPointError: If a loss or a gradient is NaN or infinite.
    """
    from train.data.provenance import DataFacts
    from train.pretraining.task import PretrainingTask
    from train.training.loop import run_task

    facts = facts or DataFacts(args.dataset, dataset)
    task = PretrainingTask(args, dataset, facts)

    def evaluate_and_calibrate(model: Any, folder: Path) -> None:
        from train.checkpoints.checkpoint import CHECKPOINT
        from train.data.batch_sampler import TrainingSet
        from train.evaluation.checkpoint_calibration import fit_zero_shot_calibration, write_calibration
        from train.evaluation.targets import read_targets
        from train.reporting.evaluation import FEATURES, EvaluationSettings, evaluate
        from train.training.run_folder import read_start

        settings = EvaluationSettings(
            dataset_name=Path(args.dataset).name,
            batch_size=args.batch_size,
            baselines=args.baselines,
            seed=args.seed,
            start=read_start(folder),
            training_set=TrainingSet.of(vars(args)),
        )
        evaluate(model, task.processor, dataset, folder, settings=settings, facts=facts)
        targets = read_targets(dataset)["validation"]
        if not targets.is_labelled.any():
            logger.warning("The zero-shot answers are not calibrated: no validation row has a label.")
            return
        calibration = fit_zero_shot_calibration(
            model,
            task.processor,
            dataset["validation"],
            targets,
            dataset_name=settings.dataset_name,
            batch_size=args.batch_size,
            cache_dir=folder / FEATURES,
        )
        write_calibration(folder / CHECKPOINT, calibration)
        model.config.calibration = asdict(calibration)

    model = run_task(task, args, facts, evaluate_and_calibrate if args.evaluate else None)
    return task.processor, cast("LumbarCLIPModel", model)


def check_repository(args: PretrainArguments) -> None:
    """Check before the training that the repository can be written to, is private, and lacks the tag."""
    from huggingface_hub import HfApi

    from data_scripts.hub.upload import Destination, check_destination

    destination = Destination(
        repo_id=args.hub_repo_id,
        tag=args.hub_tag,
        tag_option="--hub_tag",
        public_option="train/publish.py --public",
    )
    check_destination(HfApi(), destination, is_new=True)


if __name__ == "__main__":
    sys.exit(run(main))
