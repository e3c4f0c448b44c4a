"""Validation under mixed precision, and of a split in which no pair has a class."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import load_dataset

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import TINY_TEXT
from train.objectives import OBJECTIVES, ModelWithObjective, build_objective
from train.pretraining.arguments import PretrainArguments
from train.pretraining.task import build_rows, validation_loss

TINY_RESNET = {
    "model_type": "timm_wrapper",
    "architecture": "resnet10t",
    "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
}


@pytest.fixture
def accelerator():
    """Makes an accelerator of a precision; what it keeps for the whole process is forgotten."""

    def make(mixed_precision):
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(mixed_precision=mixed_precision, cpu=True)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def splits(tiny_dataset_folder):
    return load_dataset(str(tiny_dataset_folder))


def without_classes(split):
    return split.map(lambda row: {"labels": []}, features=split.features)


def rows_of(splits, processor, objective="lumbarclip", **settings):
    args = PretrainArguments(
        dataset="tiny", output_dir="run", objective=objective, target_columns=["labels"], **settings
    )
    return build_rows(args, splits, processor, show_progress=False)


def trained_resnet(name, labels):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TINY_RESNET, text_config=TINY_TEXT, projection_dim=8)
    model = LumbarCLIPModel(config)
    return ModelWithObjective(model, build_objective(name, model, labels))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_validates_in_half_precision(name, splits, tiny_processor, accelerator):
    """A tower that ends in a pooling hands over features of half precision, the layers of an objective are whole."""
    train_rows, validation_rows = rows_of(splits, tiny_processor, name)
    losses = {}
    for precision in ("no", "bf16"):
        runs = accelerator(precision)
        trained = trained_resnet(name, train_rows.labels)
        validated = validation_loss(trained, validation_rows, 8, runs)
        batch = train_rows.__getitems__([(0, row) for row in range(0, 40, 5)])
        batch.pop("rows")
        prepared = runs.prepare(trained.train())
        loss, _ = prepared(batch, batch.pop("labels", None))
        runs.backward(loss)
        gradients = [parameter.grad for parameter in trained.parameters() if parameter.requires_grad]
        assert loss.dtype == torch.float32
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        losses[precision] = [validated, loss.item()]
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05)


@pytest.mark.parametrize("name", ["lumbarclip", "medclip", "supervised"])
def test_a_validation_split_without_classes_is_one_class_of_the_training(name, splits, tiny_processor, accelerator):
    """Its pairs are all alike: every report is a right answer, and not each its own alone."""
    bare = {"train": splits["train"], "validation": without_classes(splits["validation"])}
    train_rows, validation_rows = rows_of(bare, tiny_processor, name)
    assert validation_rows.labels.tolist() == [[0, 0, 1]] * len(bare["validation"])
    trained = trained_resnet(name, train_rows.labels)
    assert math.isfinite(validation_loss(trained, validation_rows, 8, accelerator("no")))


def test_a_training_split_without_classes_makes_the_validation_hard_too(splits, tiny_processor):
    bare = {"train": without_classes(splits["train"]), "validation": splits["validation"]}
    assert [rows.labels for rows in rows_of(bare, tiny_processor)] == [None, None]
