"""Ask a checkpoint about slices, without a user interface.

Calibrated questions come with the checkpoint. A finding in the user's own words is compared with its denial, which is
not calibrated.

Shapes: B slices, D width of the shared space.
"""

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_scripts.records import LUMBAR_SPINE
from data_scripts.reports.text import report_findings
from modeling_lumbarclip import (
    LumbarCLIPForImageClassification,
    LumbarCLIPImageProcessor,
    LumbarCLIPModel,
    LumbarCLIPOutput,
    LumbarCLIPProcessor,
)
from modeling_lumbarclip.calibration_lumbarclip import calibrated_probabilities, prompt_texts, zero_shot_logits
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from modeling_lumbarclip.scope_lumbarclip import joined_reasons
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.loading import find_checkpoint, load_parts, read_config
from train.data.statement_banks import statement_bank
from train.evaluation.protocols.patient_level import mean_over_patients
from train.evaluation.questions import ABSENT_OR_PRESENT, spread_wordings
from train.training.run_folder import read_run
from train.web_app.classifier import ClassifierReader, Question
from train.web_app.uploads import Slice

MAX_FINDING_LETTERS = 80
MODEL_REVISION = "model_revision"  # in the head of a Space's card: the version of the model that it keeps to
BATCH_SIZE = 16
BLANKS = ("▁", "Ġ")  # the pieces that SentencePiece and byte-level BPE write for a blank

# To one question, as `LumbarCLIPProcessor.post_process_zero_shot` returns it; a classifier has no `prediction_set`.
Answer = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """A checkpoint in evaluation mode, ready to read slices.

    `prompt_embeds`, (prompts, D), embed the prompts of the calibration, in their order. `scope` is what the checkpoint
    was trained on, as its configuration says, or the run beside it.
    """

    model: LumbarCLIPModel
    processor: LumbarCLIPProcessor
    calibration: ZeroShotCalibration | None
    prompt_embeds: Tensor
    scope: dict[str, Any] | None = None

    @property
    def image_processor(self) -> Any:
        """The part of the processor that prepares slices."""
        return self.processor.image_processor

    @property
    def anatomy(self) -> str | None:
        """What the images show that it was trained on."""
        return (self.scope or {}).get("anatomy") or self.processor.anatomy

    @property
    def questions(self) -> list[Question]:
        """What it was calibrated for."""
        asked = self.calibration.questions if self.calibration else []
        return [Question(question.label, question.choices) for question in asked]


AnyReader = Reader | ClassifierReader


@dataclass(frozen=True, kw_only=True)
class OwnAnswer:
    """How much more a slice is like the statements of a finding than like its denials."""

    finding: str
    probability: float  # softmax over the two; not calibrated: 0.9 does not mean nine of ten
    statements: list[str]
    denials: list[str]
    unknown_words: list[str]  # of the finding, to the model


@dataclass(frozen=True, kw_only=True)
class StudyAnswer:
    """Answers for each slice of a patient by question, and by question the mean probability of each choice.

    The calibration, made for single slices, promises nothing for the mean.
    """

    of_slices: list[list[Answer]]
    pooled: list[dict[str, float]]


def open_reader(name: str, revision: str | None = None) -> AnyReader:
    """Load a pretrained checkpoint or a fine-tuned classifier from a folder or the Hub.

    Raises:
        ValueError: If there is no checkpoint, or a file of it is damaged.
    """
    folder = find_checkpoint(name, revision)
    config = read_config(folder)
    scope = getattr(config, "scope", None) or scope_of_run(folder.resolve().parent)
    if config.is_classifier:
        parts = load_parts(folder, LumbarCLIPForImageClassification, LumbarCLIPImageProcessor)
        return ClassifierReader(*parts, scope=scope)
    return make_reader(*load_checkpoint(name, revision), scope)


