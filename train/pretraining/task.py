"""Pretraining as a task of the training loop: the contrast of images and reports."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import send_to_device
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.data.batch_sampler import EpochBatches, TrainingSet
from train.data.loaders import PairedRows, class_names, draws_of_pairs, grade_names, plan_batches, text_and_patient_ids
from train.data.provenance import DataFacts
from train.data.statement_banks import grade_bank, grade_scale, statement_bank
from train.data.text_cache import TEXT_FEATURES, TextCache
from train.evaluation.checkpoint_calibration import check_can_be_calibrated
from train.evaluation.checkpoint_scope import fit_scope
from train.evaluation.features import encode_images_once
from train.evaluation.protocols.wordings import warn_of_alike_statements
from train.evaluation.statistics.metrics import Array
from train.objectives import (
    OBJECTIVES,
    ModelWithObjective,
    ObjectiveSettings,
    Pairs,
    TrainingTargets,
    build_objective,
    inputs_of,
)
from train.objectives.objective import keep_local
from train.objectives.polarity import PolarityObjective
from train.objectives.wordings import StepWordings
from train.pretraining.arguments import PretrainArguments
from train.pretraining.batch_statistics import BatchStatistics
from train.pretraining.initial_model import build_model
from train.reporting.evaluation import FEATURES
from train.training.optimization import frozen_norms
from train.training.run_folder import describe_start
from train.training.task import Task

logger = logging.getLogger(__name__)

# Of the pairs of a step. Each costs the time of a report: with statements, a step may take 15 % longer.
COUNTERFACTUAL_SHARE = 1 / 16
STRAY_COPIES = 3  # of each wording, for a text tower that has to learn what words matter


class PretrainingTask(Task):
    """Train both towers on the pairs of a dataset."""

    verb: ClassVar[str] = "pretraining"
    args: PretrainArguments
    processor: LumbarCLIPProcessor
    validation: "ValidationLosses | None" = None  # until the first
    text_cache: TextCache | None = None

    def __init__(self, args: PretrainArguments, dataset: DatasetDict, facts: DataFacts) -> None:
        super().__init__(args)
        self.dataset = dataset
        self.start = describe_start(args.init_checkpoint, facts.rows_sha256) if args.init_checkpoint else None
        self.anatomy, self.labels_from = facts.description["anatomy"], facts.description["labels_from"]
        # The losses of the objectives in the steps of the last update.
        self.terms_of_update: deque[dict[str, float]] = deque(maxlen=args.gradient_accumulation_steps)
        for name in args.objectives:
            OBJECTIVES[name].check_dataset(self.anatomy, grade_names(dataset["train"]))
            if args.freeze and "local_features" in OBJECTIVES[name].inputs:
                raise ValueError(
                    f"The objective {name} compares words, and freeze text keeps one vector of each text: leave out "
                    "freeze, or choose another objective."
                )

    def build_model(self) -> ModelWithObjective:
        args = self.args
        self.processor, self.model = build_model(args, self.dataset["train"], self.anatomy)
        self.model.config.calibration = None  # it belongs to the initial weights, as does the scope
        self.model.set_scope(None)
        # Convolutions are faster this way.
        torch.nn.Module.to(self.model.vision_model, memory_format=torch.channels_last)
        show = PartialState().is_main_process
        rows = build_rows(args, self.dataset, self.processor, show, self.labels_from)
        self.train_rows, self.validation_rows = rows
        if show and (warning := augmentation_warning(args, self.train_rows)):
            logger.warning(warning)
        if show:
            names = class_names(self.dataset["train"])
            warn_of_alike_statements(self.model, self.processor, names, args.is_pretrained("text"))
        labels = self.train_rows.labels
        if show and labels is None and args.target_columns and "labels_if_any" in inputs_of(args.objectives):
            logger.warning(
                "No training pair has a class in target_columns %s: each pair matches only itself. Name columns that "
                "have classes, or build with --labels_from_reports.",
                ", ".join(args.target_columns),
            )
        for learned in (labels, self.train_rows.targets.get("classes")):
            if learned is None or len(learned.unique(dim=0)) > 1:
                continue
            raise ValueError(
                f"All {len(learned)} training pairs have the same classes, so every report would match every image and "
                "there is nothing to learn. To contrast pairs without classes, set --target_columns none (with "
                "--objectives lumbarclip) or --objectives clip; or label the data."
            )
        draws = None
        if "states" in inputs_of(args.objectives):
            draws = draws_of_pairs(self.dataset["train"], TrainingSet.of(vars(args)))
        trained = join_with_objective(args, self.model, self.processor, self.train_rows, draws)
        if args.freeze:
            trained.text_cache = self.text_cache = collect_texts(trained, self.train_rows, self.validation_rows)
        if args.freeze_vision_layers:
            trained.frozen_norms = frozen_norms(self.model.vision_model)
        if args.freeze or args.freeze_vision_layers:
            trained.train(trained.training)
        for warning in objective_warnings(trained, self.train_rows) if show else ():
            logger.warning(warning)
        self.objective = trained.objective.with_targets
        self.batch_statistics = BatchStatistics(
            *text_and_patient_ids(self.dataset["train"]),
            None if labels is None else self.objective.target_vectors(labels),
            "label_temperature" in self.objective.inputs,
        )
        return trained

    def begin(self, accelerator: Accelerator, output_dir: Path) -> None:
        if self.text_cache is not None:
            self.text_cache.open(self.model, output_dir / TEXT_FEATURES, accelerator)

    def batches(self, process_index: int, num_processes: int) -> tuple[PairedRows, EpochBatches]:
        settings = TrainingSet.of(vars(self.args)), self.args.batch_size, self.args.seed
        return self.train_rows, plan_batches(self.dataset["train"], *settings, process_index, num_processes)

    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return prepared(batch)

    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        trained = cast(ModelWithObjective, trained)
        self.validation = validation_losses(trained, self.validation_rows, self.args.batch_size, accelerator)
        return self.validation.loss

    def validation_statistics(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        of_batches = self.validation.of_batches
        terms = {f"validation_{name}": loss for name, loss in self.validation.terms.items()}
        return ({} if of_batches is None else {"validation_loss_of_batches": of_batches}) | terms

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
        self.batch_statistics.add(rows, self.objective.target_temperature(numbers.pop("inverse_temperature")))
        self.terms_of_update.append(numbers)

    def statistics(self) -> dict[str, float]:
        warning = self.batch_statistics.target_warning()
        if warning and PartialState().is_main_process:
            logger.warning(warning)
        terms = {
            name: sum(step[name] for step in self.terms_of_update) / len(self.terms_of_update)
            for name in (self.terms_of_update[-1] if self.terms_of_update else ())
        }
        return {**terms, "inverse_temperature": self.model.inverse_temperature.item(), **self.batch_statistics.take()}


def build_rows(
    args: PretrainArguments,
    dataset: Mapping[str, Dataset],
    processor: LumbarCLIPProcessor,
    show_progress: bool,
    labels_from: str | None = None,
) -> tuple[PairedRows, PairedRows]:
    """Make the augmented pairs of `train` and the plain ones of `validation`.

    With several texts per pair, those of `validation` have as many. Both have classes if the training split has, so
    that the validation loss is that of the same objective.
    """
    inputs = inputs_of(args.objectives)
    target_columns = list[str](args.target_columns) if inputs & {"labels", "labels_if_any"} else []
    options: dict[str, Any] = {"count_absences": args.count_absences, "seed": args.seed, "inputs": inputs}
    options |= {"show_progress": show_progress, "labels_from": labels_from}
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
        counterfactual_share=COUNTERFACTUAL_SHARE,
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


def join_with_objective(
    args: PretrainArguments,
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    rows: PairedRows,
    draws: Tensor | None = None,
) -> ModelWithObjective:
    """Join a model with the objectives of a run, which learn from these training rows, drawn so often in an epoch.

    Raises:
        ValueError: If the rows lack what an objective learns from.
    """
    targets = TrainingTargets(
        labels=rows.labels,
        classes=rows.targets.get("classes"),
        states=rows.targets.get("states"),
        draws=draws,
        findings=rows.finding_names,
        grades=rows.targets.get("grades"),
        grade_names=rows.grade_names,
        num_counterfactuals=rows.num_counterfactual,
    )
    objective = build_objective(args.objectives, model, targets, ObjectiveSettings.of(vars(args)))
    statements, grade_prompts = step_wordings(args, processor, rows)
    return ModelWithObjective(model, objective, statements, grade_prompts)


def step_wordings(
    args: PretrainArguments, processor: LumbarCLIPProcessor, rows: PairedRows
) -> tuple[StepWordings | None, StepWordings | None]:
    """Tokenise the trained wordings that the objectives ask for: statements and denials (F, 2), and grades (G,).

    Raises:
        ValueError: If the name of a class or a grade cannot be worded.
    """
    stray_copies = 0 if args.is_pretrained("text") else STRAY_COPIES
    inputs = inputs_of(args.objectives)
    options = processor.tokenizer, processor.max_length, args.seed, stray_copies
    statements = grade_prompts = None
    if "states" in inputs:
        names = rows.finding_names
        banks = [statement_bank(name, processor.anatomy, names) for name in names]
        texts = [wordings.trained for bank in banks for wordings in (bank.stated, bank.denied)]
        statements = StepWordings(texts, (len(banks), 2), *options)
    if "grade_prompts" in inputs:
        scale = grade_scale(rows.grade_names, processor.anatomy)
        rich = args.rich_descriptions
        of_grades = [grade_bank(scale, grade, processor.anatomy, rich).trained for grade in rows.grade_names]
        grade_prompts = StepWordings(of_grades, (len(of_grades),), *options)
    return statements, grade_prompts


def objective_warnings(trained: ModelWithObjective, rows: PairedRows) -> list[str]:
    """Tell which findings, pairs and wordings teach an objective nothing."""
    objective = trained.objective
    warnings = [
        f"The objective polarity leaves out {', '.join(term.left_out)}: no training pair shows it, or each does."
        for term in objective.terms.values()
        if isinstance(term, PolarityObjective) and term.left_out
    ]
    warnings += [
        f"{len(wordings.confused)} wordings have the tokens of another statement, such as {wordings.confused[0][1]!r} "
        f"those of {wordings.confused[0][0]!r}: raise max_text_length {rows.processor.max_length}, which cuts them, or "
        "start from a text tower that knows their words."
        for wordings in (trained.statements, trained.grade_prompts)
        if wordings is not None and wordings.confused
    ]
    lacking = len(rows) - rows.num_counterfactual
    if "counterfactuals" in objective.inputs and lacking:
        warnings.append(
            f"{lacking} of {len(rows)} training pairs have no counterfactual, since the report reader finds no fact to "
            "change in what the model reads of their reports: the objective counterfactual does not see them."
        )
    return warnings


def collect_texts(trained: ModelWithObjective, *splits: PairedRows) -> TextCache:
    """Collect every text that a run may show: of pairs, of statements and of grades."""
    texts = [tokens for rows in splits for tokens in rows.token_ids.values()]
    for wordings in (trained.statements, trained.grade_prompts):
        if wordings is not None:
            padded = zip(wordings.input_ids.flatten(0, 1), wordings.attention_mask.flatten(0, 1).bool(), strict=True)
            texts += [tokens[is_token].tolist() for tokens, is_token in padded]
    return TextCache(texts)


def augmentation_warning(args: PretrainArguments, rows: PairedRows) -> str | None:
    """Tell that pairs lack the augmented text that 1 - alpha of the loss is about, or its rephrasings; None if not."""
    lacking = len(rows) - rows.num_augmented
    if "lumbarclip" not in args.objectives or args.alpha == 1:
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


@dataclass(frozen=True)
class ValidationLosses:
    """Losses on the validation pairs, in nats; those of different objectives cannot be compared.

    Args:
        loss: Of all pairs as one batch, or with local features by batches the size of a step.
        of_batches: The same as a training step sees it, since a contrastive loss grows with the pairs of a batch: the
            mean over batches of as many pairs, drawn once without replacement; None with fewer pairs.
        terms: Of each objective, as `loss`, without its weight.
    """

    loss: float
    of_batches: float | None
    terms: Mapping[str, float]


@torch.no_grad()
def validation_losses(
    trained: ModelWithObjective, rows: PairedRows, batch_size: int, accelerator: Accelerator
) -> ValidationLosses:
    """Compute the objective on the validation pairs, the same on every process.

    All pairs make one batch, so that the loss depends neither on the batch size nor on the processes; with several
    augmented texts per pair it is the mean over as many batches, text after text. With an objective that compares
    patches with tokens, a large split does not fit in memory: its loss is the mean over batches the size of a step, in
    the order of the split, weighted by their pairs. Model and objective are left in evaluation mode.
    """
    trained.eval()
    objective = trained.objective
    by_batch = "local_features" in objective.inputs
    pairs_at_once = batch_size * accelerator.num_processes if by_batch else batch_size
    encoded: list[Pairs] = []
    losses = _MeanLosses()
    with accelerator.autocast():  # also for an objective with a layer of its own on half-precision features
        wordings = trained.embed_wordings()
        for start in range(0, len(rows), pairs_at_once):
            indices = range(start, min(start + pairs_at_once, len(rows)))
            batch = send_to_device(rows.__getitems__([(0, row) for row in indices]), accelerator.device)
            encoded.append(trained.encode(batch))
            if by_batch:
                losses.add(objective(replace(encoded.pop(), **wordings), gather=keep_local), len(indices))
        if by_batch:
            loss, terms = losses.means()
            return ValidationLosses(loss, loss if len(rows) >= pairs_at_once else None, terms)
        pairs = replace(Pairs.join(encoded), **wordings)
        pairs_of_step = batch_size * accelerator.num_processes
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).to(accelerator.device)
        of_batches = _MeanLosses()
        for batch_rows in order.split(pairs_of_step):
            if len(batch_rows) == pairs_of_step:
                of_batches.add(objective(pairs.select(batch_rows), gather=keep_local))
        losses.add(objective(pairs, gather=keep_local))
        for place in range(1, rows.texts_per_pair if rows.num_augmented else 1):
            pairs.output.augmented_text_embeds = _embed_augmented(trained, rows, place, batch_size)
            losses.add(objective(pairs, gather=keep_local))
    loss, terms = losses.means()
    return ValidationLosses(loss, of_batches.means()[0] if len(order) >= pairs_of_step else None, terms)


class _MeanLosses:
    """The weighted mean of several results of a `CombinedObjective`, kept on the device until it is read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0

    def add(self, result: tuple[Tensor, dict[str, Tensor]], weight: int = 1) -> None:
        for name, loss in {"loss": result[0], **result[1]}.items():
            self.sums[name] = self.sums.get(name, 0) + weight * loss
        self.weight += weight

    def means(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss, and that of each term."""
        means = {name: (total / self.weight).item() for name, total in self.sums.items()}
        return means.pop("loss"), means


def _embed_augmented(trained: ModelWithObjective, rows: PairedRows, place: int, batch_size: int) -> Tensor:
    """Embed the augmented text `place` of each pair. Shape (N, D)."""
    embeds = []
    for start in range(0, len(rows), batch_size):
        pairs = range(start, min(start + batch_size, len(rows)))
        texts = rows.augmented_batch([(0, len(rows) * place + row) for row in pairs])
        texts = send_to_device(texts, trained.model.device)
        of_texts = trained.embed_texts(texts["augmented_input_ids"], texts["augmented_attention_mask"])
        embeds.append(of_texts[texts["augmented_text_index"]])
    return torch.cat(embeds)
