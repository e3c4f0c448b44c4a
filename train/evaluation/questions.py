"""Labels as questions, so that both kinds are calibrated by the same code; and what their prompts ask about.

Exclusive classes are one question, whose choices are the classes: Q = 1, C = K. Each finding is a question of its own
with the choices absent and present: Q = K, C = 2.

Shapes: N rows, K labels, Q questions, C choices.
"""

import logging
from copy import copy

import numpy as np

from modeling_lumbarclip import LumbarCLIPProcessor
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

logger = logging.getLogger(__name__)

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


def asked_about(processor: LumbarCLIPProcessor, anatomy: str | None) -> LumbarCLIPProcessor:
    """Return a processor with the default prompts of an anatomy in place of those of another.

    Prompts that are not defaults are kept. If the anatomy is not known, or the processor's own, nothing changes.
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
    for prompts in ("class_prompts", "absent_class_prompts"):
        defaults = getattr(before, prompts)
        own = {label: texts for label, texts in getattr(processor, prompts).items() if texts != defaults.get(label)}
        setattr(changed, prompts, getattr(now, prompts) | own)
    return changed
