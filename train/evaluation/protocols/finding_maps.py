"""Maps of what a model sees for each finding of a report, beside the mask of the structure that the finding is of.

Only findings that a report affirms are asked for: where a denied finding should be seen, nobody can say.
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
from data_scripts.sources.lsma_pqr import source as lsma_pqr
from data_scripts.sources.synthetic.anatomy import MASK_NAMES as SYNTHETIC_MASK_NAMES
from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.explanation_lumbarclip import contrast, grad_cam, text_to_patch_similarity
from train.evaluation.features import encode_texts
from train.evaluation.protocols.explanation import (
    CENTRE,
    UNIFORM,
    MapScores,
    centre_map,
    rank_correlation,
    score_map,
)
from train.evaluation.protocols.zero_shot import prompt_ensemble
from train.evaluation.statistics.metrics import Array

# Where a finding is seen, by the names that the sources' masks have for it. Ligaments, roots and foramina have no mask.
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
# By how the `source` of a row begins.
MASK_NAMES = {"synthetic": SYNTHETIC_MASK_NAMES, "LSMA-PQR": lsma_pqr.MASK_NAMES}

MapFunction: TypeAlias = Callable[[PreTrainedModel, nn.Module, Tensor, Tensor], Tensor]
MAP_FUNCTIONS: dict[str, MapFunction] = {"text to patch": text_to_patch_similarity, "Grad-CAM": grad_cam}
LESS_DENIAL = ", less its denial"
WAYS_TO_ASK = ("", LESS_DENIAL)  # endings of the names of methods
METHODS = tuple(name + ending for name in MAP_FUNCTIONS for ending in WAYS_TO_ASK)

Maps: TypeAlias = dict[str, list[Tensor]]  # by method, the map of each finding, (h, w)


@dataclass(frozen=True)
class MaskedFinding:
    """A finding that the report of a row affirms.

    Args:
        row: Of the split.
        label: The finding.
        mask_index: The class of the row's mask that the map should fall on.
    """

    row: int
    label: str
    mask_index: int


def mask_names_of(rows: Dataset, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the classes of the masks, background first.

    Args:
        rows: With the column `source`, at least one.
        given: Names that the user gave; empty to tell by the source.

    Raises:
        ValueError: If the source is not known and no names are given.
    """
    if given:
        return tuple(given)
    source = rows[0]["source"]
    for beginning, names in MASK_NAMES.items():
        if source.startswith(beginning):
            return names
    raise ValueError(
        f"The rows come from {source!r}, and what the classes of their masks are is not known: name them in order, "
        "such as --mask_names background disc 'thecal sac' 'posterior element'."
    )


def masked_findings(rows: Dataset, mask_names: Sequence[str]) -> list[MaskedFinding]:
    """List the findings whose structure the mask of their row shows, in the order of the rows.

    A report's findings at the level of its row count; all of them where the row has none. On a sagittal slice the mask
    "disc" holds all discs: a map at the wrong level is then not found out.

    Args:
        rows: With the columns `report`, `level` and `mask`.
        mask_names: Of the classes of the masks, background first.

    Raises:
        ValueError: If there is no such finding, or no class is a structure that findings are seen in.
    """
    structures = {name for names in STRUCTURES.values() for name in names}
    if structures.isdisjoint(mask_names):
        raise ValueError(
            f"None of the classes of the masks, {', '.join(mask_names)}, is a structure that findings are seen in: "
            f"{', '.join(sorted(structures))}. Give them these names with --mask_names, in the order of the classes."
        )
    findings = []
    level_name = rows.features["level"].int2str
    for index, row in enumerate(rows.select_columns(["report", "level", "mask"])):
        if row["mask"] is None:
            continue
        level, classes = level_name(row["level"]), set(np.unique(row["mask"]).tolist())
        report = row["report"]
        labels = labels_at_level(report, level) if level in DISC_LEVELS else labels_from_report(report)
        for label in labels:
            shown = [mask_names.index(name) for name in STRUCTURES.get(label, ()) if name in mask_names]
            findings += [MaskedFinding(index, label, mask_index) for mask_index in shown if mask_index in classes][:1]
    if not findings:
        raise ValueError(
            "No report affirms a finding whose structure a mask shows, so there is nothing to compare maps with. The "
            "synthetic set and LSMA-PQR have masks; a folder of your own can name them in its column `mask`."
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
    """Draw the maps of every method for every finding, each asked for with the mean of its prompts.

    Args:
        model: In evaluation mode, on any device.
        processor: Its processor; holds the prompts.
        rows: With the column `image`.
        findings: Of these rows.
        batch_size: Images a forward pass.
        description: Shown beside the progress bar.

    Returns:
        By method, the map of each finding over what the model saw.
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
    """Directions to ask for labels with: the mean of their prompts, and its contrast with the prompts that deny them.

    Returns:
        In the order of `WAYS_TO_ASK`. Shape (2, labels, D).
    """
    asked: dict[str, list[Array]] = {"present": [], "absent": []}
    for label in labels:
        for state, prompts in (
            ("present", processor.class_prompt_texts(label)),
            ("absent", processor.absent_class_prompt_texts(label)),
        ):
            asked[state].append(prompt_ensemble(encode_texts(model, processor, prompts, batch_size=len(prompts))))
    present, absent = (torch.from_numpy(np.stack(embeds)).to(model.device) for embeds in asked.values())
    return torch.stack([present, contrast(present, absent)])


def score_methods(
    trained: Maps,
    randomised: Sequence[Maps],
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    image_processor: LumbarCLIPImageProcessor,
) -> tuple[dict[str, MapScores], dict[str, Array]]:
    """Score maps at the pixels of the images as they are stored, where the masks were drawn.

    Args:
        trained: Of the model in question.
        randomised: Of models of its architecture with random weights.
        rows: With the column `mask`.
        findings: Of these rows.
        image_processor: That made the images the model saw.

    Returns:
        The scores by method, and those of maps that need no model, shape (M, 2), by name.
    """
    masks = rows.select_columns("mask")
    controls: dict[str, list[Array]] = {CENTRE: [], UNIFORM: []}
    scores: dict[str, list[list[Array]]] = {method: [] for method in METHODS}
    for number, finding in enumerate(tqdm(findings, desc="Scores", unit=" maps")):
        inside = np.asarray(masks[finding.row]["mask"]) == finding.mask_index
        controls[CENTRE].append(score_map(centre_map(*inside.shape), inside))
        controls[UNIFORM].append(score_map(np.ones(inside.shape), inside))
        for method in METHODS:
            of_models = torch.stack([maps[method][number] for maps in (trained, *randomised)])
            over_image = image_processor.unpad_maps(of_models, inside.shape).numpy()
            scores[method].append([score_map(saliency, inside) for saliency in over_image])
    by_method = {}
    for method, of_findings in scores.items():
        by_model: Array = np.swapaxes(np.array(of_findings), 0, 1)  # (1 + R, M, 2)
        correlations = [
            [
                rank_correlation(map_.numpy(), other.numpy())
                for map_, other in zip(trained[method], maps[method], strict=True)
            ]
            for maps in randomised
        ]
        by_method[method] = MapScores(by_model[0], by_model[1:], np.array(correlations))
    return by_method, {name: np.array(of_findings) for name, of_findings in controls.items()}
