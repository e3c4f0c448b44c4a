"""Train a segmenter on images with masks, from a LumbarCLIP checkpoint or from towers.

    accelerate launch train/finetune_segmentation.py train/configs/demo_segmentation.yaml
    lumbarclip segment train/configs/demo_segmentation.yaml --checkpoint runs/demo/checkpoint --image_size 192

After each epoch it measures the Dice of the validation patients; with `--patience`, the weights with the best one are
kept. Then it measures the test patients. Writes `metrics.json`, `report.md` and a checkpoint for
`pipeline("image-segmentation", model="OUTPUT_DIR/checkpoint", trust_remote_code=True)`.
"""

import sys
from typing import TYPE_CHECKING

from data_scripts.system.command_line import run
from train.segmentation.arguments import FinetuneSegmentationArguments

if TYPE_CHECKING:  # `--help` answers without torch
    from datasets import DatasetDict

    from modeling_lumbarclip import LumbarCLIPForSemanticSegmentation
    from train.data.provenance import DataFacts


def main(args: FinetuneSegmentationArguments) -> None:
    """Read data and towers; train, save, evaluate."""
    from accelerate import PartialState

    from train.data.loaders import open_dataset
    from train.data.provenance import DataFacts
    from train.segmentation.data import with_more_datasets

    dataset = with_more_datasets(open_dataset(args.dataset, args.labels), args)
    facts = DataFacts(args.dataset, dataset)
    facts.check_leaks(args.allow_leaks)
    finetune(args, dataset, facts)
    PartialState().destroy_process_group()


def finetune(
    args: FinetuneSegmentationArguments, dataset: "DatasetDict", facts: "DataFacts | None" = None
) -> "LumbarCLIPForSemanticSegmentation":
    """Do one run, from its folder to its evaluation; may be called many times in one process.

    `args.dataset` only names the dataset, whose splits are `train`, `validation` and `test`.

    Raises:
        ValueError: If the output folder holds something else, a mask is wrong, or there is nothing to learn.
        FloatingPointError: If a loss or a gradient is NaN or infinite.
    """
    from typing import Any, cast

    from train.data.provenance import DataFacts
    from train.segmentation.evaluation import evaluate_segmentation
    from train.segmentation.task import SegmentationTask
    from train.training.loop import run_task

    facts = facts or DataFacts(args.dataset, dataset)
    task = SegmentationTask(args, dataset, facts)

    def evaluate(model: Any, folder: Any) -> None:
        evaluate_segmentation(model, task.processor, task.data, args, facts, folder)

    return cast(Any, run_task(task, args, facts, evaluate))


if __name__ == "__main__":
    sys.exit(run(main))
