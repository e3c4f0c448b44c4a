"""Answers in plain words and bars, as HTML. Whatever comes from a file or a user is escaped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain

from data_scripts.records import NO_FINDING
from data_scripts.reports.text import exchange_sides
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from train.web_app.answers import Answer, OwnAnswer, StudyAnswer
from train.web_app.picture_html import data_uri, thumbnail
from train.web_app.report_index import NearReport
from train.web_app.uploads import Slice

# LBP, low back pain, is the paper's name for levels with any finding.
_LONG_NAMES = {"LBP": "A finding (LBP)", "No Finding": "No finding"}
SIDES = "The patient’s left is on the right of an axial picture; a single sagittal slice does not tell left from right."
# Means of two choices that differ by less name neither. A number of ours: none was fitted on patients.
CLOSE = 0.1


@dataclass(frozen=True, kw_only=True)
class _NearWords:
    """How nearest reports are spoken of.

    Args:
        heading: Above them.
        similarity: What the cosine compares.
        note: Below them.
    """

    heading: str
    similarity: str
    note: str


_NEAR_WORDS = {
    "images": _NearWords(
        heading="Reports of the most similar images",
        similarity="similarity of the images",
        note="Found by their images: the texts were not compared. They describe those images, not this slice.",
    ),
    "reports": _NearWords(
        heading="Reports whose text is nearest to the slice",
        similarity="similarity of text and slice",
        note="Found by their texts: their images were not compared. They describe those images, not this slice.",
    ),
}


def message_html(messages: Sequence[str], kind: str = "error") -> str:
    """Say what went wrong (`error`, read out at once) or what to know (`note`)."""
    role = "alert" if kind == "error" else "status"
    said = "".join(f"<p>{escape(message)}</p>" for message in messages)
    return f'<div class="lc-message lc-{kind}" role="{role}">{said}</div>' if messages else ""


def percent(probability: float) -> str:
    """Write a probability as nobody would misread it: never 0 % or 100 %.

    Example:
        >>> percent(0.834), percent(0.9992), percent(0.001)
        ('83 %', '> 99 %', '< 1 %')
    """
    if probability > 0.99:
        return "> 99 %"
    return "< 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"


def long_name(name: str) -> str:
    """Name of a class for someone who has not read the paper."""
    return _LONG_NAMES.get(name, name[:1].upper() + name[1:])


def answers_html(answers: Sequence[Answer], calibration: ZeroShotCalibration, shown: Sequence[str]) -> str:
    """Show the answers of one slice.

    Args:
        answers: One a question.
        calibration: Of the same questions.
        shown: Labels of the findings to show; those of exclusive classes always are.
    """
    cards = [
        _answer_card(answer, question)
        for answer, question in zip(answers, calibration.questions, strict=True)
        if question.label is None or question.label in shown
    ]
    return "".join([*cards, f'<p class="lc-small">{escape(coverage_words(calibration))}</p>'])


def coverage_words(calibration: ZeroShotCalibration) -> str:
    """Say what a prediction set promises, and to whom."""
    return (
        f"A prediction set is made to hold the truth for at least {calibration.target_coverage:.0%} of the slices of "
        "new patients like those of the calibration. Where it holds more than one choice, or none, the model abstains. "
        "On other patients, scanners or body parts nothing is promised, and the model answers any picture."
    ).replace("%", " %")


def calibrated_on(calibration: ZeroShotCalibration | None) -> str:
    """Say what the answers were calibrated on, in one line."""
    if calibration is None:
        return "not calibrated: it can be asked in your own words only"
    fitted = calibration.fitted_on
    if not {"dataset", "split", "num_rows", "num_patients"} <= fitted.keys():
        return "calibrated"
    return (
        f"calibrated on {fitted['num_rows']} slices of {fitted['num_patients']} patients ({fitted['dataset']}, "
        f"{fitted['split']})"
    )


def own_answer_html(own: OwnAnswer) -> str:
    """Show the answer to a finding in the user's own words."""
    has_side = exchange_sides(own.finding) != own.finding
    sides = f'<p class="lc-small">{escape(SIDES)}</p>' if has_side else ""
    unknown = message_html([unknown_words_note(own.unknown_words)], "note") if own.unknown_words else ""
    return (
        f'<section class="lc-card lc-own"><h3>{escape(long_name(own.finding))}?</h3>'
        f'<p class="lc-verdict lc-abstains">Not calibrated: a comparison of sentences</p>{unknown}'
        f"{_bar('More like “present”', own.probability)}{_bar('More like “absent”', 1 - own.probability)}"
        f'<p class="lc-small">How much more the slice is like the statement than like its denial. '
        f"{percent(own.probability)} does not mean that so many of a hundred such slices show it.</p>{sides}"
        f"{_wording(['present', 'absent'], [own.statements, own.denials])}</section>"
    )


