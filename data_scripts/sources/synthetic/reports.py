"""Words for drawn findings: one report and its rephrasings, in varied wording, with exactly the facts drawn.

A report is planned first (which facts and which negations it states) and then worded: the report and its rephrasings
share the plan and differ in words, order and spelling of the level. All sentences are written for this project.
"""

from itertools import groupby

import numpy as np

from data_scripts.reports.phrasing import ROMAN_NUMERALS, SEVERITY_WORDS, as_text, distinct, listed, one_of
from data_scripts.sources.synthetic.findings import SAGITTAL_LEVELS, SYNTHETIC_LEVELS, LevelFindings, Patient

Statement = tuple[str, dict[str, str]]  # a key of CLAUSES, and what fills its blanks

# Zone → adjective and place of each wording.
SITE_WORDS = {
    "central": (("central", "in the midline"), ("midline", "centrally")),
    "paracentral": (
        ("{side} paracentral", "in the {side} paracentral zone"),
        ("{side} paramedian", "{side} of the midline"),
    ),
    "foraminal": (
        ("{side} foraminal", "in the {side} foraminal zone"),
        ("{side}-sided foraminal", "in the {side} foramen"),
    ),
}
# ` | ` separates the wordings.
OPENINGS = (
    "{level}: {clause} | At {level}, {clause} | At the {level} level, {clause} | {level} disc level: {clause} | "
    "Findings at {level}: {clause} | {clause} at {level} | Axial section through {level}: {clause}"
)
CLAUSES = {
    "bulge": (
        "there is a {severity} diffuse disc bulge | {severity} diffuse bulging of the disc is seen | "
        "the disc bulges {adverb} and symmetrically | {severity} circumferential disc bulge | "
        "the posterior disc margin shows {severity} diffuse bulging | {severity} generalised bulging of the annulus | "
        "a {severity} symmetric bulge of the disc abuts the thecal sac | "
        "{severity} diffuse disc bulge in contact with the thecal sac"
    ),
    "protrusion": (
        "there is a {severity} {site} disc protrusion | {severity} {site} protrusion of the disc | "
        "a {severity} focal disc protrusion lies {place} | the disc protrudes {adverb} {place} | "
        "a {severity} {site} protrusion is noted | focal {site} disc protrusion, {severity} in size | "
        "{severity} protrusion of disc material {place}"
    ),
    "superimposed protrusion": (
        "a {severity} {site} protrusion is superimposed | superimposed {severity} {site} disc protrusion | "
        "on top of this a {severity} focal protrusion lies {place} | in addition the disc protrudes {adverb} {place} | "
        "there is an additional {severity} {site} protrusion"
    ),
    "normal contour": (
        "no disc bulge or protrusion | the disc neither bulges nor protrudes | "
        "there is no disc bulge and no protrusion | disc contour is normal, without bulge or protrusion | "
        "the posterior disc margin is preserved, with no bulge or protrusion"
    ),
    "dehydration": (
        "the disc is dehydrated | disc desiccation is present | the disc is desiccated | "
        "dehydration of the nucleus pulposus | the nucleus pulposus is dehydrated | desiccated disc material is noted"
    ),
    "hydration": (
        "the disc is well hydrated | no disc desiccation | the disc is not dehydrated | "
        "hydration of the nucleus is preserved"
    ),
    "stenosis": (
        "there is {severity} spinal canal stenosis | {severity} central canal stenosis | "
        "the spinal canal is {adverb} narrowed | {severity} narrowing of the spinal canal | "
        "{severity} canal stenosis with a smaller thecal sac | "
        "the thecal sac is {adverb} reduced in area by canal stenosis"
    ),
    "hypertrophy": (
        "the ligamenta flava and facet joints are hypertrophied | "
        "facet and ligamentum flavum hypertrophy contributes | thickened ligamenta flava with enlarged facet joints | "
        "hypertrophy of the facets and ligamenta flava is noted"
    ),
    "no stenosis": (
        "no significant canal stenosis | there is no spinal canal stenosis | the spinal canal is adequate | "
        "the spinal canal is of normal width | no narrowing of the spinal canal"
    ),
    "root": (
        "the {side} {root} nerve root is compressed | compression of the {side} {root} nerve root | "
        "there is compression of the {root} root on the {side} | the {root} nerve root on the {side} side is compressed"
    ),
    "crowding": (
        "the cauda equina roots are crowded | crowding of the cauda equina roots | "
        "the intrathecal roots are crowded together"
    ),
    "no root": (
        "nerve roots are not compressed | no nerve root compression | there is no compression of the nerve roots | "
        "the nerve roots are free"
    ),
    "foramen": (
        "the {side} neural foramen is narrowed | narrowing of the {side} neural foramen | "
        "the neural foramen is narrowed on the {side}"
    ),
    "no foramen": "the neural foramina are patent | no foraminal narrowing | both neural foramina are open",
    "normal": "normal appearance | this level is unremarkable | no abnormality is seen | normal study of this level",
}

