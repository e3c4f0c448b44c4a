"""Ask a fine-tuned classifier about slices: its classes, by its head and with its temperatures.

Shapes: B slices, K classes.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPForImageClassification
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from train.evaluation.questions import ABSENT_OR_PRESENT

EXCLUSIVE = "single_label_classification"


@dataclass(frozen=True)
class Question:
    """What is asked of a slice: which of exclusive classes it shows, or whether it shows a finding, the `label`."""

    label: str | None
    choices: list[str]


@dataclass(frozen=True)
class ClassifierReader:
    """A classifier in evaluation mode, ready to read slices."""

    model: LumbarCLIPForImageClassification
    image_processor: Any  # a LumbarCLIPImageProcessor
    scope: dict[str, Any] | None = None  # as of `Reader`
    calibration = None  # of prediction sets, which a classifier does not carry

    @property
    def anatomy(self) -> str | None:
        """What its training images show, if it is known."""
        return (self.scope or {}).get("anatomy")

    @property
    def classes(self) -> list[str]:
        """The names of the head's outputs, in their order."""
        names = cast(dict[int, str], self.model.config.id2label)
        return [names[index] for index in sorted(names)]

    @property
    def questions(self) -> list[Question]:
        """The classes as one question, or each finding as one."""
        if self.model.config.problem_type == EXCLUSIVE:
            return [Question(None, self.classes)]
        return [Question(name, list(ABSENT_OR_PRESENT)) for name in self.classes]

    @torch.no_grad()
    def logits(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Classify slices, shape (B, 3, H, W).

        Returns:
            Logits (B, K), divided by the temperatures if they hold for these weights, and features z_I (B, d_I).
        """
        output = self.model(pixel_values=pixel_values)
        return output.logits.float(), output.image_features

    def answers(self, logits: Tensor) -> list[list[dict[str, Any]]]:
        """Turn logits, (B, K), into the answers to each question: the likelier choice, or none with the `reason`."""
        questions, problem = self.questions, calibration_problem(self.model)
        if questions[0].label is None:
            probabilities = logits.softmax(dim=-1)[:, None]  # (B, 1, K)
        else:
            present = logits.sigmoid()
            probabilities = torch.stack([1 - present, present], dim=-1)  # (B, K, 2)
        return [
            [
                {
                    "label": question.label,
                    "probabilities": dict(zip(question.choices, shares, strict=True)),
                    "answer": None if problem else question.choices[shares.index(max(shares))],
                    "reason": problem,
                }
                for question, shares in zip(questions, of_slice, strict=True)
            ]
            for of_slice in probabilities.cpu().double().tolist()
        ]