def unknown_words_note(words: Sequence[str]) -> str:
    """Say which words of a finding the model does not know.

    Example:
        >>> unknown_words_note(["qwerty"])
        'The model does not know the word “qwerty”, so the answer may not be about it.'
    """
    named = ", ".join(f"“{word}”" for word in words)
    if len(words) == 1:
        return f"The model does not know the word {named}, so the answer may not be about it."
    return f"The model does not know the words {named}, so the answer may not be about them."


def reports_html(reports: Sequence[NearReport], what: str) -> str:
    """Show the nearest reports, the nearest first.

    Args:
        reports: Of `ReportIndex.nearest`.
        what: What of them was compared, `ReportIndex.what`.
    """
    words = _NEAR_WORDS[what]
    items = "".join(
        f"<li><p>{escape(near.report)}</p>"
        f'<p class="lc-small">{words.similarity} {near.similarity:.2f} · {escape(near.source)}</p></li>'
        for near in reports
    )
    return (
        f'<section class="lc-card"><h3>{words.heading}</h3><ol class="lc-reports">{items}</ol>'
        f'<p class="lc-small">{words.note}</p></section>'
    )


def study_html(slices: Sequence[Slice], study: StudyAnswer, calibration: ZeroShotCalibration) -> str:
    """Show the answer for a patient, and below it that of each slice."""
    return (
        f'<section class="lc-card"><h3>The patient: mean of {len(slices)} slices</h3>'
        f"<p><b>{escape(patient_verdict(study, calibration))}</b></p>"
        f"{''.join(_pooled_bars(q, of_q) for q, of_q in zip(calibration.questions, study.pooled, strict=True))}"
        '<p class="lc-small">The mean of the probabilities below. A finding on one slice of many hardly moves it. '
        "Prediction sets hold for single slices, so there is none for the mean.</p></section>"
        f"{_slice_table(slices, study, calibration)}"
        f'<p class="lc-small">{escape(coverage_words(calibration))}</p>'
    )


def _answer_card(answer: Answer, question: CalibratedQuestion) -> str:
    probabilities = answer["probabilities"]
    heading = "What does the slice show?" if question.label is None else f"{long_name(question.label)}?"
    bars = "".join(_bar(long_name(choice), probability) for choice, probability in probabilities.items())
    words, abstains = verdict(answer)
    held = ", ".join(long_name(choice) for choice in answer["prediction_set"]) or "empty"
    return (
        f'<section class="lc-card"><h3>{escape(heading)}</h3>'
        f'<p class="lc-verdict {"lc-abstains" if abstains else "lc-answers"}">{escape(words)}</p>{bars}'
        f'<p class="lc-small">Prediction set: {escape(held)}</p>'
        f"{_wording(question.choices, question.prompts)}</section>"
    )


def verdict(answer: Answer) -> tuple[str, bool]:
    """Say the answer in words, and whether it is that the model abstains.

    Example:
        >>> verdict({"answer": None, "prediction_set": ["absent", "present"]})
        ('No answer: absent and present both remain possible', True)
    """
    held = answer["prediction_set"]
    if answer["answer"] is not None:
        return f"Answer: {_in_sentence(answer['answer'])}", False
    if not held:
        return "No answer: the slice fits none of the choices", True
    all_of_them = "both" if len(held) == 2 else "all"
    first, last = ", ".join(map(_in_sentence, held[:-1])), _in_sentence(held[-1])
    return f"No answer: {first} and {last} {all_of_them} remain possible", True


def patient_verdict(study: StudyAnswer, calibration: ZeroShotCalibration) -> str:
    """Say in words what the mean over a patient's slices names, and what single slices show beside it.

    Args:
        study: The answer for the patient. The calibration is that of single slices.
        calibration: Of the same questions.

    Example:
        >>> asked = CalibratedQuestion("disc bulge", ["absent", "present"], [["normal"], ["bulge"]], 1.0, [1.0, 1.0])
        >>> bulges = StudyAnswer(of_slices=[], pooled=[{"absent": 0.3, "present": 0.7}])
        >>> patient_verdict(bulges, ZeroShotCalibration([asked], 0.9, {}))
        'In the mean over the slices, more likely than not: disc bulge. This is not calibrated for patients.'
    """
    likely, close = _likely_and_close(study.pooled, calibration)
    in_words = _class_words if calibration.questions[0].label is None else _finding_words
    of_slices = [
        _likely_and_close([answer["probabilities"] for answer in answers], calibration)[0]
        for answers in study.of_slices
    ]
    single = [
        f"{_in_sentence(name)} ({count} of {len(of_slices)})"
        for name, count in Counter(chain.from_iterable(of_slices)).most_common()
        if name not in (*likely, *close, NO_FINDING)
    ]
    said = [
        f"In the mean over the slices, {in_words([*map(_in_sentence, likely)], [*map(_in_sentence, close)])}",
        *([f"On single slices: {', '.join(single)}"] if single else []),
        "This is not calibrated for patients.",
    ]
    return ". ".join(said)


