"""From what a user has chosen to what the page shows; knows nothing of the library that draws the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from train.web_app.answer_html import answers_html, message_html, own_answer_html, reports_html, study_html
from train.web_app.answers import Answer, Reader, calibrated_answers, embed_slices, own_answer, study_answer
from train.web_app.explanations import METHODS, explanation_map, heat_picture, subjects
from train.web_app.picture_html import slice_html
from train.web_app.report_index import ReportIndex
from train.web_app.uploads import Slice, Upload

NUM_REPORTS = 4
NO_CALIBRATION = (
    "This checkpoint carries no calibration, so it has no questions of its own and no probabilities to trust. Ask for "
    "a finding in your own words."
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user has chosen to see.

    Args:
        shown: Labels of the checkpoint's findings to show.
        finding: The user's own finding, checked; empty for none.
        subject: Name of what the map explains; one that does not exist falls back to the likeliest answer.
        method: How; where that shows nothing, the next of `METHODS`. A name that is no method means no map.
    """

    shown: tuple[str, ...] = ()
    finding: str = ""
    subject: str = ""
    method: str = "None"


@dataclass(frozen=True, kw_only=True)
class SliceView:
    """What the page shows of a slice, in HTML, and what the map explains.

    Args:
        picture: The slice and its map.
        answers: Of the checkpoint's questions.
        own: Of the user's own finding; empty without.
        reports: The nearest of the index; empty without one.
        subject: What the map explains.
        subjects: What it could.
    """

    picture: str
    answers: str
    own: str
    reports: str
    subject: str
    subjects: list[str]


def view_slice(reader: Reader, index: ReportIndex | None, slice_: Slice, choices: Choices) -> SliceView:
    """Answer for one slice."""
    embeds = embed_slices(reader, [slice_.image])
    answers = calibrated_answers(reader, embeds)[0] if reader.calibration else []
    names = [subject.name for subject in subjects(reader, choices.finding)]
    subject = choices.subject if choices.subject in names else (choices.finding or likeliest(answers))
    return SliceView(
        picture=_picture(reader, slice_, choices, subject),
        answers=(
            answers_html(answers, reader.calibration, choices.shown)
            if reader.calibration
            else message_html([NO_CALIBRATION], "note")
        ),
        own=own_answer_html(own_answer(reader, embeds, choices.finding)) if choices.finding else "",
        reports=_reports(index, embeds),
        subject=subject,
        subjects=names,
    )


def view_study(reader: Reader, upload: Upload) -> str:
    """Answer for a patient, from several slices."""
    if not reader.calibration:
        return message_html([NO_CALIBRATION.replace("Ask for", "Take one slice and ask for")], "note")
    study = study_answer(reader, embed_slices(reader, [slice_.image for slice_ in upload.slices]))
    return study_html(upload.slices, study, reader.calibration)


def likeliest(answers: Sequence[Answer]) -> str:
    """Name what a map explains unless the user says otherwise: the likeliest class, or the likeliest finding.

    Example:
        >>> absent = {"label": "bulge", "probabilities": {"absent": 0.9, "present": 0.1}}
        >>> likeliest([absent, {"label": "stenosis", "probabilities": {"absent": 0.6, "present": 0.4}}])
        'stenosis'
    """
    probabilities = {
        name: probability
        for answer in answers
        for name, probability in (
            answer["probabilities"].items()
            if answer["label"] is None
            else [(answer["label"], list(answer["probabilities"].values())[1])]
        )
    }
    return max(probabilities, key=lambda name: probabilities[name], default="")


def _picture(reader: Reader, slice_: Slice, choices: Choices, subject: str) -> str:
    explained = {found.name: found for found in subjects(reader, choices.finding)}.get(subject)
    if choices.method not in METHODS or explained is None:
        return slice_html(slice_, None, "")
    said: list[str] = []
    methods = list(METHODS)
    for method in methods[methods.index(choices.method) :]:
        try:
            heat = heat_picture(explanation_map(reader, slice_.image, explained, method))
        except ValueError as error:  # a tower that this kind of map is not made for
            said.append(f"No {method}: {error}")
            continue
        if heat is not None:
            said.append(f"{method} for “{subject}”, on its own scale:")
            return slice_html(slice_, heat, " ".join(said))
        said.append(f"{method} for “{subject}” is blank: no place of the slice speaks for it more than others.")
    return slice_html(slice_, None, " ".join(said))


def _reports(index: ReportIndex | None, embeds: Tensor) -> str:
    if index is None:
        return ""
    return reports_html(index.nearest(embeds[0].float().cpu().numpy(), NUM_REPORTS), index.what)
