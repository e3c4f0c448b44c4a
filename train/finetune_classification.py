"""Fine-tune the vision tower of a LumbarCLIP checkpoint to classify images.

    accelerate launch train/finetune_classification.py train/configs/finetune_spider.yaml
    accelerate launch train/finetune_classification.py train/configs/finetune_spider.yaml --target grade --resume

Training stops when the validation loss no longer falls and keeps the weights with the lowest one. Then it fits a
temperature on the validation patients and measures the test patients. Writes `metrics.json`, `report.md` and a
checkpoint for `pipeline("image-classification", model="OUTPUT_DIR/checkpoint", trust_remote_code=True)`.
"""

import sys
from typing import TYPE_CHECKING

from data_scripts.system.command_line import run
from train.classification.arguments import FinetuneClassificationArguments

if TYPE_CHECKING:  # `--help` answers without torch
    from datasets import DatasetDict

    from modeling_lumbarclip import LumbarCLIPForImageClassification
    from train.data.provenance import DataFacts


def main(args: FinetuneClassificationArguments) -> None:
    """Read data and checkpoint; train, calibrate, save, evaluate."""
    from accelerate import PartialState

    from train.data.loaders import open_dataset
    from train.data.provenance import DataFacts

    dataset = open_dataset(args.dataset, args.labels)
    facts = DataFacts(args.dataset, dataset)
    facts.check_leaks(args.allow_leaks)
    finetune(args, dataset, facts)
    PartialState().destroy_process_group()


def finetune(
    args: FinetuneClassificationArguments, dataset: "DatasetDict", facts: "DataFacts | None" = None
) -> "LumbarCLIPForImageClassification":
    """Do one run, from its folder to its evaluation; may be called many times in one process.

    `args.dataset` only names the dataset, whose splits are `train`, `validation` and `test`.

    Raises:
        ValueError: If the output folder holds something else, or there is nothing to learn.
        FloatingPointError: If a loss or a gradient is NaN or infinite.
    """
    from typing import Any, cast

    from train.classification.evaluation import evaluate_classifier
    from train.classification.task import ClassificationTask
    from train.data.provenance import DataFacts
    from train.training.loop import run_task

    facts = facts or DataFacts(args.dataset, dataset)
    task = ClassificationTask(args, dataset, facts)

    def evaluate(model: Any, folder: Any) -> None:
        evaluate_classifier(model, task.data, args, facts, folder)

    return cast(Any, run_task(task, args, facts, evaluate))


if __name__ == "__main__":
    sys.exit(run(main))
