"""Labels as questions: one question for exclusive classes, a question for each finding otherwise.

Both kinds of labels are then calibrated by the same code.

Shapes: N rows, K labels, Q questions, C choices. Exclusive classes: Q = 1, C = K. Findings: Q = K, C = 2, the choices
absent and present.
"""

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

ABSENT_OR_PRESENT = ("absent", "present")


def as_questions(probabilities: Array, targets: Targets) -> Floats:
    """Arrange probabilities of labels, shape (N, K), as questions and their choices, shape (N, Q, C)."""
    if targets.exclusive:
        return np.asarray(probabilities, dtype=np.float64)[:, None, :]
    present = np.asarray(probabilities, dtype=np.float64)
    return np.stack([1 - present, present], axis=2)


def logits_as_questions(logits: Array, targets: Targets) -> Floats:
    """Arrange logits of labels as logits of questions, whose softmax over the choices gives the probabilities.

    Args:
        logits: Of exclusive classes, those of a softmax; of a finding, its log-odds. Shape (N, K).
        targets: What the labels are.

    Returns:
        Shape (N, Q, C). The logit of absence is 0.
    """
    of_labels = np.asarray(logits, dtype=np.float64)
    return of_labels[:, None, :] if targets.exclusive else np.stack([np.zeros_like(of_labels), of_labels], axis=2)


def as_label_logits(by_question: Array, targets: Targets) -> Array:
    """Arrange logits of questions, shape (N, Q, C), as logits of labels: `logits_as_questions` undone. Shape (N, K)."""
    return by_question[:, 0] if targets.exclusive else by_question[..., 1] - by_question[..., 0]


def as_label_probabilities(by_question: Array, targets: Targets) -> Array:
    """Arrange probabilities of questions, shape (N, Q, C), as probabilities of labels again. Shape (N, K)."""
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


def counted_questions(targets: Targets) -> list[int]:
    """Questions that macro means count: all but whether there is `No Finding`, the absence of the others."""
    return [0] if targets.exclusive else targets.findings


def learned_questions(by_question: Array) -> Array:
    """Whether each question has probabilities, or logits: a label that was not learned is NaN. Shape (Q,), bool."""
    return np.array([not np.isnan(of_question).any() for of_question in by_question.swapaxes(0, 1)])
