import hashlib
import pickle
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_scripts.records import LOW_BACK_PAIN, NO_FINDING, ReadOptions
from data_scripts.reports.findings import report_facts
from data_scripts.sources.synthetic.anatomy import AREA_BETWEEN, DISC, MASK_NAMES, PARASPINAL_MUSCLE, PSOAS, THECAL_SAC
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, LevelFindings, sample_patient
from data_scripts.sources.synthetic.sagittal import SAGITTAL_MASK_NAMES
from data_scripts.sources.synthetic.source import describe, draw_slice, load_image, read, sagittal_facts

FINGERPRINT = """
import hashlib
from pathlib import Path
from data_scripts.records import ReadOptions
from data_scripts.sources.synthetic.source import read

for record in list(read(ReadOptions(raw=None, seed=7, num_patients={num_patients})))[{start}:{stop}][::-1]:
    pixels = record.load_image().tobytes() + record.load_mask().tobytes()
    print(record.source, hashlib.sha256(pixels + repr((record.report, record.rephrasings)).encode()).hexdigest())
"""


def records_of(num_patients, seed=0, plane="axial"):
    return list(read(ReadOptions(raw=None, seed=seed, num_patients=num_patients, plane=plane)))


def draw(findings, patient=1, sequence="T2"):
    return draw_slice(0, patient, findings, sequence)


def area(findings, index, patient=1):
    return int((draw(findings, patient).mask == index).sum())


def test_a_patient_is_the_same_in_another_process_whatever_the_number_of_patients_or_the_order():
    def fingerprints(num_patients, start, stop):
        root = Path(__file__).resolve().parents[4]
        code = FINGERPRINT.format(num_patients=num_patients, start=start, stop=stop)
        run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    elsewhere = fingerprints(num_patients=5, start=12, stop=18)
    here = []
    for record in records_of(3, seed=7)[12:18]:
        pixels = record.load_image().tobytes() + record.load_mask().tobytes()
        text = repr((record.report, record.rephrasings)).encode()
        here.append(f"{record.source} {hashlib.sha256(pixels + text).hexdigest()}")
    assert elsewhere[::-1] == here


def test_seeds_and_patients_and_sequences_differ():
    normal = LevelFindings(level="L4/L5")
    images = [
        load_image(0, 1, normal, "T2"),
        load_image(1, 1, normal, "T2"),
        load_image(0, 2, normal, "T2"),
        load_image(0, 1, normal, "T1"),
        load_image(0, 1, LevelFindings(level="L5/S1"), "T2"),
    ]
    assert len({image.tobytes() for image in images}) == len(images)


def test_a_patient_has_six_records_and_both_sequences_share_their_report():
    records = records_of(4)
    assert len(records) == 24
    assert len({record.source for record in records}) == 24
    assert {record.patient_id for record in records} == {f"synthetic-{n:04d}" for n in (1, 2, 3, 4)}
    for t1, t2 in zip(records[::2], records[1::2], strict=True):
        assert (t1.sequence, t2.sequence) == ("T1", "T2")
        assert (t1.level, t1.report, t1.rephrasings, t1.labels) == (t2.level, t2.report, t2.rephrasings, t2.labels)


def test_labels_and_grades_follow_the_findings():
    for record in records_of(60):
        findings = record.load_image.args[2]
        assert record.labels == ((NO_FINDING,) if findings.is_normal else (LOW_BACK_PAIN,))
        assert record.grade == {None: "A", "mild": "B", "moderate": "C", "severe": "D"}[findings.stenosis]


def test_rephrasings_are_four_and_all_texts_differ():
    for record in records_of(60):
        assert len(record.rephrasings) == 4
        assert len({record.report, *record.rephrasings}) == 5


def test_about_fifteen_percent_of_patients_have_no_finding_and_the_lower_levels_most():
    patients = [sample_patient(np.random.default_rng(n)) for n in range(1500)]
    without = np.mean([all(level.is_normal for level in patient) for patient in patients])
    assert 0.12 < without < 0.18  # three standard errors are 0.03
    affected = np.mean([[not level.is_normal for level in patient] for patient in patients], axis=0)
    assert affected[0] < 0.45 < 0.55 < affected[1:].min()


