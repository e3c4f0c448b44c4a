"""Calibrated zero-shot answers: from the embeddings of images and prompts to probabilities, sets and abstention.

The checkpoint stores the numbers (`LumbarCLIPConfig.calibration`): for each question, a temperature and the thresholds
of its prediction sets, fitted on patients that the model was not trained on. They are valid for the stored prompts and
for patients like those they were fitted on.

Shapes: B images, U texts, D width of the shared space, Q questions, C choices.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration


def prompt_texts(calibration: ZeroShotCalibration) -> list[str]:
    """List the sentences of all questions and choices, in the order that `zero_shot_logits` expects."""
    return [text for question in calibration.questions for texts in question.prompts for text in texts]


def zero_shot_logits(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, calibration: ZeroShotCalibration
) -> Tensor:
    """Compare images with the choices of each question.

    Embeddings have unit length; those of texts (U, D) belong to `prompt_texts`.

    Returns:
        Similarities to the mean prompt of each choice, times 1/τ; not calibrated yet. Shape (B, Q, C), float32.

    Raises:
        ValueError: If there is not one embedding for each prompt.

    Source:
        CLIP, Radford et al. 2021, section 3.1.4: ensembles are built over embeddings.
    """
    sizes = [len(texts) for question in calibration.questions for texts in question.prompts]
    if len(text_embeds) != sum(sizes):
        raise ValueError(
            f"The calibration has {sum(sizes)} prompts and there are {len(text_embeds)} text embeddings; encode "
            "all texts of `processor.zero_shot_texts(model.config.calibration)`, in their order."
        )
    ensembles = torch.stack([embeds.mean(dim=0) for embeds in text_embeds.float().split(sizes)])  # (Q C, D)
    similarities = image_embeds.float() @ F.normalize(ensembles, dim=-1).T
    return (inverse_temperature * similarities).unflatten(1, (len(calibration.questions), -1))


def calibrated_probabilities(logits: Tensor, calibration: ZeroShotCalibration) -> Tensor:
    """Divide `zero_shot_logits` (B, Q, C) by the temperature of their question, and take the softmax over its choices.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    temperatures = logits.new_tensor([question.temperature for question in calibration.questions])
    return (logits / temperatures[:, None]).softmax(dim=-1)


def prediction_sets(probabilities: Tensor, calibration: ZeroShotCalibration) -> Tensor:
    """Mark the choices that cannot be ruled out, from `calibrated_probabilities` (B, Q, C).

    Each true choice is in the set with probability `calibration.target_coverage` or more, on a random image of a new
    patient like those of the calibration. A set without exactly one choice gives no answer.

    Returns:
        Whether the set contains the choice. Shape (B, Q, C), bool.

    Source:
        Angelopoulos & Bates, A Gentle Introduction to Conformal Prediction, 2021, sections 1 and 4.2.
    """
    thresholds = probabilities.new_tensor([question.score_thresholds for question in calibration.questions])
    return 1 - probabilities <= thresholds


def readable_answers(
    probabilities: Tensor, sets: Tensor, calibration: ZeroShotCalibration
) -> list[list[dict[str, Any]]]:
    """Turn `calibrated_probabilities` and `prediction_sets`, both (B, Q, C), into answers.

    Returns:
        For each image and question: `label`, the finding, or None where the choices are exclusive classes;
        `probabilities` by choice; `prediction_set`, the choices that remain; `answer`, the only one that remains, or
        None where the model abstains.
    """

    def readable(question: CalibratedQuestion, probabilities: list[float], held: list[bool]) -> dict[str, Any]:
        remaining = [choice for choice, is_held in zip(question.choices, held, strict=True) if is_held]
        return {
            "label": question.label,
            "probabilities": dict(zip(question.choices, probabilities, strict=True)),
            "prediction_set": remaining,
            "answer": remaining[0] if len(remaining) == 1 else None,
        }

    return [
        [readable(*of_question) for of_question in zip(calibration.questions, *of_image, strict=True)]
        for of_image in zip(probabilities.tolist(), sets.tolist(), strict=True)
    ]
