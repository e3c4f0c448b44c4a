"""Labels as questions, so that both kinds are calibrated by the same code.

Exclusive classes are one question, whose choices are the classes: Q = 1, C = K. Each finding is a question of its own
with the choices absent and present: Q = K, C = 2.

Shapes: N rows, K labels, Q questions, C choices.
"""

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

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
