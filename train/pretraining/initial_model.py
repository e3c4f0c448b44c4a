"""The model and processor that a run starts from."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import timm
import torch
from accelerate import PartialState
from datasets import Dataset
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import AutoConfig, AutoTokenizer, BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

from data_scripts.records import LUMBAR_SPINE
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPImageProcessor, LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.towers_lumbarclip import load_tower, load_vision_tower, max_text_tokens
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.packaged_towers import Role, find_tower, is_packaged, packaged_folder
from train.data.loaders import class_names, grade_names
from train.data.statement_banks import trained_wordings
from train.evaluation.questions import PROMPTS, asked_about, bank_prompts, own_prompts
from train.objectives import inputs_of
from train.pretraining.arguments import ModelArguments, PretrainArguments
from train.training.adapters import add_adapters
from train.training.optimization import freeze_first_layers

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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
        else from_towers(args, train_split, anatomy)
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


def from_towers(
    args: PretrainArguments, train_split: Dataset, anatomy: str | None = None
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Join two towers, each pretrained or random, with new heads.

    A packaged tower is pretrained, whatever `pretrained` says of the other one.
    """
    names = ("projection", "projection_dim", "text_pooling", "initial_temperature")
    heads: dict[str, Any] = {name: getattr(args, name) for name in names}
    vision_args = timm_arguments(args) or None
    vision_tower, text_tower = load_towers(args, vision_args)
    vision: Any = {"model_type": "timm_wrapper", "architecture": args.vision, "model_args": vision_args}
    if vision_tower is not None:
        vision = vision_tower.config
    if text_tower is not None:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            tower_source(args.text, "text"), trust_remote_code=False
        )
        text: Any = text_tower.config
    else:
        tokenizer = learn_tokenizer(texts_of_run(args, train_split, anatomy or LUMBAR_SPINE), args.vocabulary_size)
        check_text_settings(args.text_config)
        text = {"model_type": "bert", "max_position_embeddings": max(args.max_text_length, 64), **args.text_config}
        text |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = LumbarCLIPConfig(vision_config=vision, text_config=text, **heads)
    try:
        model = LumbarCLIPModel(config, vision_tower, text_tower)
        lacking = args.max_text_length - (max_text_tokens(model.text_model) or args.max_text_length)
        if text_tower is None and lacking > 0 and "max_position_embeddings" not in args.text_config:
            config.text_config.max_position_embeddings += lacking  # RoBERTa leaves the first ones out
            model = LumbarCLIPModel(config, vision_tower)
    except TypeError as error:  # from timm, which passes its arguments on
        raise ValueError(
            f"vision_model_args {dict(args.vision_model_args)} do not fit {args.vision}: {error}. Change them, or "
            "remove them: --vision_model_args '{}'."
        ) from error
    positions = max_text_tokens(model.text_model)
    if positions is not None and positions < args.max_text_length:
        raise ValueError(
            f"max_text_length is {args.max_text_length}, but the text tower has positions for {positions} tokens: set "
            f"--max_text_length {positions}, or choose another tower."
        )
    check_pooled_token(tokenizer, args.text_pooling)
    image_processor = LumbarCLIPImageProcessor(
        size={"height": args.image_size, "width": args.image_size},
        do_window_eight_bit=args.window_images,
        **normalisation_of(vision_tower),
    )
    stated, denied = bank_prompts(class_names(train_split), anatomy)
    processor = LumbarCLIPProcessor(
        image_processor,
        tokenizer,
        max_length=args.max_text_length,
        class_prompts=stated | args.class_prompts,
        absent_class_prompts=denied | args.absent_class_prompts,
        anatomy=anatomy or LUMBAR_SPINE,
    )
    return processor, model


def load_towers(
    args: PretrainArguments, vision_args: dict[str, Any] | None
) -> tuple[PreTrainedModel | None, PreTrainedModel | None]:
    """Load the pretrained towers, vision and text; None for one that starts from random weights."""
    vision_tower = text_tower = None
    if args.is_pretrained("vision"):
        vision_tower = load_vision_tower(tower_source(args.vision, "vision"), vision_args)
        _keep_name(vision_tower, args.vision)
    if args.is_pretrained("text"):
        text_tower = load_tower(tower_source(args.text, "text"))
        _keep_name(text_tower, args.text)
    if is_packaged(args.text):
        pooling = find_tower(args.text, "text").text_pooling
        if pooling != args.text_pooling and PartialState().is_main_process:
            logger.warning(
                "%s was trained with text_pooling %s, not %s: set --text_pooling %s.",
                *(args.text, pooling, args.text_pooling, pooling),
            )
    return vision_tower, text_tower


def _keep_name(tower: PreTrainedModel, name: str) -> None:
    """Let a checkpoint say what its tower was loaded by, without the folders of this machine."""
    tower.config._name_or_path = Path(name).name if Path(name).exists() else name


def tower_source(name: str, role: Role) -> str:
    """Return the folder of a packaged tower; any other name as it is."""
    return str(packaged_folder(name, role)) if is_packaged(name) else name


def normalisation_of(vision_tower: PreTrainedModel | None) -> dict[str, Any]:
    """Return the mean and standard deviation of the pixels that a pretrained tower of timm has learned from.

    Empty for other towers: the processor's, those of ImageNet.
    """
    if not isinstance(vision_tower, TimmWrapperModel):
        return {}
    learned: dict[str, Any] = cast(Any, vision_tower.timm_model).pretrained_cfg
    return {"image_mean": list(learned["mean"]), "image_std": list(learned["std"])}


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


def check_text_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting that an untrained text tower does not have, and would ignore."""
    kind = settings.get("model_type", "bert")
    known = AutoConfig.for_model(kind).to_dict()
    for name in settings:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"text_config sets {name!r}, which {kind} does not have.{hint}")


def timm_arguments(args: ModelArguments) -> dict[str, Any]:
    """Return the arguments of `timm.create_model`, with the image size for towers that need it.

    Raises:
        ValueError: If they set an image size other than `image_size`.
    """
    given: dict[str, Any] = dict(args.vision_model_args)
    if given.get("img_size", args.image_size) not in (args.image_size, [args.image_size] * 2):
        raise ValueError(
            f"vision_model_args build {args.vision} for images of {given['img_size']} pixels, and image_size is "
            f"{args.image_size}: leave img_size out; it follows image_size."
        )
    default = timm.get_pretrained_cfg(args.vision) if timm.is_model(args.vision) else None
    if default is not None and default.fixed_input_size and default.input_size[-1] != args.image_size:
        given["img_size"] = args.image_size
    return given


def learn_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """Make a lower-case WordPiece tokenizer (BERT) of the most frequent words, and single characters for all others.

    The trainer of `tokenizers` breaks ties by the order of a hash table: each process would get its own vocabulary.

    Args:
        texts: Reports of the training split.
        vocabulary_size: Largest number of pieces.

    Example:
        >>> tokenizer = learn_tokenizer(["Disc bulge at L4/L5.", "No bulge."], 60)
        >>> tokenizer.tokenize("Local bulge at L4/L5, left")
        ['l', '##o', '##c', '##a', '##l', 'bulge', 'at', 'l4', '/', 'l5', '[UNK]', '[UNK]']
    """
    normalise, split = BertNormalizer(lowercase=True).normalize_str, BertPreTokenizer().pre_tokenize_str
    counts = Counter(word for text in texts for word, _ in split(normalise(text)))
    characters = sorted({character for word in counts for character in word})
    words = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *words])
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(list(pieces)[:vocabulary_size])})
