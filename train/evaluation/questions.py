"""Labels as questions, so that both kinds are calibrated by the same code; and the prompts that ask them.

Exclusive classes are one question, whose choices are the classes: Q = 1, C = K. Each finding is a question of its own
with the choices absent and present: Q = K, C = 2.

Shapes: N rows, K labels, Q questions, C choices.
"""

import logging
from collections.abc import Collection, Sequence
from copy import copy
from math import gcd
from typing import TypeAlias

import numpy as np

from modeling_lumbarclip import LumbarCLIPProcessor
from train.data.statement_banks import statement_bank
from train.evaluation.statistics.bootstrap import warn_once
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

logger = logging.getLogger(__name__)

Prompts: TypeAlias = dict[str, list[str]]  # sentences by class

NUM_WORDINGS = 10  # of a statement, and of a denial
PROMPTS = ("class_prompts", "absent_class_prompts")  # of a processor
ABSENT_OR_PRESENT = ("absent", "present")


def as_questions(probabilities: Array, targets: Targets) -> Floats:
    """Arrange probabilities of labels, shape (N, K), as questions and their choices, shape (N, Q, C)."""
    present = np.asarray(probabilities, dtype=np.float64)
    return present[:, None, :] if targets.exclusive else np.stack([1 - present, present], axis=2)


def logits_as_questions(logits: Array, targets: Targets) -> Floats:
    """Arrange logits of labels, shape (N, K), as logits of questions, shape (N, Q, C), for a softmax over choices.

    The logits are those of a softmax for exclusive classes, log-odds for a finding; the logit of absence is 0.
    """
    of_labels = np.asarray(logits, dtype=np.float64)
    return of_labels[:, None, :] if targets.exclusive else np.stack([np.zeros_like(of_labels), of_labels], axis=2)


def as_label_logits(by_question: Array, targets: Targets) -> Array:
    """Undo `logits_as_questions`: from shape (N, Q, C) to (N, K)."""
    return by_question[:, 0] if targets.exclusive else by_question[..., 1] - by_question[..., 0]


def as_label_probabilities(by_question: Array, targets: Targets) -> Array:
    """Undo `as_questions`: from shape (N, Q, C) to (N, K)."""
    return by_question[:, 0] if targets.exclusive else by_question[..., 1]


def true_choices(targets: Targets) -> Array:
    """The true choice of each row and question. Shape (N, Q), integer."""
    return targets.classes[:, None] if targets.exclusive else targets.labels.astype(int)


def choice_names(targets: Targets) -> tuple[str, ...]:
    """Names of the C choices."""
    return targets.label_names if targets.exclusive else ABSENT_OR_PRESENT


def question_names(targets: Targets) -> tuple[str, ...]:
    """Names of the Q questions."""
    return ("classes",) if targets.exclusive else targets.label_names


def learned_questions(by_question: Array) -> Array:
    """Tell whether each question has probabilities, or logits: one that was not learned is NaN. Shape (Q,), bool."""
    return np.array([not np.isnan(of_question).any() for of_question in by_question.swapaxes(0, 1)])


def counted_questions(probabilities: Array, targets: Targets) -> list[int]:
    """Learned questions that macro means count: not `No Finding`, the absence of the others. Takes shape (N, K)."""
    learned = learned_questions(as_questions(probabilities, targets))
    return [question for question in ([0] if targets.exclusive else targets.findings) if learned[question]]


def bank_prompts(label_names: Sequence[str], anatomy: str | None) -> tuple[Prompts, Prompts]:
    """List ten unseen wordings that state each class, and ten that deny it: zero-shot asks, and is measured, by them.

    The ten are spread over the templates and words of the bank. A class without a bank, since its name says nothing, is
    left out, with a warning.

    Example:
        >>> stated, denied = bank_prompts(["disc bulge"], "lumbar spine")
        >>> len(stated["disc bulge"]), stated["disc bulge"][0], denied["disc bulge"][0]
        (10, 'Disc bulge present.', 'No disc bulge present.')
    """
    stated, denied = {}, {}
    for name in label_names:
        try:
            bank = statement_bank(name, anatomy, label_names)
        except ValueError as error:
            warn_once(logger, f"{error} Or give its prompts: class_prompts and absent_class_prompts.")
            continue
        stated[name], denied[name] = (spread_wordings(of.unseen) for of in (bank.stated, bank.denied))
    return stated, denied


