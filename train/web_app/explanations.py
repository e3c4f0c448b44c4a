"""Map where in a slice the model sees an answer: a picture of the model, not evidence of a finding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion
from modeling_lumbarclip.explanation_lumbarclip import contrast, grad_cam, text_to_patch_similarity
from train.evaluation.protocols.zero_shot import prompt_ensemble
from train.web_app.answers import AnyReader, Reader, embed_texts, own_question, pixel_values
from train.web_app.uploads import Slice

METHODS: dict[str, Callable[..., Tensor]] = {
    # The first beat a randomised model in tests/benchmarks/results/explanation.json; the next is used if it is blank.
    "Grad-CAM": grad_cam,
    "Text-to-patch similarity": text_to_patch_similarity,
}
NO_MAP = "None"
COLOURS = "magma"
LEGEND_WIDTH = 96  # pixels
MAX_MAP_SIDE = 512  # pixels; a map is smooth, and the browser stretches it over the slice


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a map can explain: a choice of a question, by index, against the others."""

    name: str
    question: CalibratedQuestion
    choice: int


def subjects(reader: AnyReader, finding: str = "") -> list[Subject]:
    """List what can be explained: the user's own finding, if any, choices of exclusive classes, and findings.

    Maps compare texts, so nothing of a classifier.
    """
    if not isinstance(reader, Reader):
        return []
    listed = [Subject(name=finding, question=own_question(reader.processor, finding), choice=1)] if finding else []
    for question in reader.calibration.questions if reader.calibration else []:
        if question.label is None:
            listed += [Subject(name=choice, question=question, choice=i) for i, choice in enumerate(question.choices)]
        elif question.label != finding:
            listed.append(Subject(name=question.label, question=question, choice=1))
    return listed


def explanation_map(reader: Reader, slice_: Slice, subject: Subject, method: str) -> np.ndarray:
    """Map where the slice looks like a choice rather than like the others of its question, by one of `METHODS`.

    Returns:
        Over the slice, scaled down to at most 512 pixels a side. Shape (height, width), float32; in [-1, 1] for
        similarities, at least 0 for Grad-CAM.
    """
    ensembles = [
        torch.from_numpy(prompt_ensemble(embed_texts(reader.model, reader.processor, texts).cpu().numpy()))
        for texts in subject.question.prompts
    ]
    stated = ensembles.pop(subject.choice)
    direction = contrast(stated[None], torch.stack(ensembles).mean(dim=0, keepdim=True)).float()
    model = reader.model
    maps = METHODS[method](
        model.vision_model, model.image_projection, pixel_values(reader, [slice_.seen]), direction.to(model.device)
    )
    scale = min(1.0, MAX_MAP_SIDE / max(slice_.image.size))
    height, width = (max(1, round(side * scale)) for side in (slice_.image.height, slice_.image.width))
    return reader.processor.image_processor.unpad_maps(maps.cpu(), (height, width))[0, 0].numpy()


def heat_picture(values: np.ndarray) -> Image.Image | None:
    """Colour a map, (height, width), more opaque where higher; None if it is constant or nowhere above 0.

    Values below 0 speak for the other choice, and stay transparent. The scale is that of this map, from its lowest
    non-negative value to its highest. Mode `RGBA`.
    """
    low, high = max(float(values.min()), 0.0), float(values.max())
    if not high > low:
        return None
    shares = ((values - low) / (high - low)).clip(min=0)
    coloured = colormaps[COLOURS](
        0.3 + 0.65 * shares
    )  # without its black end, which would hide the slice, and its white one
    coloured[..., 3] = np.sqrt(shares)  # soon opaque, so that tissue does not take the colour away
    return Image.fromarray(np.round(coloured * 255).astype(np.uint8))


def legend_picture() -> Image.Image:
    """Draw the colours of `heat_picture`, from the lowest value at the left to the highest. Mode `RGBA`."""
    legend = heat_picture(np.linspace(0, 1, LEGEND_WIDTH)[None])
    assert legend is not None, "a ramp is not constant"
    return legend
