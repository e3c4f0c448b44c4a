"""The findings of a synthetic patient, level by level: the facts that pictures and reports share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

Severity = Literal["mild", "moderate", "severe"]
Option = TypeVar("Option")
Site = Literal["central", "left paracentral", "right paracentral", "left foraminal", "right foraminal"]

SYNTHETIC_LEVELS = ("L3/L4", "L4/L5", "L5/S1")
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
PROTRUSION_SITES: tuple[Site, ...] = get_args(Site)
STENOSIS_GRADES = ("A", "B", "C", "D")
SAGITTAL_LEVELS = ("T11/T12", "T12/L1", "L1/L2", "L2/L3", *SYNTHETIC_LEVELS)

NO_FINDING_SHARE = 0.15
AFFECTED_SHARE = {"L3/L4": 0.40, "L4/L5": 0.78, "L5/S1": 0.70}  # among patients who have a finding somewhere
DEHYDRATION_SHARE = 0.7  # among levels with another finding
HYPERTROPHY_SHARE = 0.6  # among stenotic levels

# The finding that leads an affected level. Dehydration alone is nearly invisible on T1, hence rare.
LEADS = ("bulge", "protrusion", "bulge and protrusion", "hypertrophy", "dehydration")
LEAD_SHARES = (0.45, 0.32, 0.13, 0.07, 0.03)
SEVERITY_SHARES = (0.45, 0.37, 0.18)
SITE_SHARES = (0.22, 0.27, 0.27, 0.12, 0.12)

# How often a disc that reaches into the canal narrows it, and to which severity (none, mild, moderate, severe).
STENOSIS_SHARES = {
    "mild": (0.88, 0.12, 0.0, 0.0),
    "moderate": (0.55, 0.30, 0.15, 0.0),
    "severe": (0.20, 0.15, 0.35, 0.30),
}

# Pfirrmann grades 1 to 5, whose shares depend on what the axial slices show of the disc.
HYDRATED_SHARES = (0.3, 0.7)  # of 1 and 2: nucleus bright, of normal height
DEHYDRATED_SHARES = {  # of 3, 4 and 5, by the worst of bulge and protrusion
    None: (0.6, 0.4, 0.0),
    "mild": (0.45, 0.47, 0.08),
    "moderate": (0.25, 0.58, 0.17),
    "severe": (0.1, 0.55, 0.35),
}
# How often a disc above L3/L4 is degenerated (grade 3 or 4), among patients who have a finding below.
UPPER_DEGENERATION = {"T11/T12": 0.10, "T12/L1": 0.14, "L1/L2": 0.22, "L2/L3": 0.35}
CONUS_SHARES = {"T12/L1": 0.2, "L1": 0.45, "L1/L2": 0.3, "L2": 0.05}  # the level where the spinal cord ends


@dataclass(frozen=True, kw_only=True)
class LevelFindings:
    """Everything abnormal at one disc level; the default is a normal level.

    Raises:
        ValueError: If the level is not drawn here, a protrusion lacks its site, or hypertrophy comes without stenosis.

    Example:
        >>> findings = LevelFindings(level="L4/L5", protrusion="severe", protrusion_site="left paracentral")
        >>> findings.protrusion_side, findings.compressed_root, findings.grade, findings.is_normal
        ('left', 'left L5', 'A', False)
    """

    level: str  # one of `SYNTHETIC_LEVELS`
    bulge: Severity | None = None  # symmetric extension of the whole posterior margin
    protrusion: Severity | None = None  # focal extension; given together with its site
    protrusion_site: Site | None = None  # left and right are the patient's
    stenosis: Severity | None = None  # narrowing of the spinal canal: the thecal sac loses area
    hypertrophy: bool = False  # thickened ligamenta flava and facet joints; only with stenosis
    dehydration: bool = False  # the nucleus has lost its water signal

    def __post_init__(self) -> None:
        if self.level not in SYNTHETIC_LEVELS:
            raise ValueError(f"level {self.level!r} is not drawn; choose one of {SYNTHETIC_LEVELS}")
        if (self.protrusion is None) != (self.protrusion_site is None):
            raise ValueError(f"protrusion {self.protrusion!r} with site {self.protrusion_site!r}: give both or neither")
        if self.hypertrophy and self.stenosis is None:
            raise ValueError("hypertrophy=True without stenosis is not drawn; give a stenosis severity with it")

    @property
    def is_normal(self) -> bool:
        """Whether the level is drawn normal."""
        return not (self.bulge or self.protrusion or self.stenosis or self.dehydration)

    @property
    def grade(self) -> str:
        """Grade the stenosis: A none, B mild, C moderate, D severe.

        Drawn after the signs of Schizas et al. 2010 (A: CSF around the rootlets; B: rootlets fill the sac; C: rootlets
        no longer told apart; D: posterior epidural fat gone too). Letter by severity is our simplification.
        """
        return "A" if self.stenosis is None else STENOSIS_GRADES[1 + SEVERITIES.index(self.stenosis)]

    @property
    def protrusion_side(self) -> str | None:
        """Name the side, `left`, `right` or `central`; None without a protrusion."""
        return self.protrusion_site.split()[0] if self.protrusion_site else None

    @property
    def foraminal_side(self) -> str | None:
        """Name the side whose neural foramen the protrusion fills, or None."""
        return self.protrusion_side if self.protrusion_site and "foraminal" in self.protrusion_site else None

    @property
    def compressed_root(self) -> str | None:
        """Name side and root that a moderate or severe lateral protrusion compresses, as `left L5`.

        A paracentral protrusion meets the traversing root (named after the lower vertebra), a foraminal one the
        exiting root (after the upper).
        """
        if self.protrusion in (None, "mild") or self.protrusion_side in (None, "central"):
            return None
        upper, lower = self.level.split("/")
        return f"{self.protrusion_side} {upper if self.foraminal_side else lower}"


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The facts of a whole sagittal slice: those of the axial levels, and what only this plane shows.

    A disc above L3/L4 is degenerated only in patients with a finding below, so that a slice is normal exactly when all
    axial levels of its patient are.
    """

    levels: tuple[LevelFindings, ...]  # as `sample_patient` draws them
    pfirrmann: tuple[int, ...]  # grade of each disc of `SAGITTAL_LEVELS`; 3 or more exactly where it is dehydrated
    conus: str  # level at which the spinal cord ends

    @property
    def is_normal(self) -> bool:
        """Whether all levels are drawn normal."""
        return all(findings.is_normal for findings in self.levels)

    @property
    def grade(self) -> str:
        """Grade the narrowest level, as `LevelFindings.grade`."""
        return max(findings.grade for findings in self.levels)