def unseen_wordings(processor: LumbarCLIPProcessor, label_names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """List, by class, the sentences of `bank_prompts` that state it (`present`) and that deny it (`absent`).

    Those of what the processor's images show; of a class without a bank, its prompts.
    """
    stated, denied = bank_prompts(label_names, processor.anatomy)
    return {
        name: {
            "present": stated.get(name) or processor.class_prompt_texts(name),
            "absent": denied.get(name) or processor.absent_class_prompt_texts(name),
        }
        for name in label_names
    }


def spread_wordings(wordings: Sequence[str]) -> list[str]:
    """Choose `NUM_WORDINGS` of a bank's wordings, or all of fewer: they come template by template, and word by word.

    A stride near the golden section meets both evenly, which equal steps may not.

    Example:
        >>> spread_wordings([template + word for template in "ABCDE" for word in "123"])
        ['A1', 'D3', 'C2', 'B1', 'E3', 'D2', 'C1', 'A3', 'E2', 'D1']
    """
    number = len(wordings)
    stride = next(step for step in range(round(0.618 * number) or 1, 2 * number + 2) if gcd(step, number or 1) == 1)
    return [wordings[slot * stride % number] for slot in range(min(number, NUM_WORDINGS))]


def asked_about(
    processor: LumbarCLIPProcessor, anatomy: str | None, label_names: Sequence[str] = ()
) -> LumbarCLIPProcessor:
    """Return a processor with the default prompts of an anatomy in place of those of another.

    Prompts that are neither defaults nor wordings of the other anatomy's banks are kept. If the anatomy is not known,
    or the processor's own, nothing changes.

    Args:
        processor: Of a checkpoint.
        anatomy: What the images show.
        label_names: Classes to ask about by the wordings of the anatomy's banks, unless their prompts are kept.
    """
    if anatomy is None or anatomy == processor.anatomy:
        return processor
    logger.warning(
        "The images show the %s, and the prompts were those of the %s: classes are asked about the %s.",
        *(anatomy, processor.anatomy, anatomy),
    )
    parts = processor.image_processor, processor.tokenizer
    before, now = (LumbarCLIPProcessor(*parts, anatomy=named) for named in (processor.anatomy, anatomy))
    changed = copy(processor)
    changed.anatomy = anatomy
    for templates in ("prompt_templates", "absent_prompt_templates"):
        if getattr(processor, templates) == getattr(before, templates):
            setattr(changed, templates, getattr(now, templates))
    for prompts, of_banks in zip(PROMPTS, bank_prompts(label_names, anatomy), strict=True):
        setattr(changed, prompts, getattr(now, prompts) | of_banks | own_prompts(processor, prompts))
    return changed


def own_prompts(processor: LumbarCLIPProcessor, prompts: str) -> Prompts:
    """Pick the `class_prompts` or `absent_class_prompts` that a user wrote: no defaults, and no wordings of a bank."""
    parts = processor.image_processor, processor.tokenizer
    defaults, kept = (
        getattr(of, prompts) for of in (LumbarCLIPProcessor(*parts, anatomy=processor.anatomy), processor)
    )
    return {
        label: texts
        for label, texts in kept.items()
        if texts != defaults.get(label) and not {*texts} <= _wordings_of_bank(label, processor.anatomy, kept)
    }


def _wordings_of_bank(label: str, anatomy: str, classes: Collection[str]) -> set[str]:
    """Collect all wordings of the bank of a class, alone and among the others; empty without a bank."""
    try:
        banks = [statement_bank(label, anatomy, others) for others in ((), classes)]
    except ValueError:
        return set()
    return {text for bank in banks for half in (bank.stated, bank.denied) for text in (*half.trained, *half.unseen)}
