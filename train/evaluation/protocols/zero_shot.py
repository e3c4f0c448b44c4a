"""Zero-shot classification: similarity of an image to sentences that state a class, no training on the task.

Each class is asked for with several sentences, and their mean embedding is its classifier. On the five folds of the
SPIDER discs (demo-sized towers) that gave a macro AUROC of 0.76; a single sentence 0.63 to 0.73, the nearest sentence
of each class in place of the mean 0.72, and sentences that name the level of the row ("... at L4/L5.") 0.65.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import softmax

from modeling_lumbarclip import LumbarCLIPProcessor
from train.evaluation.label_metrics import exclusive_class_estimates, finding_estimates
from train.evaluation.statistics.bootstrap import Estimate, Resampling
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


def prompt_ensemble(prompt_embeds: Array) -> Array:
    """Average the unit-length embeddings of several wordings of one statement, and renormalise.

    Args:
        prompt_embeds: Shape (prompts, D), any length of the rows.

    Returns:
        Shape (D,), unit length.

    Raises:
        ValueError: If the embeddings cancel out or there is none.

    Source:
        CLIP, Radford et al. 2021, section 3.1.4: ensembles are built over embeddings.

    Example:
        >>> prompt_ensemble(np.array([[1.0, 0.0], [0.0, 2.0]])).round(3).tolist()
        [0.707, 0.707]
    """
    if not len(prompt_embeds):
        raise ValueError("A class has no prompt; give the processor at least one for each label.")
    mean = (prompt_embeds / np.linalg.norm(prompt_embeds, axis=1, keepdims=True)).mean(0)
    length = np.linalg.norm(mean)
    if not length > 0:
        raise ValueError("The prompt embeddings of a class cancel out or are not finite; the text tower may be broken.")
    return mean / length


def first_prompts(prompt_embeds: Mapping[str, Array]) -> dict[str, Array]:
    """Keep one wording of each statement, for a comparison with the ensemble.

    Args:
        prompt_embeds: By label, embeddings of its prompts. Shape (prompts, D).

    Returns:
        By label. Shape (1, D).
    """
    return {name: embeds[:1] for name, embeds in prompt_embeds.items()}


def prompts_asked(processor: LumbarCLIPProcessor, targets: Targets) -> dict[str, dict[str, list[str]]]:
    """List the sentences that `zero_shot` rests on, for the record.

    Args:
        processor: Holds the prompts.
        targets: Names the labels. Exclusive ones compete with each other, so none is denied.

    Returns:
        By label, the sentences that state it (`present`), and those that deny it (`absent`) where they are used.
    """
    asked = {name: {"present": processor.class_prompt_texts(name)} for name in targets.label_names}
    if not targets.exclusive:
        for name, prompts in asked.items():
            prompts["absent"] = processor.absent_class_prompt_texts(name)
    return asked


def zero_shot_probabilities(image_embeds: Array, class_embeds: Array, inverse_temperature: float) -> Array:
    """Softmax of the scaled cosine similarities to the classes.

    Args:
        image_embeds: Unit length. Shape (N, D).
        class_embeds: One ensemble a class, unit length. Shape (K, D).
        inverse_temperature: Factor on the cosine similarities, as learned.

    Returns:
        Shape (N, K), rows sum to 1.
    """
    return softmax(inverse_temperature * image_embeds @ class_embeds.T, axis=1)


def zero_shot_scores(image_embeds: Array, present_embeds: Array, absent_embeds: Array) -> Array:
    """Similarity to the statements that a finding is present, less that to the statements that it is absent.

    Args:
        image_embeds: Unit length. Shape (N, D).
        present_embeds: One ensemble a label. Shape (K, D).
        absent_embeds: One ensemble a label. Shape (K, D).

    Returns:
        Shape (N, K), in [-2, 2]. The softmax over the two statements is a rising function of it, so ranks are the
        same.
    """
    return image_embeds @ (present_embeds - absent_embeds).T


def zero_shot(
    image_embeds: Array,
    present_embeds: Mapping[str, Array],
    absent_embeds: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
    resampling: Resampling,
) -> tuple[dict[str, Estimate], Array]:
    """Classify the images of a split by prompts alone.

    Args:
        image_embeds: Unit length. Shape (N, D).
        present_embeds: By label, embeddings of its prompts. Shape (prompts, D).
        absent_embeds: By label, embeddings of the prompts that deny it. Used for labels that are not exclusive.
        inverse_temperature: As learned; it moves the calibration, not the answers.
        targets: The truth.
        resampling: How intervals are drawn.

    Returns:
        The figures, and probabilities (exclusive classes) or scores (findings), shape (N, K).
    """
    names = targets.label_names
    present = np.stack([prompt_ensemble(present_embeds[name]) for name in names])
    if targets.exclusive:
        probabilities = zero_shot_probabilities(image_embeds, present, inverse_temperature)
        return exclusive_class_estimates(targets, probabilities, resampling), probabilities
    absent = np.stack([prompt_ensemble(absent_embeds[name]) for name in names])
    scores = zero_shot_scores(image_embeds, present, absent)
    return finding_estimates(targets, scores, scores > 0, resampling), scores