NEGATIONS = {"normal contour", "normal", "hydration", "no stenosis", "no root", "no foramen"}
SPINE_OPENINGS = (
    "{level}: {clause} | At {level}, {clause} | At the {level} level, {clause} | {level} disc level: {clause}"
)
DENIALS = (  # of clauses that a sagittal report makes once for all levels without the finding
    (
        {"bulge", "protrusion", "superimposed protrusion"},
        "no disc bulge or protrusion | neither disc bulge nor protrusion",
    ),
    ({"stenosis"}, "no spinal canal stenosis | no narrowing of the spinal canal"),
)
CONUS = (
    "the conus medullaris ends at {place} | the spinal cord ends at {place} | the tip of the conus lies at {place} | "
    "conus at {place}"
)


def write_reports(findings: LevelFindings, rng: np.random.Generator, count: int = 5) -> tuple[str, ...]:
    """Word the findings of one level `count` times: a report and its rephrasings, distinct, of the same facts."""
    disc, rest = plan_statements(findings, rng)
    return tuple(distinct(lambda: _word(findings.level, disc, rest, rng), count))


def plan_statements(findings: LevelFindings, rng: np.random.Generator) -> tuple[list[Statement], list[Statement]]:
    """Choose what to state about the disc, and about canal, roots and foramina.

    Every finding is stated, and so are a normal canal and free roots. Whether a patent foramen or a hydrated disc is
    mentioned is left to chance, as it is between radiologists.
    """
    disc: list[Statement] = [("bulge", {"severity": findings.bulge})] if findings.bulge else []
    if findings.protrusion and findings.protrusion_site:
        key = "superimposed protrusion" if findings.bulge else "protrusion"
        disc.append((key, {"severity": findings.protrusion, "site": findings.protrusion_site}))
    disc = disc or [("normal contour", {})]
    if findings.is_normal and rng.random() < 0.4:
        disc.insert(0, ("normal", {}))
    if findings.dehydration:
        disc.append(("dehydration", {}))
    elif rng.random() < 0.4:
        disc.append(("hydration", {}))

    rest: list[Statement] = [
        ("stenosis", {"severity": findings.stenosis}) if findings.stenosis else ("no stenosis", {})
    ]
    if findings.hypertrophy:
        rest.append(("hypertrophy", {}))
    if findings.stenosis in ("moderate", "severe"):
        rest.append(("crowding", {}))
    if findings.compressed_root:
        side, root = findings.compressed_root.split()
        rest.append(("root", {"side": side, "root": root}))
    elif findings.stenosis in (None, "mild"):
        rest.append(("no root", {}))
    if findings.foraminal_side:
        rest.append(("foramen", {"side": findings.foraminal_side}))
    elif findings.bulge in (None, "mild") and rng.random() < 0.4:
        rest.append(("no foramen", {}))
    return disc, rest


