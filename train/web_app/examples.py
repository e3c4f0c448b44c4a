"""Draw slices of no patient, with known findings, to try a model with that was trained on such."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from data_scripts.records import LUMBAR_SPINE
from data_scripts.sources.synthetic.findings import LevelFindings
from data_scripts.sources.synthetic.source import draw_slice
from train.web_app.uploads import See, Upload, make_slice

PLANE = "axial"
SEED = 2026  # datasets are built with the seed 0, so no training has seen these


@dataclass(frozen=True, kw_only=True)
class Example:
    """A slice to draw: the name of its button, the number of the patient, and the findings."""

    name: str
    patient: int
    findings: LevelFindings
    sequence: str = "T2"


EXAMPLES = (
    Example(name="Normal disc", patient=1, findings=LevelFindings(level="L3/L4")),
    Example(name="Disc bulge", patient=2, findings=LevelFindings(level="L4/L5", bulge="severe", dehydration=True)),
    Example(
        name="Left protrusion",
        patient=3,
        findings=LevelFindings(level="L5/S1", protrusion="severe", protrusion_site="left paracentral"),
    ),
    Example(
        name="Canal stenosis",
        patient=4,
        findings=LevelFindings(level="L4/L5", bulge="severe", stenosis="severe", hypertrophy=True),
    ),
)
STUDY_PATIENT = 5
STUDY_FINDINGS = (
    LevelFindings(level="L3/L4"),
    LevelFindings(level="L4/L5", bulge="moderate", dehydration=True),
    LevelFindings(level="L5/S1", protrusion="severe", protrusion_site="right paracentral", dehydration=True),
)


def fits_examples(scope: Mapping[str, Any] | None) -> bool:
    """Whether a model was trained on slices like the examples: drawn, axial, of a lumbar spine.

    Any other, and one that does not record what it was trained on, gets none: it may never have seen such slices.

    Example:
        >>> scope = {"planes": ["axial"], "anatomy": "lumbar spine", "is_synthetic": True}
        >>> fits_examples(scope), fits_examples({**scope, "anatomy": "knee"}), fits_examples(None)
        (True, False, False)
    """
    scope = scope or {}
    return (
        scope.get("is_synthetic") is True
        and PLANE in (scope.get("planes") or ())
        and scope.get("anatomy") == LUMBAR_SPINE
    )


def example_upload(example: Example, see: See) -> Upload:
    """Draw an example, as if it had been uploaded."""
    image = Image.fromarray(draw_slice(SEED, example.patient, example.findings, example.sequence).image)
    shown = f"{example.findings.level}, {example.sequence}, drawn with: {drawn_findings(example.findings)}"
    return Upload(slices=(make_slice(see, image, name=f"Drawn example: {example.name.lower()}", facts=shown),))


def example_study(see: See) -> Upload:
    """Draw T1 and T2 slices of three levels of one patient."""
    return Upload(
        slices=tuple(
            make_slice(
                see,
                Image.fromarray(draw_slice(SEED, STUDY_PATIENT, findings, sequence).image),
                name=f"{findings.level} {sequence}",
                facts=f"drawn with: {drawn_findings(findings)}",
            )
            for findings in STUDY_FINDINGS
            for sequence in ("T1", "T2")
        )
    )


def drawn_findings(findings: LevelFindings) -> str:
    """Say what was drawn.

    Example:
        >>> drawn_findings(LevelFindings(level="L4/L5", protrusion="mild", protrusion_site="left foraminal"))
        'mild left foraminal protrusion'
        >>> drawn_findings(LevelFindings(level="L4/L5"))
        'no finding'
    """
    said = [
        f"{findings.bulge} bulge" if findings.bulge else "",
        f"{findings.protrusion} {findings.protrusion_site} protrusion" if findings.protrusion else "",
        f"{findings.stenosis} canal stenosis" if findings.stenosis else "",
        "thickened flava and facets" if findings.hypertrophy else "",
        "dehydration" if findings.dehydration else "",
    ]
    return ", ".join(filter(None, said)) or "no finding"