def _likely_and_close(
    of_questions: Sequence[dict[str, float]], calibration: ZeroShotCalibration
) -> tuple[list[str], list[str]]:
    """Name the findings that are likely, or the likeliest of exclusive classes, and those too close to say."""
    likely, close = [], []
    for question, probabilities in zip(calibration.questions, of_questions, strict=True):
        first, second = sorted(probabilities, key=lambda choice: -probabilities[choice])[:2]
        is_close = probabilities[first] - probabilities[second] < CLOSE
        if question.label is None:
            likely += [] if is_close else [first]
            close += [first, second] if is_close else []
        elif question.label != NO_FINDING:  # which is said by naming no other
            likely += [question.label] if first == question.choices[1] and not is_close else []
            close += [question.label] if is_close else []
    return likely, close


def _class_words(likely: Sequence[str], close: Sequence[str]) -> str:
    if close:
        return f"no answer: {' and '.join(close)} are about as probable"
    return f"most probable: {likely[0]}"


def _finding_words(likely: Sequence[str], close: Sequence[str]) -> str:
    named = (("more likely than not", likely), ("too close to say", close))
    said = [f"{what}: {', '.join(names)}" for what, names in named if names]
    return "; ".join(said) or "none of the findings is more likely than not"


def _in_sentence(name: str) -> str:
    """A class within a sentence: "No Finding" as "no finding", and "Pfirrmann >= 4" as it is."""
    return _LONG_NAMES[name].replace("A ", "a ").replace("No ", "no ") if name in _LONG_NAMES else name


def _bar(name: str, probability: float) -> str:
    return (
        f'<div class="lc-row"><span class="lc-name">{escape(name)}</span>'
        f'<span class="lc-bar" aria-hidden="true"><span style="width:{100 * probability:.1f}%"></span></span>'
        f'<span class="lc-percent">{escape(percent(probability))}</span></div>'
    )


def _wording(choices: Sequence[str], prompts: Sequence[Sequence[str]]) -> str:
    """The sentences that stand for each choice, folded."""
    said = "".join(
        f"<li><b>{escape(long_name(choice))}</b>: {escape(' '.join(sentences))}</li>"
        for choice, sentences in zip(choices, prompts, strict=True)
    )
    return f"<details><summary>Asked in these words</summary><ul>{said}</ul></details>"


def _pooled_bars(question: CalibratedQuestion, probabilities: dict[str, float]) -> str:
    if question.label is not None:
        return _bar(long_name(question.label), probabilities[question.choices[1]])
    return "".join(_bar(long_name(choice), probability) for choice, probability in probabilities.items())


def _slice_table(slices: Sequence[Slice], study: StudyAnswer, calibration: ZeroShotCalibration) -> str:
    names = ["Answer" if q.label is None else long_name(q.label) for q in calibration.questions]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row"><img src="{data_uri(thumbnail(slice_.image))}" alt="" width="56" height="56">'
        f'<span>{escape(slice_.name)}<br><span class="lc-small">{escape(slice_.facts)}</span></span></th>'
        f"{''.join(_cell(answer, name) for answer, name in zip(answers, names, strict=True))}</tr>"
        for slice_, answers in zip(slices, study.of_slices, strict=True)
    )
    return (
        '<div class="lc-table"><table><caption>Slice by slice</caption>'
        f'<thead><tr><th scope="col">Slice</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(answer: Answer, name: str) -> str:
    """A question of a slice: the answer, or that there is none, and the probability that goes with it."""
    shown = answer["answer"] or max(answer["probabilities"], key=answer["probabilities"].get)
    words = long_name(shown) if answer["answer"] else f"No answer (rather {_in_sentence(shown)})"
    return f'<td data-label="{escape(name)}">{escape(words)}, {escape(percent(answer["probabilities"][shown]))}</td>'