def scope_of_run(folder: Path) -> dict[str, Any] | None:
    """Read what a run was trained on from its `run.json`; None if the folder is none of a run, or does not say."""
    try:
        data = read_run(folder)["data"]
        return {
            "planes": list(data["planes"]),
            "sequences": list(data["sequences"]),
            "anatomy": data.get("anatomy") or (LUMBAR_SPINE if data["synthetic"] else None),
            "is_synthetic": data["synthetic"],
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it only helps to choose examples
        return None


def make_reader(model: LumbarCLIPModel, processor: LumbarCLIPProcessor, scope: dict[str, Any] | None = None) -> Reader:
    """Prepare a model that compares images with texts for reading; `scope` is what it was trained on, if known."""
    stored = model.config.calibration
    calibration = None if stored is None else ZeroShotCalibration.from_dict(stored)
    texts = [] if calibration is None else prompt_texts(calibration)
    embeds = embed_texts(model, processor, texts) if texts else torch.zeros(0)
    return Reader(model, processor, calibration, embeds, scope or getattr(model.config, "scope", None))


@torch.no_grad()
def embed_texts(model: LumbarCLIPModel, processor: LumbarCLIPProcessor, texts: list[str]) -> Tensor:
    """Embed sentences, to unit length. Shape (texts, D)."""
    inputs = processor(text=texts, return_tensors="pt").to(model.device)
    return model.get_text_features(**inputs).pooler_output


def seen_slice(reader: AnyReader, image: Image.Image) -> Image.Image:
    """Pad and resize a grey slice as the processor does, to hold it without its full size (mode `L`)."""
    seen = reader.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
    return Image.fromarray(seen["pixel_values"][0, 0].to(torch.uint8).numpy())


@torch.no_grad()
def embed_slices(reader: AnyReader, slices: Sequence[Slice]) -> tuple[Tensor, list[str | None]]:
    """Embed slices to unit length, (B, D), and say which are outside the scope of the checkpoint, and why.

    A classifier gives its logits, (B, K), in place of embeddings.
    """
    embeds: list[Tensor] = []
    outside: list[str | None] = []
    for start in range(0, len(slices), BATCH_SIZE):
        batch = slices[start : start + BATCH_SIZE]
        pixels = pixel_values(reader, [slice_.seen for slice_ in batch])
        if isinstance(reader, ClassifierReader):
            of_batch, features = reader.logits(pixels)
        else:
            output = reader.model(pixel_values=pixels)
            of_batch, features = output.image_embeds, output.image_features
        embeds.append(of_batch)
        outside += reader.model.scope_reasons(features, [slice_.header for slice_ in batch])
    return torch.cat(embeds), outside


def pixel_values(reader: AnyReader, images: list[Image.Image]) -> Tensor:
    """Prepare slices as `seen_slice` returns them for the model. Shape (B, 3, H, W)."""
    done = {"do_window_eight_bit": False, "do_pad_to_square": False, "do_resize": False}
    prepared = reader.image_processor(images, return_tensors="pt", **done)
    return prepared["pixel_values"].to(reader.model.device)


def calibrated_answers(
    reader: AnyReader, image_embeds: Tensor, outside: Sequence[str | None] | None = None
) -> list[list[Answer]]:
    """Answer the checkpoint's own questions for each slice of `embed_slices`; one `outside` the scope only gets scores.

    Raises:
        ValueError: If it compares images with texts, and has no calibration.
    """
    of_slices = _answers(reader, image_embeds)
    return [
        answers
        if reason is None
        else [{**answer, "answer": None, "reason": joined_reasons(reason, answer["reason"])} for answer in answers]
        for answers, reason in zip(of_slices, outside or [None] * len(of_slices), strict=True)
    ]


def _answers(reader: AnyReader, image_embeds: Tensor) -> list[list[Answer]]:
    if isinstance(reader, ClassifierReader):
        return reader.answers(image_embeds)
    output = LumbarCLIPOutput(
        image_embeds=image_embeds,
        text_embeds=reader.prompt_embeds,
        inverse_temperature=reader.model.inverse_temperature.detach(),
    )
    return reader.processor.post_process_zero_shot(output, reader.model.config.calibration, model=reader.model)


def study_answer(reader: AnyReader, image_embeds: Tensor) -> StudyAnswer:
    """Answer for a patient: for each slice, and by the mean of their probabilities."""
    of_slices = calibrated_answers(reader, image_embeds)
    probabilities = np.array([[list(answer["probabilities"].values()) for answer in row] for row in of_slices])
    (means,) = mean_over_patients(probabilities, np.zeros(len(of_slices), dtype=int))
    choices = [list(answer["probabilities"]) for answer in of_slices[0]]
    pooled = [dict(zip(names, mean.tolist(), strict=True)) for names, mean in zip(choices, means, strict=True)]
    return StudyAnswer(of_slices=of_slices, pooled=pooled)


def own_finding(processor: LumbarCLIPProcessor, text: str) -> str:
    """Check a finding that a user wrote; return it without surrounding blanks and full stop.

    Raises:
        ValueError: If it is empty, too long, denies something, or the model knows no word of it.
    """
    finding = " ".join(text.split()).rstrip(". ")
    if not finding:
        raise ValueError("Write a finding in a few words, such as: disc protrusion.")
    if len(finding) > MAX_FINDING_LETTERS:
        raise ValueError(f"Name one finding in at most {MAX_FINDING_LETTERS} letters; yours has {len(finding)}.")
    if any(found.negated for found in report_findings(finding)):
        raise ValueError(
            f"“{finding}” denies a finding. Name the finding itself; the model compares it with its denial."
        )
    tokens = set().union(*_tokens(processor, finding).values())
    if not _in_other_words(processor, finding) and tokens <= {processor.tokenizer.unk_token_id}:
        raise ValueError(f"The model knows no word of “{finding}”. Use words of the reports that it learned from.")
    return finding


def unknown_words(processor: LumbarCLIPProcessor, finding: str) -> list[str]:
    """List the words of a finding that the tokenizer lacks or can only spell."""
    if _in_other_words(processor, finding):
        return []
    lost = processor.tokenizer.unk_token_id
    return [
        word
        for word, tokens in _tokens(processor, finding).items()
        if not tokens or lost in tokens or _is_spelled(word, len(tokens))
    ]


def _in_other_words(processor: LumbarCLIPProcessor, finding: str) -> bool:
    """Whether no sentence that states a finding contains its name, as for `LBP` and for `KL 2` of the knee."""
    return not any(finding.lower() in text.lower() for text in question_prompts(processor, finding)[0])


def _tokens(processor: LumbarCLIPProcessor, finding: str) -> dict[str, list[int]]:
    """Tokenize each word, without the blank before it."""
    tokenizer = processor.tokenizer
    return {
        word: tokenizer.convert_tokens_to_ids([piece for piece in tokenizer.tokenize(word) if piece not in BLANKS])
        for word in re.findall(r"\w+", finding)
    }


def _is_spelled(word: str, num_tokens: int) -> bool:
    """Whether a word was split into letters or bytes. A Chinese character is a word."""
    if not word.isalpha():
        return False
    is_chinese = all(unicodedata.name(letter, "").startswith("CJK ") for letter in word)
    return num_tokens > len(word) or (num_tokens == len(word) > 1 and not is_chinese)


def own_question(processor: LumbarCLIPProcessor, finding: str) -> CalibratedQuestion:
    """Make an uncalibrated question about a finding, absent or present, in the words of `question_prompts`."""
    stated, denied = question_prompts(processor, finding)
    prompts = [denied, stated]
    return CalibratedQuestion(finding, list(ABSENT_OR_PRESENT), prompts, 1.0, [1.0, 1.0])


def question_prompts(processor: LumbarCLIPProcessor, finding: str) -> tuple[list[str], list[str]]:
    """List the sentences that state a finding, and those that deny it.

    Those that the checkpoint keeps for a class of this name; else the unseen wordings of its bank, of which the
    checkpoint's own are, too. If a bank leaves out a word of the finding, or has no words for it: the templates.
    """
    if finding not in processor.class_prompts and finding not in processor.absent_class_prompts:
        with suppress(ValueError):  # a name that says nothing has no bank
            bank = statement_bank(finding, processor.anatomy)
            if _words(finding) <= _words(" ".join(bank.stated.unseen)):
                return spread_wordings(bank.stated.unseen), spread_wordings(bank.denied.unseen)
    return processor.class_prompt_texts(finding), processor.absent_class_prompt_texts(finding)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def own_answer(reader: Reader, image_embeds: Tensor, finding: str) -> OwnAnswer:
    """Compare one slice, (1, D), with the sentences that state and deny a finding of `own_finding`."""
    asked = ZeroShotCalibration([own_question(reader.processor, finding)], target_coverage=0.5, fitted_on={})
    embeds = embed_texts(reader.model, reader.processor, prompt_texts(asked))
    logits = zero_shot_logits(image_embeds, embeds, reader.model.inverse_temperature.detach(), asked)
    probabilities = calibrated_probabilities(logits.cpu().double(), asked)
    denials, statements = asked.questions[0].prompts
    return OwnAnswer(
        finding=finding,
        probability=float(probabilities[0, 0, 1]),
        statements=statements,
        denials=denials,
        unknown_words=unknown_words(reader.processor, finding),
    )
