"""The model and processor that a run starts from."""

import logging
from collections.abc import Iterator, Sequence

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from data_scripts.records import LUMBAR_SPINE
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.packaged_towers import find_tower, is_packaged
from train.data.loaders import class_names, grade_names
from train.data.statement_banks import trained_wordings
from train.evaluation.questions import PROMPTS, asked_about, bank_prompts, own_prompts
from train.objectives import inputs_of
from train.pretraining.arguments import ModelArguments, PretrainArguments
from train.training.adapters import add_adapters
from train.training.initial_towers import from_towers
from train.training.optimization import freeze_first_layers

logger = logging.getLogger(__name__)


def build_model(
    args: PretrainArguments, train_split: Dataset, anatomy: str | None = None
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Build processor and model from a checkpoint, or from pretrained or random towers; then freeze or adapt them.

    Without pretrained towers, the reports of the training split give the vocabulary. The prompts are those of what the
    images show, the `anatomy`; if it is not known, those of the checkpoint, or of the lumbar spine.

    Returns:
        Processor and model, on the CPU. With `lora_rank`, peft wraps the model.

    Raises:
        ValueError: If a tower is unknown, or the checkpoint is not LumbarCLIP's.
    """
    processor, model = (
        from_checkpoint(args, class_names(train_split), anatomy)
        if args.init_checkpoint
        else joined_towers(args, train_split, anatomy)
    )
    model.log_inverse_temperature.requires_grad_(args.learn_temperature)
    if args.freeze:
        model.text_model.requires_grad_(False)
    freeze_first_layers(model.vision_model, args.freeze_vision_layers)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if args.lora_rank:
        model = add_adapters(model, args.lora_rank, [f"{tower}_model" for tower in args.lora_towers])
    return processor, model


def from_checkpoint(
    args: ModelArguments, label_names: Sequence[str] = (), anatomy: str | None = None
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Load a checkpoint and its processor, to ask about the dataset's classes by the wordings of their banks.

    Prompts that a user wrote, for this run or for the checkpoint, stay.
    """
    # Half precision would round away most of an update: 2e-5 is less than it can add to a weight.
    model, processor = load_checkpoint(args.init_checkpoint, dtype=torch.float32)
    processor = asked_about(processor, anatomy)
    for name, of_banks in zip(PROMPTS, bank_prompts(label_names, processor.anatomy), strict=True):
        own = own_prompts(processor, name) | getattr(args, name)
        setattr(processor, name, getattr(processor, name) | of_banks | own)
    return processor, model


def joined_towers(
    args: PretrainArguments, train_split: Dataset, anatomy: str | None = None
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Join two towers with new heads, to ask about the dataset's classes."""
    names = ("projection", "projection_dim", "text_pooling", "initial_temperature")
    heads = {name: getattr(args, name) for name in names}
    processor, model = from_towers(args, lambda: texts_of_run(args, train_split, anatomy or LUMBAR_SPINE), **heads)
    check_pooled_token(processor.tokenizer, args.text_pooling)
    if is_packaged(args.text):
        pooling = find_tower(args.text, "text").text_pooling
        if pooling != args.text_pooling and PartialState().is_main_process:
            logger.warning(
                "%s was trained with text_pooling %s, not %s: set --text_pooling %s.",
                *(args.text, pooling, args.text_pooling, pooling),
            )
    stated, denied = bank_prompts(class_names(train_split), anatomy)
    processor.class_prompts = stated | args.class_prompts
    processor.absent_class_prompts = denied | args.absent_class_prompts
    processor.anatomy = anatomy or LUMBAR_SPINE
    return processor, model


def texts_of_run(args: PretrainArguments, train_split: Dataset, anatomy: str) -> Iterator[str]:
    """Yield the texts that a run shows: reports, rephrasings, and what its objectives ask for."""
    inputs = inputs_of(args.objectives)
    yield from train_split["report"]
    for texts in train_split["rephrasings"]:
        yield from texts
    if inputs & {"states", "grade_prompts"}:
        names = class_names(train_split) if "states" in inputs else []
        grades = grade_names(train_split) if "grade_prompts" in inputs else []
        yield from trained_wordings(names, anatomy, grades)
    if "counterfactuals" in inputs:
        from data_scripts.augmentations.counterfactuals import counterfactual_reports

        for report in sorted(set(train_split["report"])):
            yield from (text for _, text in counterfactual_reports(report))


def check_pooled_token(tokenizer: PreTrainedTokenizerBase, text_pooling: str) -> None:
    """Raise ValueError if `cls` would pool a word: tokenizers such as T5's or GPT-2's put no token before a text."""
    tokens = tokenizer("disc bulge")["input_ids"]
    if text_pooling == "cls" and (not tokens or tokens[0] not in tokenizer.all_special_ids):
        raise ValueError(
            f"text_pooling cls takes the first token, and this tokenizer puts none like [CLS] before a text: it starts "
            f"with {tokenizer.convert_ids_to_tokens(tokens[:1])}. Set --text_pooling mean, or last."
        )