def test_loaders_survive_pickling():
    record = records_of(1)[0]
    revived = pickle.loads(pickle.dumps(record.load_image))
    assert revived().tobytes() == record.load_image().tobytes()


@pytest.mark.parametrize("level", SYNTHETIC_LEVELS)
@pytest.mark.parametrize(
    ("site", "toward_image_right"),
    [
        ("left paracentral", 1),
        ("left foraminal", 1),
        ("right paracentral", -1),
        ("right foraminal", -1),
        ("central", 0),
    ],
)
def test_the_patients_left_lies_on_the_images_right(level, site, toward_image_right):
    for patient in (1, 2, 3):
        normal = draw(LevelFindings(level=level), patient).mask == DISC
        protruded = draw(LevelFindings(level=level, protrusion="moderate", protrusion_site=site), patient).mask == DISC
        added = np.nonzero(protruded & ~normal)[1].mean() - np.nonzero(normal)[1].mean()
        if toward_image_right:
            assert toward_image_right * added > 4
        else:
            assert abs(added) < 3


@pytest.mark.parametrize("level", SYNTHETIC_LEVELS)
@pytest.mark.parametrize("bulge", [None, "mild", "severe"])
def test_stenosis_takes_area_from_the_sac_with_its_severity(level, bulge):
    for patient in (1, 2, 3, 4):
        areas = [
            area(LevelFindings(level=level, bulge=bulge, stenosis=stenosis), THECAL_SAC, patient)
            for stenosis in (None, "mild", "moderate", "severe")
        ]
        assert all(narrower < 0.9 * wider for wider, narrower in pairwise(areas)), areas
        assert areas[-1] > 10


def test_hypertrophy_alone_changes_the_canal_but_not_the_disc():
    plain = draw(LevelFindings(level="L4/L5", stenosis="moderate"))
    grown = draw(LevelFindings(level="L4/L5", stenosis="moderate", hypertrophy=True))
    assert np.array_equal(plain.mask == DISC, grown.mask == DISC)
    assert (plain.mask != grown.mask).sum() > 20


@pytest.mark.parametrize("level", SYNTHETIC_LEVELS)
def test_dehydration_darkens_the_nucleus_on_t2_and_hardly_on_t1(level):
    for patient in (1, 2, 3):
        for sequence, least, most in (("T2", 0.15, 0.60), ("T1", 0.55, 0.97)):
            normal = draw(LevelFindings(level=level), patient, sequence)
            dry = draw(LevelFindings(level=level, dehydration=True), patient, sequence)
            rows, columns = (at.mean().astype(int) for at in np.nonzero(normal.mask == DISC))
            nucleus = (slice(rows - 6, rows + 7), slice(columns - 8, columns + 9))
            assert least < dry.image[nucleus].mean() / normal.image[nucleus].mean() < most


@pytest.mark.parametrize("patient", [1, 2, 3, 4])
def test_mask_lies_on_the_tissue_it_names(patient):
    t1, t2 = (draw(LevelFindings(level="L4/L5"), patient, sequence) for sequence in ("T1", "T2"))
    assert np.array_equal(t1.mask, t2.mask)
    assert set(np.unique(t2.mask)) == set(range(7))
    mean = {index: t2.image[t2.mask == index].mean() for index in range(1, 7)}
    assert mean[THECAL_SAC] > 2.0 * mean[PSOAS]
    assert mean[AREA_BETWEEN] > 1.5 * mean[PSOAS]
    assert mean[THECAL_SAC] > 1.4 * mean[DISC]
    assert t1.image[t1.mask == THECAL_SAC].mean() < t1.image[t1.mask == PARASPINAL_MUSCLE].mean()


def test_spacing_makes_the_disc_as_wide_as_a_disc():
    for record in records_of(25)[::2]:
        columns = np.nonzero(np.asarray(record.load_mask()) == DISC)[1]
        width_mm = (columns.max() - columns.min() + 1) * record.pixel_spacing_mm
        assert 40 < width_mm < 62


