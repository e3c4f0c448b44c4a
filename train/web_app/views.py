"""Compute what the page shows for what a user chose; knows nothing of Gradio."""

from collections.abc import Sequence
from dataclasses import dataclass

from train.web_app.answer_words import (
    NO_ANSWER,
    answer_rows,
    name_in_sentence,
    outside_notes,
    own_notes,
    own_rows,
    patient_verdict,
    reasons_of,
    report_rows,
    study_rows,
    verdict_lines,
)
from train.web_app.answers import Answer, AnyReader, Reader, calibrated_answers, embed_slices, own_answer, study_answer
from train.web_app.explanations import METHODS, NO_MAP, explanation_map, heat_picture, legend_picture, subjects
from train.web_app.pictures import slice_html
from train.web_app.report_index import ReportIndex
from train.web_app.uploads import Slice, Upload

NUM_REPORTS = 4
SCORES_ONLY = "Scores only, as you asked: they mean nothing for such an image."

Rows = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class SliceView:
    """What the page shows of a slice; rows are empty where there is nothing to show."""

    picture: str  # the slice and its map, as HTML
    subject: str  # what the map explains
    subjects: list[str]  # what it could explain
    outside: str  # why the slice is outside the scope of the checkpoint; empty if it is inside
    verdicts: list[str]  # the answers in a line each
    reasons: list[str]  # why there are none
    answers: Rows
    own: Rows  # of the user's own finding
    own_notes: list[str]
    reports: Rows


def view_slice(
    reader: AnyReader,
    index: ReportIndex | None,
    slice_: Slice,
    *,
    finding: str = "",
    subject: str = "",
    method: str = NO_MAP,
    score_outside: bool = False,
) -> SliceView:
    """Answer for one slice, unless it is outside the scope of the checkpoint.

    Args:
        reader: The checkpoint.
        index: Reports to search, if any.
        slice_: The slice.
        finding: The user's own, from `own_finding`; may be empty.
        subject: Name of what the map explains; an unknown one means the likeliest answer.
        method: One of `METHODS`, followed by the next ones where it shows nothing. Another name means no map.
        score_outside: Whether to score a slice outside the scope. It gets no answers either way.
    """
    embeds, (outside,) = embed_slices(reader, [slice_])
    if outside and not score_outside:
        return SliceView(
            picture=slice_html(slice_, None, ""),
            subject="",
            subjects=[],
            outside=outside,
            verdicts=[NO_ANSWER],
            reasons=[outside],
            answers=[],
            own=[],
            own_notes=[],
            reports=[],
        )
    answers = calibrated_answers(reader, embeds, [outside])[0] if reader.questions else []
    own = own_answer(reader, embeds, finding) if finding and isinstance(reader, Reader) else None
    names = [explained.name for explained in subjects(reader, finding)]
    subject = subject if subject in names else (finding or likeliest(answers))
    nearest = index.nearest(embeds[0].float().cpu().numpy(), NUM_REPORTS) if index else []
    return SliceView(
        picture=_picture(reader, slice_, finding, subject, method),
        subject=subject,
        subjects=names,
        outside=outside or "",
        verdicts=[NO_ANSWER] if outside else verdict_lines(answers),
        reasons=[outside, SCORES_ONLY] if outside else reasons_of(answers),
        answers=answer_rows(answers),
        own=own_rows(own) if own else [],
        own_notes=own_notes(own) if own else [],
        reports=report_rows(nearest),
    )


def view_study(reader: AnyReader, upload: Upload) -> tuple[str, Rows]:
    """Answer for a patient with a sentence, and rows of the mean and of each slice; none outside the scope counts.

    Raises:
        ValueError: If the checkpoint has no calibration.
    """
    embeds, outside = embed_slices(reader, upload.slices)
    inside = [place for place, reason in enumerate(outside) if reason is None]
    study = study_answer(reader, embeds[inside]) if inside else None
    verdict = [patient_verdict(study, reader.questions)] if study else []
    rows = study_rows(upload.slices, outside, study, reader.questions)
    return " ".join([*verdict, *outside_notes(outside)]), rows


def likeliest(answers: Sequence[Answer]) -> str:
    """Name what a map explains unless the user says otherwise: the answer, or the likeliest class or finding.

    The answer may be another class than the likeliest: prediction sets have a threshold for each class.

    Example:
        >>> absent = {"label": "bulge", "probabilities": {"absent": 0.9, "present": 0.1}}
        >>> likeliest([absent, {"label": "stenosis", "probabilities": {"absent": 0.6, "present": 0.4}}])
        'stenosis'
    """
    probabilities = {
        name: probability
        for answer in answers
        for name, probability in (
            ({answer["answer"]: 1.0} if answer["answer"] else answer["probabilities"]).items()
            if answer["label"] is None
            else [(answer["label"], list(answer["probabilities"].values())[1])]
        )
    }
    return max(probabilities, key=lambda name: probabilities[name], default="")


def _picture(reader: AnyReader, slice_: Slice, finding: str, subject: str, method: str) -> str:
    explained = {found.name: found for found in subjects(reader, finding)}.get(subject)
    if method not in METHODS or explained is None or not isinstance(reader, Reader):
        return slice_html(slice_, None, "")
    said: list[str] = []
    name = name_in_sentence(subject)
    methods = list(METHODS)
    for tried in methods[methods.index(method) :]:
        try:
            heat = heat_picture(explanation_map(reader, slice_, explained, tried))
        except ValueError as error:  # a tower that this kind of map is not made for
            said.append(f"No {tried}: {error}")
            continue
        if heat is not None:
            return slice_html(
                slice_, heat, " ".join([*said, f"{tried} for “{name}”, on its own scale:"]), legend_picture()
            )
        said.append(f"{tried} for “{name}” is blank: no place of the slice speaks for it more than others.")
    return slice_html(slice_, None, " ".join(said))