def sample_patient(rng: np.random.Generator) -> tuple[LevelFindings, ...]:
    """Draw the findings of one patient, one entry for each of `SYNTHETIC_LEVELS`."""
    if rng.random() < NO_FINDING_SHARE:
        return tuple(LevelFindings(level=level) for level in SYNTHETIC_LEVELS)
    affected: list[bool] = []
    while not any(affected):  # a patient with findings has at least one; 4 % of the draws are repeated
        affected = [rng.random() < AFFECTED_SHARE[level] for level in SYNTHETIC_LEVELS]
    return tuple(
        sample_level(level, rng) if hit else LevelFindings(level=level)
        for level, hit in zip(SYNTHETIC_LEVELS, affected, strict=True)
    )


def sample_sagittal_facts(levels: tuple[LevelFindings, ...], rng: np.random.Generator) -> Patient:
    """Draw what a sagittal slice adds to the findings of the axial levels: Pfirrmann grades and the conus."""
    has_finding = not all(findings.is_normal for findings in levels)
    pfirrmann = []
    for level in SAGITTAL_LEVELS[: -len(levels)]:
        hydrated = _choose((1, 2), HYDRATED_SHARES, rng)
        degenerated = _choose((3, 4), (0.7, 0.3), rng)
        pfirrmann.append(degenerated if has_finding and rng.random() < UPPER_DEGENERATION[level] else hydrated)
    for findings in levels:
        worst = max((findings.bulge, findings.protrusion), key=lambda it: SEVERITIES.index(it) if it else -1)
        dry = _choose((3, 4, 5), DEHYDRATED_SHARES[worst], rng)
        pfirrmann.append(dry if findings.dehydration else _choose((1, 2), HYDRATED_SHARES, rng))
    conus = _choose(tuple(CONUS_SHARES), tuple(CONUS_SHARES.values()), rng)
    return Patient(levels=levels, pfirrmann=tuple(pfirrmann), conus=conus)


def sample_level(level: str, rng: np.random.Generator) -> LevelFindings:
    """Draw the findings of an affected level."""
    lead = _choose(LEADS, LEAD_SHARES, rng)
    if lead == "dehydration":
        return LevelFindings(level=level, dehydration=True)
    bulge = _choose(SEVERITIES, SEVERITY_SHARES, rng) if "bulge" in lead else None
    protrusion = _choose(SEVERITIES, SEVERITY_SHARES, rng) if "protrusion" in lead else None
    site = _choose(PROTRUSION_SITES, SITE_SHARES, rng) if protrusion else None
    stenosis: Severity | None
    if lead == "hypertrophy":
        stenosis, hypertrophy = _choose(SEVERITIES[:2], (0.5, 0.5), rng), True
    else:
        stenosis = _sample_stenosis(bulge, None if site and "foraminal" in site else protrusion, rng)
        hypertrophy = stenosis is not None and bool(rng.random() < HYPERTROPHY_SHARE)
    return LevelFindings(
        level=level,
        bulge=bulge,
        protrusion=protrusion,
        protrusion_site=site,
        stenosis=stenosis,
        hypertrophy=hypertrophy,
        dehydration=bool(rng.random() < DEHYDRATION_SHARE),
    )


def _sample_stenosis(
    bulge: Severity | None, canal_protrusion: Severity | None, rng: np.random.Generator
) -> Severity | None:
    intrusions = [severity for severity in (bulge, canal_protrusion) if severity]
    if not intrusions:  # a foraminal protrusion leaves the canal alone
        return None
    worst = max(intrusions, key=SEVERITIES.index)
    return _choose((None, *SEVERITIES), STENOSIS_SHARES[worst], rng)


def _choose(options: Sequence[Option], shares: Sequence[float], rng: np.random.Generator) -> Option:
    return options[rng.choice(len(options), p=shares)]