@pytest.mark.parametrize(("bulge", "least_mm", "most_mm"), [("mild", 3.0, 3.8), ("severe", 5.8, 6.8)])
def test_a_bulge_moves_the_margin_by_its_millimetres(bulge, least_mm, most_mm):
    for patient in (1, 2, 3, 4):
        margins = []
        for findings in (LevelFindings(level="L5/S1"), LevelFindings(level="L5/S1", bulge=bulge)):
            disc = draw(findings, patient).mask == DISC
            middle = int(np.nonzero(disc)[1].mean())
            margins.append(np.nonzero(disc[:, middle - 10 : middle + 11].any(axis=1))[0].max())
        assert least_mm - 1.5 < margins[1] - margins[0] < most_mm + 1.5  # pixels are near 1 mm


def test_a_finding_changes_no_pixel_far_from_its_level():
    normal = draw(LevelFindings(level="L4/L5"))
    worst = LevelFindings(level="L4/L5", bulge="severe", stenosis="severe", hypertrophy=True, dehydration=True)
    changed = np.nonzero(normal.image != draw(worst).image)
    assert changed[0].min() > 40 and changed[0].max() < 152
    assert changed[1].min() > 40 and changed[1].max() < 152


def affirmed_facts(record, text):
    """Facts that a text affirms; those that an axial report states without a level are of its own."""
    level = None if record.level == "several" else record.level
    facts = {(kind, place or level, *rest) for kind, place, *rest in report_facts(text) if not rest[-1]}
    # Contact with the sac is a wording of a bulge; grades have no words in axial reports.
    return {fact for fact in facts if fact[0] not in ("thecal sac contact", "Pfirrmann grade")}


def test_sagittal_reports_state_the_facts_of_the_axial_ones():
    axial = defaultdict(list)
    for record in records_of(40):
        axial[record.patient_id].append(record)
    for record in records_of(40, plane="sagittal"):
        same_patient = axial[record.patient_id]
        expected = set().union(*(affirmed_facts(other, other.report) for other in same_patient))
        for text in (record.report, *record.rephrasings):
            assert affirmed_facts(record, text) == expected, text
        is_normal = all(other.labels == (NO_FINDING,) for other in same_patient)
        assert record.labels == ((NO_FINDING,) if is_normal else (LOW_BACK_PAIN,))
        assert record.grade == max(other.grade for other in same_patient)
        assert record.pixel_spacing_mm == same_patient[0].pixel_spacing_mm


def test_a_sagittal_patient_has_two_records_that_share_mask_and_report():
    records = records_of(3, plane="sagittal")
    assert [record.sequence for record in records] == ["T1", "T2"] * 3
    assert {(record.plane, record.level) for record in records} == {("sagittal", "several")}
    for t1, t2 in zip(records[::2], records[1::2], strict=True):
        assert (t1.report, t1.rephrasings, t1.patient_id) == (t2.report, t2.rephrasings, t2.patient_id)
        assert t1.load_mask().tobytes() == t2.load_mask().tobytes()
        assert t1.load_image().size == t1.load_mask().size
    assert describe(ReadOptions(raw=None, plane="sagittal")).mask_names == SAGITTAL_MASK_NAMES
    assert describe(ReadOptions(raw=None)).mask_names == MASK_NAMES


def test_pfirrmann_grades_follow_the_dehydration_that_axial_slices_show():
    for patient in range(1, 200):
        facts = sagittal_facts(0, patient)
        for findings, grade in zip(facts.levels, facts.pfirrmann[-3:], strict=True):
            assert (grade >= 3) == findings.dehydration
        assert not facts.is_normal or max(facts.pfirrmann) <= 2


def test_axial_slices_are_those_of_earlier_versions():
    digest = hashlib.sha256()
    for record in records_of(2):
        digest.update(repr((record.report, record.rephrasings, record.labels, record.grade)).encode())
        digest.update(record.load_mask().tobytes())
    assert digest.hexdigest() == "29e33767dac47be56f264ebf51d1fca53d37166c154dc410da11f99eb44a18d3"


def test_a_folder_or_no_patients_is_refused():
    with pytest.raises(ValueError, match="leave raw out"):
        next(read(ReadOptions(raw=Path("somewhere"))))
    with pytest.raises(ValueError, match="num_patients=0"):
        next(read(ReadOptions(raw=None, num_patients=0)))
