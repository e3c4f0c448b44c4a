"""Draw where a model looks for each finding of a report whose structure has a mask.

Only findings that a report affirms are asked for: nobody can say where a denied finding should be seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from data_scripts.reports.text import DISC_LEVELS, labels_at_level, labels_from_report
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.explanation_lumbarclip import contrast, grad_cam, text_to_patch_similarity
from train.data.loaders import have_pseudo_masks
from train.evaluation.features import encode_texts
from train.evaluation.protocols.zero_shot import prompt_ensemble
from train.evaluation.statistics.metrics import Array

# Where a finding is seen, by the names of mask classes. Ligaments, roots and foramina have no mask.
DISC, CANAL, POSTERIOR = ("disc",), ("thecal sac", "spinal canal"), ("posterior element",)
STRUCTURES: dict[str, tuple[str, ...]] = {
    "disc bulge": DISC,
    "disc protrusion": DISC,
    "disc extrusion": DISC,
    "disc sequestration": DISC,
    "disc herniation": DISC,
    "annular tear": DISC,
    "disc dehydration": DISC,
    "disc space narrowing": DISC,
    "thecal sac compression": CANAL,
    "spinal canal stenosis": CANAL,
    "facet hypertrophy": POSTERIOR,
}
MapFunction: TypeAlias = Callable[[PreTrainedModel, nn.Module, Tensor, Tensor], Tensor]
MAP_FUNCTIONS: dict[str, MapFunction] = {"text to patch": text_to_patch_similarity, "Grad-CAM": grad_cam}
LESS_DENIAL = ", less its denial"
WAYS_TO_ASK = ("", LESS_DENIAL)  # endings of the names of methods
METHODS = tuple(name + ending for name in MAP_FUNCTIONS for ending in WAYS_TO_ASK)

Maps: TypeAlias = dict[str, list[Tensor]]  # by method, the map of each finding, (h, w)


@dataclass(frozen=True)
class MaskedFinding:
    """A finding that the report of a row affirms."""

    row: int  # of the split
    label: str  # the finding
    mask_index: int  # the class of the row's mask that the map should fall on


def masked_findings(rows: Dataset, mask_names: Sequence[str]) -> list[MaskedFinding]:
    """List the findings whose structure the mask of their row shows, in the order of the rows.

    Counts a report's findings at the level of its row, or all of them if the row has no level. On a sagittal slice the
    mask "disc" covers all discs, so a map at the wrong level goes unnoticed.

    Args:
        rows: With the columns `report`, `level` and `mask`. Masks that a program computed are left out.
        mask_names: Names of the mask classes, background first.

    Raises:
        ValueError: If there is no such finding, or no class is a structure that findings are seen in.
    """
    structures = {name for names in STRUCTURES.values() for name in names}
    if structures.isdisjoint(mask_names):
        raise ValueError(
            f"None of the mask classes, {', '.join(mask_names)}, is a structure that findings are seen in: "
            f"{', '.join(sorted(structures))}. Name the classes in their order with --mask_names."
        )
    findings = []
    level_name, is_pseudo = rows.features["level"].int2str, have_pseudo_masks(rows)
    for index, row in enumerate(rows.select_columns(["report", "level", "mask"])):
        if row["mask"] is None or is_pseudo[index]:
            continue
        level, classes, report = level_name(row["level"]), set(np.unique(row["mask"]).tolist()), row["report"]
        labels = labels_at_level(report, level) if level in DISC_LEVELS else labels_from_report(report)
        for label in labels:
            shown = [mask_names.index(name) for name in STRUCTURES.get(label, ()) if name in mask_names]
            findings += [MaskedFinding(index, label, mask_index) for mask_index in shown if mask_index in classes][:1]
    if not findings:
        raise ValueError(
            "No report affirms a finding whose structure a mask shows, so there is nothing to compare maps with. Use "
            "data with masks, such as the synthetic set or LSMA-PQR, or name masks in the column `mask` of your folder."
        )
    return findings


def finding_maps(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    *,
    batch_size: int,
    description: str,
) -> Maps:
    """Draw the maps of every method for every finding of `rows`, each asked for with the mean of its prompts.

    The model must be in evaluation mode; it may be on any device.

    Returns:
        By method, the map of each finding over the input of the model.
    """
    labels = list(dict.fromkeys(finding.label for finding in findings))
    directions = text_directions(model, processor, labels)
    by_row: dict[int, list[int]] = {}
    for number, finding in enumerate(findings):
        by_row.setdefault(finding.row, []).append(number)
    maps: Maps = {method: [torch.empty(0)] * len(findings) for method in METHODS}
    images = rows.select_columns("image")
    asked = list(by_row)
    for start in tqdm(range(0, len(asked), batch_size), desc=description, unit=" batches"):
        batch = asked[start : start + batch_size]
        pixels = processor(images=[images[row]["image"] for row in batch], return_tensors="pt").pixel_values
        pixels = pixels.to(model.device, model.dtype)
        for name, draw in MAP_FUNCTIONS.items():
            drawn = draw(model.vision_model, model.image_projection, pixels, directions.flatten(0, 1)).cpu()
            drawn = drawn.unflatten(1, directions.shape[:2])  # (images, ways to ask, labels, h, w)
            for place, row in enumerate(batch):
                for number in by_row[row]:
                    label = labels.index(findings[number].label)
                    for way, ending in enumerate(WAYS_TO_ASK):
                        maps[name + ending][number] = drawn[place, way, label]
    return maps


def text_directions(model: LumbarCLIPModel, processor: LumbarCLIPProcessor, labels: Sequence[str]) -> Tensor:
    """Embed labels as directions: the mean of their prompts, and its contrast with the prompts that deny them.

    Returns:
        In the order of `WAYS_TO_ASK`. Shape (2, labels, D).
    """

    def ensemble(prompts: list[str]) -> Array:
        return prompt_ensemble(encode_texts(model, processor, prompts, batch_size=len(prompts)))

    present, absent = (
        torch.from_numpy(np.stack([ensemble(prompts_of(label)) for label in labels])).to(model.device)
        for prompts_of in (processor.class_prompt_texts, processor.absent_class_prompt_texts)
    )
    return torch.stack([present, contrast(present, absent)])