def write_spine_reports(patient: Patient, rng: np.random.Generator, count: int = 5) -> tuple[str, ...]:
    """Word the facts of a whole sagittal slice `count` times, distinct: level by level from above or from below.

    The findings of an axial level are those that its own report states. What no level has is denied for the levels
    drawn in axial slices together; a hydrated disc is told by its Pfirrmann grade alone.
    """
    stated = {findings.level: _affirmed(findings, rng) for findings in patient.levels}
    return tuple(distinct(lambda: _word_spine(patient, stated, rng), count))


def _affirmed(findings: LevelFindings, rng: np.random.Generator) -> list[Statement]:
    disc, rest = plan_statements(findings, rng)
    return [statement for statement in (*disc, *rest) if statement[0] not in NEGATIONS]


def _word_spine(patient: Patient, stated: dict[str, list[Statement]], rng: np.random.Generator) -> str:
    sentences = []
    for level, statements in stated.items():
        if statements:
            clauses = [
                # Read alone, a dry disc could be any; what follows about canal and roots goes on with its level.
                _fill(key, facts, rng) + (f" at {spell_level(level, rng)}" if key == "dehydration" and index else "")
                for index, (key, facts) in enumerate(statements)
            ]
            opening = one_of(SPINE_OPENINGS.split(" | "), rng)
            clauses[0] = opening.format(level=spell_level(level, rng), clause=clauses[0])
            sentences.append(as_text(clauses))
    grades = []
    for grade, group in groupby(zip(SAGITTAL_LEVELS, patient.pfirrmann, strict=True), key=lambda item: item[1]):
        spelt = [spell_level(level, rng) for level, _ in group]
        where = f"from {spelt[0]} to {spelt[-1]}" if len(spelt) > 2 else f"at {listed(spelt, 'and')}"
        number = one_of((str(grade), ROMAN_NUMERALS[str(grade)]), rng)
        grades.append(f"Pfirrmann grade {number} {where}")
    if rng.random() < 0.5:
        sentences.reverse()
        grades.reverse()
    for keys, wordings in DENIALS:
        free = [level for level, statements in stated.items() if not keys & {key for key, _ in statements}]
        if free:
            names = listed([spell_level(level, rng) for level in free], "and")
            where = "at any level" if len(free) == len(SYNTHETIC_LEVELS) else f"at {names}"
            sentences.append(as_text([f"{one_of(wordings.split(' | '), rng)} {where}"]))
    place = patient.conus
    conus = one_of(CONUS.split(" | "), rng).format(place=spell_level(place, rng) if "/" in place else place)
    others = [as_text([listed(grades, "and")]), as_text([conus])]
    return " ".join([*sentences, *others] if rng.random() < 0.6 else [*others[::-1], *sentences])


def spell_level(level: str, rng: np.random.Generator) -> str:
    """Draw one of the usual spellings: `L4/L5`, `L4-L5`, `L4/5`, `L4-5`; `L5/S1` and `T12/L1` keep both letters."""
    upper, lower = level.split("/")
    lowers = (lower, lower[1:]) if lower[0] == upper[0] else (lower,)
    return f"{upper}{one_of(('/', '-'), rng)}{one_of(lowers, rng)}"


def _word(level: str, disc: list[Statement], rest: list[Statement], rng: np.random.Generator) -> str:
    rest = [rest[index] for index in rng.permutation(len(rest))]
    ordered = disc + rest if rng.random() < 0.75 else rest + disc
    clauses = [_fill(key, facts, rng) for key, facts in ordered]
    clauses[0] = one_of(OPENINGS.split(" | "), rng).format(level=spell_level(level, rng), clause=clauses[0])
    return as_text(clauses)


def _fill(key: str, facts: dict[str, str], rng: np.random.Generator) -> str:
    blanks = dict(facts)
    if "severity" in facts:
        blanks["severity"], blanks["adverb"] = one_of(SEVERITY_WORDS[facts["severity"]], rng)
    if "site" in facts:
        side, _, zone = facts["site"].rpartition(" ")
        blanks["site"], blanks["place"] = (words.format(side=side) for words in one_of(SITE_WORDS[zone], rng))
    return one_of(CLAUSES[key].split(" | "), rng).format(**blanks)
