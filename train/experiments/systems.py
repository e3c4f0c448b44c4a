"""The systems that an experiment compares. Towers, data, budget and loop are those of the experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class System:
    """A way of training, as settings of its kind: `PretrainArguments`, `FinetuneSegmentationArguments`."""

    name: str  # as in the literature
    objective: str = "lumbarclip"  # which an experiment may combine with others
    # the settings that define the system; they override the experiment's
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # where it was published
    deviations: str = ""  # from the publication, other than towers, data and budget
    trained: bool = True  # False for the reference that is measured untrained
    kind: str = "pretraining"  # or segmentation: what is trained, and how it is measured (`kinds`)


# The paper trains the baselines on only the original reports: no rephrasings, each pair once in an epoch.
ORIGINAL_REPORTS = {"alpha": 1.0, "texts_per_pair": 1}

SYSTEMS: Mapping[str, System] = {
    "lumbarclip": System("LumbarCLIP", source="arXiv 2509.20813"),
    "convirt": System(
        "ConVIRT",
        "convirt",
        {
            "projection": "nonlinear",
            "initial_temperature": 0.1,
            "learn_temperature": False,
            "text_unit": "sentence",
            **ORIGINAL_REPORTS,
        },
        "Zhang et al. 2022, arXiv 2010.00747",
        "Images are varied as in all systems, not by ConVIRT's crops and flips: a flip would exchange left and right.",
    ),
    "gloria": System(
        "GLoRIA",
        "gloria",
        {"projection": "linear", **ORIGINAL_REPORTS},
        "Huang et al., ICCV 2021",
        "Word pieces are not merged into words, and only the last layer of the text tower is used.",
    ),
    "medclip": System(
        "MedCLIP",
        "medclip",
        {"projection": "linear", "count_absences": False, **ORIGINAL_REPORTS},
        "Wang et al. 2022, arXiv 2210.10163",
        "Targets compare the labels of the dataset, not UMLS entities; no images or reports without their pair.",
    ),
    "clip": System(
        "CLIP",
        "clip",
        {"projection": "linear", **ORIGINAL_REPORTS},
        "Radford et al. 2021, arXiv 2103.00020",
    ),
    "siglip": System(
        "SigLIP",
        "siglip",
        {"projection": "linear", "initial_temperature": 0.1, **ORIGINAL_REPORTS},
        "Zhai et al. 2023, arXiv 2303.15343",
    ),
    "supervised": System(
        "Supervised",
        "supervised",
        {"projection": "linear", **ORIGINAL_REPORTS},
        deviations="Reference: the vision tower learns the labels themselves, with the same budget and no reports.",
    ),
    "clip_koa": System(
        "CLIP-KOA",
        "symmetry",
        {
            "projection": "linear",
            "objectives": {"clip": 0.2, "symmetry": 0.5, "consistency": 0.5},
            **ORIGINAL_REPORTS,
        },
        "arXiv 2504.19443",
        "Knees only. The form of the consistency loss and all weights are ours; the paper does not give them.",
    ),
    "image_grades": System(
        "Image only",
        "image_grades",
        {"projection": "linear", **ORIGINAL_REPORTS},
        deviations="Reference: the vision tower learns the grades themselves, with the same budget and no texts.",
    ),
    "untrained": System("Untrained", deviations="Reference: the model as its seed initialises it.", trained=False),
    "segmentation": System("LumbarCLIP, segmentation", "segmentation", kind="segmentation"),
    "unet": System(
        "U-Net",
        "unet",
        source="Ronneberger et al. 2015, in MONAI with residual units",
        deviations="As wide as has about as many parameters as the vision tower and decoder of the same settings.",
        kind="segmentation",
    ),
}
