"""Which findings are asked for, in which structure, and whose map is whose."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import SourceAbout, SourceInfo
from modeling_lumbarclip.explanation_lumbarclip import contrast, text_to_patch_similarity
from train.evaluation.protocols.explanation import CENTRE, UNIFORM, score_map, score_methods
from train.evaluation.protocols.finding_maps import (
    METHODS,
    MaskedFinding,
    finding_maps,
    masked_findings,
    text_directions,
)

NAMES = ("background", "disc", "posterior element", "thecal sac")


def mask_of(*classes, size=(20, 30)):
    mask = np.zeros(size, dtype=np.uint8)
    for index in classes:
        mask[4 * index : 4 * index + 4, 5:15] = index
    return Image.fromarray(mask)


def rows_of(*report_level_mask, source="synthetic seed 0"):
    about = SourceAbout(name="tiny", summary="", license="other: none", citation="", size="", where="")
    generator = np.random.default_rng(0)
    row = {
        "rephrasings": [], "labels": [], "grade": None, "plane": "axial", "sequence": "T2", "pixel_spacing_mm": None,
        "slice_spacing_mm": None, "disc_height_mm": None, "study_id": "s", "series_id": None, "slice_index": None,
        "mask_classes": None, "mask_origin": None,
    }  # fmt: skip
    rows = [
        row
        | {
            "image": Image.fromarray(generator.integers(0, 255, size=(20, 30), dtype=np.uint8)),
            "report": report,
            "level": level,
            "mask": mask,
            "patient_id": f"p{number}",
            "source": f"{source}: {number}",
        }
        for number, (report, level, mask) in enumerate(report_level_mask)
    ]
    return Dataset.from_list(
        rows, features=dataset_features(SourceInfo(about=about, label_names=("LBP", "No Finding"), mask_names=NAMES))
    )


def test_no_map_is_scored_against_a_mask_that_a_program_computed():
    rows = rows_of(*[("Disc bulge at L4/L5.", "L4/L5", mask_of(1))] * 3)
    origins = ["pseudo", "source", None]
    rows = rows.map(lambda row, index: {"mask_origin": origins[index]}, with_indices=True, features=rows.features)
    assert [finding.row for finding in masked_findings(rows, NAMES)] == [1, 2]


def test_affirmed_findings_at_the_level_with_their_structure_in_the_mask_are_asked_for():
    rows = rows_of(
        ("Disc bulge at L4/L5. No stenosis.", "L4/L5", mask_of(1, 2, 3)),
        ("Disc bulge at L4/L5. Spinal canal stenosis at L5/S1.", "L5/S1", mask_of(1, 2, 3)),
        ("Disc bulge at L4/L5.", "L4/L5", None),  # no mask
        ("Disc bulge and spinal canal stenosis at L4/L5.", "L4/L5", mask_of(1)),  # no sac in the slice
        ("No disc bulge or protrusion.", "L4/L5", mask_of(1, 2, 3)),
        ("Disc protrusion at L3/L4. Facet hypertrophy.", "unknown", mask_of(1, 2, 3)),
        ("Foraminal narrowing at L4/L5.", "L4/L5", mask_of(1, 2, 3)),  # foramina have no mask
    )
    assert masked_findings(rows, NAMES) == [
        MaskedFinding(0, "disc bulge", 1),
        MaskedFinding(1, "spinal canal stenosis", 3),
        MaskedFinding(3, "disc bulge", 1),
        MaskedFinding(5, "disc protrusion", 1),
        MaskedFinding(5, "facet hypertrophy", 2),
    ]


def test_names_of_which_none_is_a_structure_are_told_with_those_that_are():
    rows = rows_of(("Disc bulge.", "L4/L5", mask_of(1)))
    said = "background, IVD, canal, is a structure.*: disc, posterior element, spinal canal, thecal sac.*--mask_names"
    with pytest.raises(ValueError, match=said):
        masked_findings(rows, ("background", "IVD", "canal"))


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="No report affirms a finding whose structure a mask shows"):
        masked_findings(rows_of(("No disc bulge.", "L4/L5", mask_of(1)), ("Disc bulge.", "L4/L5", None)), NAMES)


def test_each_finding_gets_its_own_map_and_its_own_score(tiny_model, tiny_processor):
    rows = rows_of(
        ("Disc bulge and facet hypertrophy at L4/L5.", "L4/L5", mask_of(1, 2)),
        ("No disc bulge.", "L4/L5", mask_of(1, 2)),
        ("Disc bulge at L4/L5.", "L4/L5", mask_of(1, 2)),
    )
    findings = masked_findings(rows, NAMES)
    maps = finding_maps(tiny_model, tiny_processor, rows, findings, batch_size=1, description="maps")
    together = finding_maps(tiny_model, tiny_processor, rows, findings, batch_size=8, description="maps")
    directions = text_directions(tiny_model, tiny_processor, ["disc bulge", "facet hypertrophy"])
    torch.testing.assert_close(directions.norm(dim=2), torch.ones(2, 2))
    assert list(maps) == list(METHODS)
    for number, finding in enumerate(findings):
        pixels = tiny_processor(images=rows[finding.row]["image"], return_tensors="pt").pixel_values
        label = ("disc bulge", "facet hypertrophy").index(finding.label)
        for way, method in enumerate(("text to patch", "text to patch, less its denial")):
            expected = text_to_patch_similarity(
                tiny_model.vision_model, tiny_model.image_projection, pixels, directions[way, label, None]
            )[0, 0]
            torch.testing.assert_close(maps[method][number], expected)
        for method in METHODS:
            torch.testing.assert_close(together[method][number], maps[method][number])

    scores, baselines = score_methods(maps, [maps], rows, findings, tiny_processor.image_processor)
    assert baselines[UNIFORM][:, 0] == pytest.approx([40 / 600] * 3)  # masks of 4 x 10 pixels
    for number, finding in enumerate(findings):
        inside = np.asarray(rows[finding.row]["mask"]) == finding.mask_index
        over_image = tiny_processor.image_processor.unpad_maps(maps["Grad-CAM"][number], (20, 30)).numpy()
        assert scores["Grad-CAM"].trained[number] == pytest.approx(score_map(over_image, inside))
    assert np.array_equal(scores["Grad-CAM"].randomised[0], scores["Grad-CAM"].trained)  # here the same maps
    assert scores["text to patch"].rank_correlation == pytest.approx(1.0)
    assert baselines[CENTRE].shape == (3, 2)


def test_less_its_denial_is_the_contrast_of_the_mean_prompts(tiny_model, tiny_processor):
    directions = text_directions(tiny_model, tiny_processor, ["disc bulge"])
    means = []
    for prompts in (
        tiny_processor.class_prompt_texts("disc bulge"),
        tiny_processor.absent_class_prompt_texts("disc bulge"),
    ):
        with torch.no_grad():
            embeds = tiny_model.get_text_features(**tiny_processor(text=prompts, return_tensors="pt")).pooler_output
        means.append(torch.nn.functional.normalize(embeds.mean(dim=0, keepdim=True)))
    torch.testing.assert_close(directions[0], means[0])
    torch.testing.assert_close(directions[1], contrast(*means), atol=1e-4, rtol=1e-3)
