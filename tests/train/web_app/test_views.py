"""What the page says: probabilities, abstention, and nothing that a file could smuggle in."""

import re
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, FeatureCheck, Scope, ZeroShotCalibration
from tests.train.web_app.conftest import CALIBRATION
from train.web_app import views
from train.web_app.answer_words import (
    REPORTS_HEADING,
    REPORTS_NOTE,
    SIDES,
    answer_rows,
    calibrated_on,
    coverage_words,
    patient_verdict,
    scope_note,
    verdict,
    verdict_lines,
    wording_rows,
)
from train.web_app.answers import StudyAnswer, question_prompts, seen_slice
from train.web_app.examples import EXAMPLES, example_study, example_upload
from train.web_app.explanations import METHODS
from train.web_app.pictures import headline_html, message_html
from train.web_app.report_index import ReportIndex
from train.web_app.uploads import Upload, make_slice
from train.web_app.views import view_slice, view_study

HOSTILE = '<img src=x onerror=alert(1)>"'
ALL = ("disc bulge", "left bulge")


def words(html: str) -> str:
    """What is read, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


@pytest.fixture
def slice_(uncalibrated):
    return example_upload(EXAMPLES[1], partial(seen_slice, uncalibrated)).slices[0]


def answer_of(present: float, held: list[str]):
    answer = held[0] if len(held) == 1 else None
    probabilities = {"absent": 1 - present, "present": present}
    return {"label": "disc bulge", "probabilities": probabilities, "prediction_set": held, "answer": answer}


@pytest.mark.parametrize(
    ("present", "held", "said"),
    [
        (0.83, ["present"], ["Present", "Present", "Absent 17 %, Present 83 %"]),
        (
            0.60,
            ["absent", "present"],
            ["No answer: absent and present both remain possible", "Absent, Present", "Absent 40 %, Present 60 %"],
        ),
        (0.999, [], ["No answer: the slice fits none of the choices", "Empty", "Absent < 1 %, Present > 99 %"]),
    ],
)
def test_an_answer_and_its_abstention_in_words(present, held, said):
    calibration = ZeroShotCalibration.from_dict({**CALIBRATION, "questions": CALIBRATION["questions"][:1]})
    assert answer_rows([answer_of(present, held)]) == [["Disc bulge?", *said]]
    assert "at least 90 %" in coverage_words(calibration)
    assert wording_rows(calibration)[0] == ["Disc bulge?", "Absent", "no disc bulge. normal disc."]


def test_classes_are_named_for_readers_who_do_not_know_the_paper():
    assert verdict({"answer": "LBP", "prediction_set": ["LBP"]}) == "Low back pain pattern (LBP)"
    both = verdict({"answer": None, "prediction_set": ["LBP", "No Finding"]})
    assert both == "No answer: low back pain pattern (LBP) and no finding both remain possible"


def test_the_answers_are_said_in_a_line_each():
    """A class is named as the dataset calls it: a low back pain pattern need not be a finding."""
    classes = {
        "label": None,
        "prediction_set": ["LBP"],
        "answer": "LBP",
        "probabilities": {"LBP": 0.9, "No Finding": 0.1},
    }
    assert verdict_lines([classes]) == ["Low back pain pattern (LBP), 90 %"]
    assert verdict_lines([classes | {"prediction_set": [], "answer": None}]) == [
        "No answer: the slice fits none of the choices"
    ]
    answers = [answer_of(0.9, ["present"]), answer_of(0.1, ["absent"]), answer_of(0.5, []), answer_of(0.8, ["present"])]
    assert verdict_lines(answers) == ["Present: disc bulge, disc bulge", "Absent: disc bulge", "No answer: disc bulge"]
    assert verdict_lines([]) == []


def test_answers_of_other_weights_are_scores_and_a_reason(reader, slice_):
    with torch.no_grad():
        reader.model.image_projection.weight.add_(0.01)
    view = view_slice(reader, None, slice_)
    assert view.verdicts == ["No answer"]
    assert view.reasons[0].lower() == calibration_problem(reader.model).lower().removeprefix("no answer: ")
    assert [row[1:3] for row in view.answers] == [["No answer", "-"]] * 2
    assert view.reasons[0] in headline_html("slice", view.verdicts, view.reasons)
    assert calibrated_on(reader) == "whose calibration is not known to hold for its weights"
    assert all(re.search(r"Present .* %", row[3]) for row in view.answers)  # the scores
    said, rows = view_study(reader, example_study(partial(seen_slice, reader)))
    assert said == f"No answer. {view.reasons[0]}" and "%" in rows[1][2]


def test_the_map_explains_what_was_chosen_or_the_likeliest(reader, slice_):
    view = view_slice(reader, None, slice_, method="Text-to-patch similarity")
    assert view.subject in ALL
    other = next(name for name in ALL if name != view.subject)
    chosen = view_slice(reader, None, slice_, subject=other, method="Text-to-patch similarity")
    assert chosen.subject == other
    assert f"Text-to-patch similarity for “{other}”" in chosen.picture
    assert chosen.picture.count('class="lc-heat"') == 1
    assert "lc-heat" not in view_slice(reader, None, slice_, method="None").picture


@pytest.mark.parametrize(("answer", "explained"), [("LBP", "LBP"), (None, "No Finding")])
def test_the_map_explains_the_answer_also_where_another_class_is_likelier(answer, explained):
    probabilities = {"LBP": 0.49, "No Finding": 0.51}
    assert views.likeliest([{"label": None, "answer": answer, "probabilities": probabilities}]) == explained


def test_where_grad_cam_is_blank_the_similarity_is_shown_and_it_is_said(reader, slice_, monkeypatch):
    monkeypatch.setitem(METHODS, "Grad-CAM", lambda *_: torch.zeros(1, 1, 2, 2))
    similarities = torch.tensor([[[[-1.0, -0.5], [0.5, 1.0]]]])
    monkeypatch.setitem(METHODS, "Text-to-patch similarity", lambda *_: similarities)
    chosen = {"subject": "left bulge", "method": "Grad-CAM"}
    said = words(view_slice(reader, None, slice_, **chosen).picture)
    assert "Grad-CAM for “left bulge” is blank" in said
    assert "Text-to-patch similarity for “left bulge”, on its own scale: low high" in said
    monkeypatch.setitem(METHODS, "Text-to-patch similarity", lambda *_: -similarities.abs())
    picture = view_slice(reader, None, slice_, **chosen).picture
    assert "Text-to-patch similarity for “left bulge” is blank" in picture
    assert "lc-heat" not in picture


def test_where_grad_cam_shows_something_nothing_takes_its_place(reader, slice_, monkeypatch):
    monkeypatch.setitem(METHODS, "Grad-CAM", lambda *_: torch.eye(2)[None, None])
    said = words(view_slice(reader, None, slice_, method=next(iter(METHODS))).picture)
    assert "Grad-CAM for" in said
    assert "similarity" not in said


@pytest.mark.parametrize(
    ("finding", "is_sided"),
    [("left disc bulge", True), ("Rt paracentral protrusion", True), ("disc bulge", False), ("bilateral bulge", False)],
)
def test_an_own_finding_with_a_side_says_where_that_side_is(reader, slice_, finding, is_sided):
    assert (SIDES in view_slice(reader, None, slice_, finding=finding).own_notes) == is_sided


def test_an_own_finding_is_said_to_be_uncalibrated(reader, slice_):
    view = view_slice(reader, None, slice_, finding="stenosis")
    assert "Not calibrated" in view.own_notes[0]
    assert [row[0] for row in view.own] == ["More like “present”", "More like “absent”"]
    _, denials = question_prompts(reader.processor, "stenosis")
    assert view.own[1][2] == " ".join(denials) and "No spinal canal stenosis present." in denials
    assert view.subject == "stenosis"


def test_words_of_an_own_finding_that_the_model_does_not_know_are_named(reader, slice_):
    known, one, several = (
        " ".join(view_slice(reader, None, slice_, finding=finding).own_notes)
        for finding in ("left disc bulge", "foraminal bulge", "foraminal osteophyte at L4")
    )
    assert "does not know" not in known
    assert "The model does not know the word “foraminal”, so the answer may not be about it." in one
    assert (
        "The model does not know the words “foraminal”, “osteophyte”, so the answer may not be about them." in several
    )


def test_without_calibration_only_own_words_are_left(uncalibrated, slice_):
    view = view_slice(uncalibrated, None, slice_, method="Grad-CAM")
    assert view.answers == [] and view.subjects == []
    with pytest.raises(ValueError, match="no calibration"):
        view_study(uncalibrated, example_study(partial(seen_slice, uncalibrated)))
    assert calibrated_on(uncalibrated).startswith("not calibrated")


@pytest.mark.parametrize(
    ("what", "heading", "note"),
    [
        ("images", "Reports of the most similar images", "similarity of the images"),
        ("reports", "Reports whose text is nearest", "similarity of text and slice"),
    ],
)
def test_reports_are_those_of_the_index_and_called_by_what_was_compared(reader, slice_, what, heading, note):
    width = reader.model.config.projection_dim
    texts = [f"Report {n}." for n in range(width)]
    index = ReportIndex(np.eye(width, dtype=np.float32), texts, ["a/b"] * width, what)
    reports = view_slice(reader, index, slice_).reports
    assert len({report for report, _, _ in reports} & set(texts)) == 4
    assert all(re.fullmatch(r"-?\d\.\d\d", similarity) and source == "a/b" for _, similarity, source in reports)
    assert REPORTS_HEADING[what].startswith(heading)
    assert note in REPORTS_NOTE[what] and "not this slice" in REPORTS_NOTE[what]


def test_a_study_shows_the_mean_and_each_slice(reader, monkeypatch):
    study = views.study_answer
    monkeypatch.setattr(views, "study_answer", lambda *given: replace(study(*given), pooled=findings(0.9, 0.5)))
    said, (mean, *slices) = view_study(reader, example_study(partial(seen_slice, reader)))
    assert mean == ["", "The patient: mean of 6 slices", "90 %", "50 %"]
    assert len(slices) == 6
    assert slices[4][1] == "L5/S1 T1 · drawn with: severe right paracentral protrusion, dehydration"
    assert slices[0][0].startswith('<img src="data:image/png;base64,')
    assert "more likely than not: disc bulge; too close to say: left bulge. This is not calibrated" in said


def questions(*labels, choices=("absent", "present")):
    prompts = [["a."]] * len(choices)
    asked = [CalibratedQuestion(label, list(choices), prompts, 1.0, [1.0] * len(choices)) for label in labels]
    return ZeroShotCalibration(asked, 0.9, {}).questions


def study_of(pooled, *of_slices):
    """The answer for a patient: of each question the probabilities of the mean, and those of each slice."""
    return StudyAnswer(
        of_slices=[[{"probabilities": of_question} for of_question in of_slice] for of_slice in of_slices],
        pooled=pooled,
    )


def findings(*present):
    return [{"absent": 1 - probability, "present": probability} for probability in present]


def verdict_of_findings(pooled, *of_slices):
    asked = questions("disc bulge", "left bulge", "No Finding")
    return patient_verdict(study_of(findings(*pooled), *(findings(*of_slice) for of_slice in of_slices)), asked)


CHOICES = ("LBP", "No Finding", "stenosis")


def verdict_of_classes(pooled, *of_slices):
    rows = [[dict(zip(CHOICES, probabilities, strict=True))] for probabilities in (pooled, *of_slices)]
    return patient_verdict(study_of(*rows), questions(None, choices=CHOICES))


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ([0.9, 0.2, 0.7], "more likely than not: disc bulge"),
        ([0.9, 0.56, 0.7], "more likely than not: disc bulge, left bulge"),
        ([0.9, 0.46, 0.1], "more likely than not: disc bulge; too close to say: left bulge"),
        ([0.2, 0.1, 0.9], "none of the findings is more likely than not"),
        ([0.2, 0.54, 0.1], "too close to say: left bulge"),
    ],
)
def test_of_findings_the_verdict_of_a_patient_names_the_likely_in_the_mean(present, said):
    assert verdict_of_findings(present) == f"In the mean over the slices, {said}. This is not calibrated for patients."


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ([0.1, 0.7, 0.2], "most probable: no finding"),
        ([0.4, 0.3, 0.3], "most probable: low back pain pattern (LBP)"),
        ([0.35, 0.25, 0.4], "no answer: stenosis and low back pain pattern (LBP) are about as probable"),
    ],
)
def test_of_exclusive_classes_the_verdict_of_a_patient_is_the_most_probable_in_the_mean(probabilities, said):
    verdict_words = verdict_of_classes(probabilities)
    assert verdict_words == f"In the mean over the slices, {said}. This is not calibrated for patients."


@pytest.mark.parametrize(
    ("pooled", "of_slices", "said"),
    [
        (
            [0.143, 0.1, 0.9],
            [[0.98, 0.1, 0.1], *[[0.05, 0.1, 0.99]] * 9],
            "than not. On single slices: disc bulge (1 of 10)",
        ),
        (
            [0.2, 0.3, 0.5],
            [[0.56, 0.9, 0.1], [0.1, 0.9, 0.9], [0.54, 0.1, 0.9]],
            "left bulge (2 of 3), disc bulge (1 of 3)",
        ),
        (
            [0.7, 0.5, 0.5],
            [[0.9, 0.9, 0.1], [0.5, 0.1, 0.9]],
            "more likely than not: disc bulge; too close to say: left bulge",
        ),
        ([0.3, 0.3, 0.5], [[0.54, 0.54, 0.9]], "slices, none of the findings is more likely than not"),
    ],
)
def test_findings_of_single_slices_that_the_mean_does_not_name_are_told(pooled, of_slices, said):
    assert verdict_of_findings(pooled, *of_slices).endswith(f"{said}. This is not calibrated for patients.")


@pytest.mark.parametrize(
    ("pooled", "of_slices", "said"),
    [
        (
            [0.3, 0.6, 0.1],
            [[0.9, 0.05, 0.05], *[[0.1, 0.8, 0.1]] * 3],
            "no finding. On single slices: low back pain pattern (LBP) (1 of 4)",
        ),
        ([0.6, 0.3, 0.1], [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]], "slices, most probable: low back pain pattern (LBP)"),
        ([0.2, 0.7, 0.1], [[0.48, 0.42, 0.1], [0.1, 0.8, 0.1]], "slices, most probable: no finding"),
    ],
)
def test_classes_of_single_slices_that_the_mean_does_not_name_are_told(pooled, of_slices, said):
    assert verdict_of_classes(pooled, *of_slices).endswith(f"{said}. This is not calibrated for patients.")


def test_what_comes_from_a_file_or_a_user_is_escaped_in_html(reader):
    image = Image.new("L", (40, 40), 60)
    hostile = make_slice(partial(seen_slice, reader), image, name=HOSTILE, facts=HOSTILE)
    view = view_slice(reader, None, hostile, finding=HOSTILE, method="Text-to-patch similarity")
    _, rows = view_study(reader, Upload(slices=(hostile, hostile)))
    thumbnails = [row[0] for row in rows]  # the one column of the page's tables that is HTML
    for html in (view.picture, message_html(view.own_notes), *thumbnails):
        assert "<img src=x" not in html


def test_pictures_carry_their_pixels_and_no_metadata(reader, slice_):
    view = view_slice(reader, None, slice_, method="Grad-CAM")
    sources = re.findall(r'src="([^"]{0,22})', view.picture)
    assert sources == ["data:image/png;base64,"] * len(sources)
    assert sources


SCOPE = Scope(
    **{"planes": ["axial"], "sequences": ["T2"], "anatomy": "lumbar spine", "is_synthetic": True, "num_patients": 9},
    no_check="2 validation patients",
)
SAGITTAL = "Trained on drawn axial T2 slices of the lumbar spine (9 drawn patients); this is a sagittal slice."


@pytest.fixture
def scoped(reader):
    reader.model.set_scope(SCOPE)
    return reader


@pytest.fixture
def sagittal(slice_):
    return replace(slice_, header={"plane": "sagittal", "sequence": "unknown", "anatomy": "unknown"})


def test_a_slice_outside_the_scope_gets_no_answer_but_why(scoped, slice_, sagittal):
    index = ReportIndex(np.eye(8, dtype=np.float32), ["Report."] * 8, ["a/b"] * 8, "images")
    view = view_slice(scoped, index, sagittal, finding="disc bulge", method="Grad-CAM")
    assert view.verdicts == ["No answer"] and view.reasons == [view.outside] == [SAGITTAL]
    assert not (view.answers or view.own or view.own_notes or view.reports or view.subjects)
    assert "lc-heat" not in view.picture and "<img" in view.picture
    inside = view_slice(scoped, index, slice_, finding="disc bulge", method="Grad-CAM")
    assert inside.outside == "" and inside.answers and inside.own and inside.reports


def test_scores_outside_the_scope_are_shown_on_request_without_an_answer(scoped, sagittal):
    view = view_slice(scoped, None, sagittal, score_outside=True)
    assert view.verdicts == ["No answer"] and view.reasons == [SAGITTAL, views.SCORES_ONLY]
    assert [row[1] for row in view.answers] == ["No answer", "No answer"]
    assert all("%" in row[3] for row in view.answers)


def test_a_study_answers_for_the_slices_inside_the_scope(scoped):
    upload = example_study(partial(seen_slice, scoped))
    outside = [replace(slice_, header={"plane": "sagittal"}) for slice_ in upload.slices[:2]]
    said, (mean, *rows) = view_study(scoped, replace(upload, slices=(*outside, *upload.slices[2:])))
    assert mean[1] == "The patient: mean of 4 slices"
    assert said.endswith(f"Without an answer, 2 of 6 slices. {SAGITTAL}")
    assert [row[2].startswith("No answer: outside the scope") for row in rows] == [True, True, *[False] * 4]
    said, rows = view_study(scoped, replace(upload, slices=tuple(outside)))
    assert said == f"Without an answer, 2 of 2 slices. {SAGITTAL}" and len(rows) == 2


def test_the_page_says_what_the_checkpoint_was_trained_on():
    drawn = "Trained on drawn axial T2 slices of the lumbar spine (9 drawn patients)."
    without = scope_note(asdict(SCOPE))
    assert without == f"{drawn} It does not notice other pictures without a DICOM header: 2 validation patients."
    check = FeatureCheck(threshold=1.0, false_alarm_rate=0.05, num_directions=1, num_images=20, num_patients=10)
    assert scope_note(asdict(replace(SCOPE, check=check, no_check=""))) == f"{drawn} Other pictures get no answer."
