"""Zero-shot classification: similarity of an image to sentences that state a class, no training on the task.

The mean embedding of several sentences is the classifier of a class. On the five folds of the SPIDER discs (demo-sized
towers, the paper's loss alone) that gave a macro AUROC of 0.76; a single sentence 0.63 to 0.73, the nearest sentence of
each class instead of the mean 0.72, and sentences that name the level of the row ("... at L4/L5.") 0.65.

Shapes: N rows, K labels, D width of the shared space. Prompts are embeddings by label, shape (prompts, D); `stated`
ones state the label, `denied` ones deny it and are used for findings only.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit, softmax

from modeling_lumbarclip import LumbarCLIPProcessor
from train.evaluation.label_metrics import label_measures
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


def prompt_ensemble(prompt_embeds: Array) -> Array:
    """Average the embeddings of several wordings of one statement, shape (prompts, D), to unit length, shape (D,).

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


def prompts_asked(processor: LumbarCLIPProcessor, targets: Targets) -> dict[str, dict[str, list[str]]]:
    """List the sentences that zero-shot classification uses, for the record.

    Returns:
        By label, the sentences that state it (`present`), and for findings those that deny it (`absent`); exclusive
        classes compete with each other, so none is denied.
    """
    asked = {name: {"present": processor.class_prompt_texts(name)} for name in targets.label_names}
    if not targets.exclusive:
        for name, prompts in asked.items():
            prompts["absent"] = processor.absent_class_prompt_texts(name)
    return asked


def zero_shot_logits(
    image_embeds: Array,
    stated: Mapping[str, Array],
    denied: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
) -> Array:
    """Compare images, unit-length embeddings of shape (N, D), with prompts.

    Returns:
        Logits of a softmax for exclusive classes, log-odds for findings. Shape (N, K).
    """
    if targets.exclusive:
        return inverse_temperature * image_embeds @ _ensembles(stated, targets).T
    return inverse_temperature * zero_shot_margins(image_embeds, stated, denied, targets)


def zero_shot_margins(
    image_embeds: Array, stated: Mapping[str, Array], denied: Mapping[str, Array], targets: Targets
) -> Array:
    """Similarity to the statements that a finding is present, less that to the statements that it is absent.

    The softmax over the two statements is a rising function of it, so ranks are the same. Shape (N, K), in [-2, 2].
    """
    return image_embeds @ (_ensembles(stated, targets) - _ensembles(denied, targets)).T


def zero_shot_predictions(
    image_embeds: Array,
    stated: Mapping[str, Array],
    denied: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
) -> dict[str, Array]:
    """Predict the labels of images from all prompts together.

    Returns:
        `zero_shot`, probabilities, and `zero_shot_margins` of findings. Shape (N, K) each.
    """
    logits = zero_shot_logits(image_embeds, stated, denied, inverse_temperature, targets)
    if targets.exclusive:
        return {"zero_shot": softmax(logits, axis=1)}
    margins = zero_shot_margins(image_embeds, stated, denied, targets)
    return {"zero_shot": expit(logits), "zero_shot_margins": margins}


def first_prompt_predictions(
    image_embeds: Array,
    stated: Mapping[str, Array],
    denied: Mapping[str, Array],
    inverse_temperature: float,
    targets: Targets,
) -> dict[str, Array]:
    """Predict the labels of images from the first prompt of each statement.

    Returns:
        `zero_shot_first`, probabilities of exclusive classes, or `zero_shot_first_margins` of findings. Shape (N, K).
    """
    first_stated, first_denied = ({name: of[:1] for name, of in prompts.items()} for prompts in (stated, denied))
    predicted = zero_shot_predictions(image_embeds, first_stated, first_denied, inverse_temperature, targets)
    name = "" if targets.exclusive else "_margins"
    return {f"zero_shot_first{name}": predicted[f"zero_shot{name}"]}


def zero_shot_measures(predictions: Mapping[str, Array], targets: Targets, which: str) -> dict[str, Measure]:
    """Collect `label_measures` of `zero_shot`, or `zero_shot_first` for the first prompt; margins rank findings."""
    if targets.exclusive:
        return label_measures(targets, predictions[which])
    margins = predictions[f"{which}_margins"]
    return label_measures(targets, margins, said=margins > 0)


def _ensembles(prompts: Mapping[str, Array], targets: Targets) -> Array:
    return np.stack([prompt_ensemble(prompts[name]) for name in targets.label_names])
