"""What an epoch and a validation hold: the paper's numbers, half precision, splits without classes or texts."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import ClassLabel, Dataset, Features, List, load_dataset

from data_scripts.system.command_line import parse_arguments
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from modeling_lumbarclip.losses_lumbarclip import soft_contrastive_loss_dense
from tests.conftest import TINY_TEXT
from train.data.batch_sampler import TrainingSet
from train.data.loaders import draws_of_pairs, plan_batches, target_classes
from train.data.statement_banks import trained_wordings
from train.experiments.spec import ExperimentArguments, plan_runs
from train.objectives import OBJECTIVES, ModelWithObjective, ObjectiveSettings, TrainingTargets, build_objective
from train.objectives.objective import keep_local
from train.pretraining.arguments import PretrainArguments
from train.pretraining.batch_statistics import target_statistics
from train.pretraining.task import (
    augmentation_warning,
    build_rows,
    join_with_objective,
    objective_warnings,
    validation_losses,
)
from train.training.initial_towers import learn_tokenizer
from train.training.loop import count_updates

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


def graded(split):
    features = Features({**split.features, "grade": ClassLabel(names=list("12345"))})
    return split.map(lambda row: {"grade": 2 * row["labels"][0]}, features=features)


def rows_of(splits, processor, objectives="lumbarclip", **settings):
    args = PretrainArguments(
        dataset="tiny", output_dir="run", objectives=objectives, target_columns=["labels"], **settings
    )
    return build_rows(args, splits, processor, show_progress=False)


def trained_resnet(name, labels):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TINY_RESNET, text_config=TINY_TEXT, projection_dim=8)
    model = LumbarCLIPModel(config)
    return ModelWithObjective(model, build_objective(name, model, TrainingTargets(labels=labels, classes=labels)))


def join(objectives, rows):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TINY_RESNET, text_config=TINY_TEXT, projection_dim=8)
    args = PretrainArguments(dataset="tiny", output_dir="run", objectives=objectives)
    return join_with_objective(args, LumbarCLIPModel(config), rows.processor, rows)


def test_polarity_weighs_findings_by_what_an_epoch_draws(splits, tiny_processor):
    """Else a finding that upsampling repeats would be balanced twice."""
    rare = splits["train"].map(lambda row, index: {"labels": [int(index % 4 == 0)]}, with_indices=True)
    args = PretrainArguments(
        dataset="tiny", output_dir="run", objectives="polarity", balance=["upsample"], text_pooling="mean"
    )
    draws = draws_of_pairs(rare, TrainingSet.of(vars(args)))
    rows, _ = build_rows(args, {"train": rare, "validation": rare}, tiny_processor, show_progress=False)
    prevalences = [
        join_with_objective(
            args,
            LumbarCLIPModel(LumbarCLIPConfig(vision_config=TINY_RESNET, text_config=TINY_TEXT, projection_dim=8)),
            tiny_processor,
            rows,
            of_draws,
        )
        .objective.terms["polarity"]
        .prevalence.tolist()
        for of_draws in (None, draws)
    ]
    drawn = plan_batches(rare, TrainingSet.of(vars(args)), 4, seed=0)
    assert len(drawn) * 4 == pytest.approx(draws.sum().item(), abs=4)
    assert prevalences[0] == pytest.approx([0.75, 0.25], abs=0.06) and prevalences[1] == pytest.approx(
        [0.5, 0.5], abs=0.02
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_validates_in_half_precision(name, splits, tiny_processor, accelerator):
    """A tower that ends in a pooling hands over features of half precision, the layers of an objective are whole."""
    if OBJECTIVES[name].inputs & {"grades", "grade_prompts"}:
        splits = {split: graded(rows) for split, rows in splits.items()}
    train_rows, validation_rows = rows_of(splits, tiny_processor, name)
    losses = {}
    for precision in ("no", "bf16"):
        runs = accelerator(precision)
        trained = join(name, train_rows)
        validated = validation_losses(trained, validation_rows, 8, runs).loss
        batch = train_rows.__getitems__([(0, row) for row in range(0, 40, 5)])
        prepared = runs.prepare(trained.train())
        loss, _ = prepared(batch)
        runs.backward(loss)
        gradients = [parameter.grad for parameter in trained.parameters() if parameter.requires_grad]
        assert loss.dtype == torch.float32
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        losses[precision] = [validated, loss.item()]
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05, abs=1e-3)


@pytest.mark.parametrize("name", ["lumbarclip", "medclip", "supervised"])
def test_a_validation_split_without_classes_is_one_class_of_the_training(name, splits, tiny_processor, accelerator):
    """Its pairs are all alike: every report is a right answer, and not each its own alone."""
    bare = {"train": splits["train"], "validation": without_classes(splits["validation"])}
    train_rows, validation_rows = rows_of(bare, tiny_processor, name)
    found = validation_rows.targets["classes"] if name == "supervised" else validation_rows.labels
    assert found.tolist() == [[0, 0, 1]] * len(bare["validation"])
    assert math.isfinite(validation_losses(join(name, train_rows), validation_rows, 8, accelerator("no")).loss)


@pytest.mark.parametrize("augmentation", ["rephrasings", "both"])
def test_the_validation_loss_is_the_mean_over_the_texts_of_each_pair(augmentation, splits, tiny_processor, accelerator):
    """Against the loss as its formula is written, of one batch for each text."""
    settings = {"texts_per_pair": 3, "text_augmentation": augmentation}
    train_rows, rows = rows_of(splits, tiny_processor, alpha=0.3, **settings)
    trained = trained_resnet("lumbarclip", train_rows.labels)
    trained.objective.terms["lumbarclip"].settings = ObjectiveSettings(alpha=0.3)
    model, expected = trained.model.eval(), []
    for place in range(3):
        batch = rows.__getitems__([(0, len(rows) * place + row) for row in range(len(rows))])
        with torch.no_grad():
            images = model.get_image_features(batch["pixel_values"]).pooler_output
            texts = {
                prefix: model.get_text_features(
                    batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
                ).pooler_output[batch[f"{prefix}text_index"]]
                for prefix in ("", "augmented_")
            }
            reports, augmented = (
                soft_contrastive_loss_dense(images, texts[prefix], model.inverse_temperature, rows.labels)
                for prefix in ("", "augmented_")
            )
        expected.append(0.3 * reports + 0.7 * augmented)
    assert len({round(loss.item(), 6) for loss in expected}) == 3
    validated = validation_losses(trained, rows, 5, accelerator("no")).loss
    assert validated == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)


@pytest.mark.parametrize("objective", ["lumbarclip", "clip", "siglip"])
def test_validation_is_also_measured_at_the_number_of_pairs_of_a_step(objective, splits, tiny_processor, accelerator):
    """By encoding the batches one by one; a training loss compares only with this."""
    train_rows, rows = rows_of(splits, tiny_processor, objectives=objective)
    trained = trained_resnet(objective, None if train_rows.labels is None else train_rows.labels)
    found = validation_losses(trained, rows, 3, accelerator("no"))
    of_all, of_batches = found.loss, found.of_batches
    assert found.terms == {f"{objective}_loss": pytest.approx(of_all)}
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    expected = []
    for batch in (batch for batch in order.split(3) if len(batch) == 3):
        inputs = rows.__getitems__([(0, row) for row in batch.tolist()])
        with torch.no_grad():
            expected.append(trained.objective(trained.encode(inputs), gather=keep_local)[0].item())
    assert len(expected) > 1
    assert of_batches == pytest.approx(np.mean(expected), abs=1e-5)
    assert abs(of_all - of_batches) > 1e-3
    assert validation_losses(trained, rows, len(rows), accelerator("no")).of_batches == pytest.approx(of_all, abs=1e-5)
    assert validation_losses(trained, rows, len(rows) + 1, accelerator("no")).of_batches is None


def test_one_text_per_pair_validates_the_reports_alone(splits, tiny_processor):
    assert [rows.num_augmented > 0 for rows in rows_of(splits, tiny_processor)] == [True, False]
    assert [rows.num_augmented > 0 for rows in rows_of(splits, tiny_processor, alpha=1.0)] == [False, False]


def warning_of(splits, processor, **settings):
    args = PretrainArguments(dataset="tiny", output_dir="run", **settings)
    rows, _ = build_rows(args, splits, processor, show_progress=False)
    return augmentation_warning(args, rows)


def test_a_loss_on_texts_that_do_not_exist_is_warned_of(splits, tiny_processor):
    def keep(num_rephrased):
        def change(row, index):
            return {"rephrasings": row["rephrasings"] if index < num_rephrased else []}

        return {split: rows.map(change, with_indices=True) for split, rows in splits.items()}

    none, some = keep(0), keep(30)
    told = warning_of(none, tiny_processor)
    assert "alpha 0.5 leaves 0.5 of the loss to augmented texts, but 40 of 40" in told
    assert "the loss is that of the reports alone" in told
    assert "data_scripts.paraphrase" in told and "--text_augmentation eda" in told and "--alpha 1" in told
    assert "40 of 40" in warning_of(none, tiny_processor, texts_per_pair=5)
    assert "40 of 40" in warning_of(splits, tiny_processor, text_augmentation="none")
    assert "10 of 40" in (told := warning_of(some, tiny_processor)) and "their report is used twice" in told
    told = warning_of(none, tiny_processor, text_augmentation="both")
    assert "No training pair has rephrasings" in told and "data_scripts.paraphrase" in told
    for settings in ({"alpha": 1.0}, {"objectives": "convirt"}, {"text_augmentation": "eda"}):
        assert warning_of(none, tiny_processor, **settings) is None
    assert warning_of(some, tiny_processor, text_augmentation="both") is None
    assert warning_of(splits, tiny_processor) is None


def test_what_teaches_an_objective_nothing_is_warned_of(splits, tiny_processor):
    def warnings(objectives, of_splits=splits):
        rows, _ = rows_of(of_splits, tiny_processor, objectives)
        return objective_warnings(join(objectives, rows), rows)

    vocabulary = learn_tokenizer([*splits["train"]["report"], *trained_wordings(["LBP", "No Finding"])], 1000)
    tiny_processor.tokenizer = vocabulary
    assert warnings({"polarity": 1.0, "counterfactual": 1.0}) == []
    tiny_processor.max_length = 6
    (told,) = warnings("polarity")
    assert re.search(r"\d wordings have the tokens of another statement, such as .* max_text_length 6", told)
    tiny_processor.max_length = 32

    names = ["LBP", "disc bulge", "No Finding"]
    features = Features({**splits["train"].features, "labels": List(ClassLabel(names=names))})
    other = {split: rows.map(lambda _, i: {"labels": [2 * (i % 2)]}, with_indices=True, features=features)
             for split, rows in splits.items()}  # fmt: skip
    assert "polarity leaves out disc bulge: no training pair shows it" in warnings("polarity", other)[0]
    few = {split: rows.map(lambda row, i: {"report": "Thank you." if i < 9 else row["report"]}, with_indices=True)
           for split, rows in splits.items()}  # fmt: skip
    (told,) = warnings("counterfactual", few)
    assert told.startswith("9 of 40 training pairs have no counterfactual")


def paper_split():
    """The 2,328 training pairs of the paper: Table 1 has 5 x 1,974 LBP, and 11,640 less these are 5 x 354."""
    names = ["LBP", "No Finding"]
    rows = {"labels": [["LBP"]] * 1974 + [["No Finding"]] * 354}
    return Dataset.from_dict(rows, features=Features(labels=List(ClassLabel(names=names))))


@pytest.mark.parametrize("tower", ["resnet50", "vit", "swin"])
def test_the_paper_config_makes_the_updates_and_the_targets_of_the_paper(tower):
    """Table 1: 9,870 LBP and 1,890 No Finding. 91 full batches of 128 in an epoch, 50 epochs."""
    config = Path(__file__).parents[3] / "train" / "configs" / f"paper_{tower}.yaml"
    args, split = parse_arguments(PretrainArguments, [str(config)]), paper_split()
    batches = plan_batches(split, TrainingSet.of(vars(args)), args.batch_size, args.seed)
    assert batches.upsampling.rows_of_class.tolist() == [9870, 1890]
    assert (len(batches), count_updates(args, len(batches))) == (91, 4550)

    epoch, no_finding = batches.batches_of_epoch(0), 1890 / 11760
    entries, times = np.unique(epoch, return_counts=True)
    assert len(entries) > 11640 - 112 and times.max() == 2  # 112 entries do not fill another batch
    assert np.mean(epoch % 2328 >= 1974) == pytest.approx(no_finding, abs=0.002)

    classes = target_classes(split, ["labels"])
    entropies = [
        target_statistics(classes[batch % 2328], args.initial_temperature)["target_entropy"] for batch in epoch
    ]
    # At a temperature of 0.07 a target is uniform over the pairs of its class: ln of their number.
    counts = np.sum(epoch % 2328 >= 1974, axis=1)
    by_hand = (counts * np.log(counts) + (128 - counts) * np.log(128 - counts)) / 128
    assert entropies == pytest.approx(by_hand, abs=1e-3)
    of_shares = sum(share * math.log(128 * share) for share in (no_finding, 1 - no_finding))
    assert np.mean(entropies) == pytest.approx(of_shares, abs=0.02) and of_shares == pytest.approx(4.411, abs=1e-3)


def test_the_paper_experiment_compares_the_paper_sets():
    """LumbarCLIP on the augmented and upsampled set, the others on 2,328 pairs: 18 full batches, 50 epochs."""
    config = Path(__file__).parents[3] / "train" / "configs" / "experiments" / "paper.yaml"
    experiment = parse_arguments(ExperimentArguments, [str(config), "--out", "experiments/paper"])
    updates = {}
    for run in plan_runs(experiment):
        batches = plan_batches(paper_split(), TrainingSet.of(vars(run.arguments)), run.arguments.batch_size, run.seed)
        updates.setdefault(count_updates(run.arguments, len(batches)), []).append(run.title)
    assert {number: len(titles) for number, titles in updates.items()} == {4550: 21, 900: 4}
    assert updates[900] == ["ConVIRT", "GLoRIA", "MedCLIP-ViT", "MedCLIP-ResNet-50"]


def test_a_training_split_without_classes_makes_the_validation_hard_too(splits, tiny_processor):
    bare = {"train": without_classes(splits["train"]), "validation": splits["validation"]}
    assert [rows.labels for rows in rows_of(bare, tiny_processor)] == [None, None]
