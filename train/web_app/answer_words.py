"""Write answers in plain words: sentences, and the rows of the page's tables. All is text, never HTML."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from data_scripts.records import NO_FINDING
from data_scripts.reports.text import exchange_sides
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from modeling_lumbarclip.configuration_lumbarclip import Scope, ZeroShotCalibration
from modeling_lumbarclip.scope_lumbarclip import scope_in_words
from train.web_app.answers import Answer, AnyReader, OwnAnswer, StudyAnswer
from train.web_app.classifier import ClassifierReader, Question
from train.web_app.pictures import thumbnail_html
from train.web_app.report_index import NearReport
from train.web_app.uploads import Slice

# Of the paper's pair. What a dataset calls low back pain, its card says: not always that the slice shows a finding.
_LONG_NAMES = {"LBP": "Low back pain pattern (LBP)", "No Finding": "No finding"}
SIDES = (
    "The patient’s left is on the right of an axial or frontal picture; a single sagittal slice does not tell left "
    "from right."
)
# Means of two choices that differ by less name neither. A number of ours: none was fitted on patients.
CLOSE = 0.1
NO_ANSWER = "No answer"
OUTSIDE = "No answer: outside the scope"
PREDICTION_SET = "Prediction set"
ANSWER_HEADERS = ["Question", "Answer", PREDICTION_SET, "Probabilities"]
WORDING_HEADERS = ["Question", "Choice", "Sentences"]
OWN_HEADERS = ["The slice is", "Share", "Sentences"]
REPORT_HEADERS = ["Report", "Similarity", "Source"]
# By what was compared: above the nearest reports, and below them.
REPORTS_HEADING = {
    "images": "Reports of the most similar images",
    "reports": "Reports whose text is nearest to the slice",
}
REPORTS_NOTE = {
    "images": "Found by the similarity of the images. They describe those images, not this slice.",
    "reports": "Found by the similarity of text and slice. They describe other images, not this slice.",
}


def percent(probability: float) -> str:
    """Write a probability, but never as 0 % or 100 %.

    Example:
        >>> percent(0.834), percent(0.9992), percent(0.001)
        ('83 %', '> 99 %', '< 1 %')
    """
    if probability > 0.99:
        return "> 99 %"
    return "< 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"


def long_name(name: str) -> str:
    """Name a class for someone who has not read the paper."""
    return _LONG_NAMES.get(name, name[:1].upper() + name[1:])


def question_name(label: str | None) -> str:
    """Name the question about a finding, or, without a label, about exclusive classes; for its row or column."""
    return "What does the slice show?" if label is None else f"{long_name(label)}?"


def answer_headers(reader: AnyReader) -> list[str]:
    """Head the table of answers; a classifier has no prediction sets."""
    return [*ANSWER_HEADERS] if reader.calibration else [name for name in ANSWER_HEADERS if name != PREDICTION_SET]


def answer_rows(answers: Sequence[Answer]) -> list[list[str]]:
    """List the answers of one slice under `answer_headers`, one for each question."""
    return [
        [
            question_name(answer["label"]),
            verdict(answer),
            *([_set_words(answer)] if "prediction_set" in answer else []),
            _probabilities(answer["probabilities"]),
        ]
        for answer in answers
    ]


def _set_words(answer: Answer) -> str:
    """Name the choices that remain; a calibration that does not hold rules nothing out."""
    return "-" if answer.get("reason") else ", ".join(map(long_name, answer["prediction_set"])) or "Empty"


def wording_rows(calibration: ZeroShotCalibration) -> list[list[str]]:
    """List the sentences that represent each choice of each question, under `WORDING_HEADERS`."""
    return [
        [question_name(question.label), long_name(choice), " ".join(sentences)]
        for question in calibration.questions
        for choice, sentences in zip(question.choices, question.prompts, strict=True)
    ]


def own_rows(own: OwnAnswer) -> list[list[str]]:
    """Compare a user's finding with its denial, under `OWN_HEADERS`."""
    return [
        ["More like “present”", percent(own.probability), " ".join(own.statements)],
        ["More like “absent”", percent(1 - own.probability), " ".join(own.denials)],
    ]


def own_notes(own: OwnAnswer) -> list[str]:
    """Say how to read the answer to a user's finding, which words are unknown, and which side is which."""
    has_side = exchange_sides(own.finding) != own.finding
    return [
        f"{long_name(own.finding)}? Not calibrated: this compares sentences. {percent(own.probability)} is "
        "not the share of such slices that show it.",
        *([unknown_words_note(own.unknown_words)] if own.unknown_words else []),
        *([SIDES] if has_side else []),
    ]


def unknown_words_note(words: Sequence[str]) -> str:
    """Name the words of a finding that the model does not know.

    Example:
        >>> unknown_words_note(["qwerty"])
        'The model does not know the word “qwerty”, so the answer may not be about it.'
    """
    named, (noun, them) = (
        ", ".join(f"“{word}”" for word in words),
        ("word", "it") if len(words) == 1 else ("words", "them"),
    )
    return f"The model does not know the {noun} {named}, so the answer may not be about {them}."


def report_rows(reports: Sequence[NearReport]) -> list[list[str]]:
    """List the nearest reports, the nearest first, under `REPORT_HEADERS`."""
    return [[near.report, f"{near.similarity:.2f}", near.source] for near in reports]


def study_headers(questions: Sequence[Question]) -> list[str]:
    """Head the table of a patient's slices."""
    return ["Picture", "Slice", *(question_name(question.label) for question in questions)]


def study_rows(
    slices: Sequence[Slice],
    outside: Sequence[str | None],
    study: StudyAnswer | None,
    questions: Sequence[Question],
) -> list[list[str]]:
    """List the mean over a patient's slices, then each slice, under `study_headers`. Only the first cell is HTML.

    The study answers for the slices that are not `outside` the scope; None if all are.
    """
    answered = iter(study.of_slices if study else ())
    rows = [
        [
            thumbnail_html(slice_.image),
            " · ".join(filter(None, (slice_.name, slice_.facts))),
            *([OUTSIDE] * len(questions) if reason else map(_cell, next(answered))),
        ]
        for slice_, reason in zip(slices, outside, strict=True)
    ]
    if study is None:
        return rows
    means = [
        percent(pooled[question.choices[1]]) if question.label is not None else _probabilities(pooled)
        for question, pooled in zip(questions, study.pooled, strict=True)
    ]
    return [["", f"The patient: mean of {len(study.of_slices)} slices", *means], *rows]


def scope_note(stored: Mapping[str, Any] | None) -> str:
    """Say what the checkpoint was trained on, and what it does with other pictures; `stored` as in its configuration.

    Example:
        >>> scope_note(None)
        'It does not say what it was trained on, and answers any picture.'
    """
    if stored is None:
        return "It does not say what it was trained on, and answers any picture."
    scope = Scope.from_dict(dict(stored))
    trained = f"Trained on {scope_in_words(scope)}."
    if scope.check is None:
        return f"{trained} It does not notice other pictures without a DICOM header: {scope.no_check}."
    return f"{trained} Other pictures get no answer."


def outside_notes(outside: Sequence[str | None]) -> list[str]:
    """Say which slices of a study are outside the scope, and why."""
    counts = Counter(reason for reason in outside if reason)
    return [f"Without an answer, {count} of {len(outside)} slices. {reason}" for reason, count in counts.items()]


def coverage_words(calibration: ZeroShotCalibration) -> str:
    """Say what a prediction set promises, and to whom."""
    return (
        f"A prediction set is made to contain the truth for at least {calibration.target_coverage:.0%} of the slices "
        "of new patients like those of the calibration. If it contains more than one choice, or none, the model "
        "abstains. It promises nothing for other patients, scanners or body parts."
    ).replace("%", " %")


def calibrated_on(reader: AnyReader) -> str:
    """Say what the answers were calibrated on, in one line."""
    if isinstance(reader, ClassifierReader):
        config = reader.model.config
        has_temperatures = config.class_temperatures is not None and not calibration_problem(reader.model)
        of_classes = f"a classifier of {', '.join(reader.classes)}"
        return f"{of_classes}, {'with temperatures of validation patients' if has_temperatures else 'not calibrated'}"
    if reader.calibration and calibration_problem(reader.model):
        return "whose calibration is not known to hold for its weights"
    if reader.calibration is None:
        return "not calibrated: it answers only questions in your own words"
    fitted = reader.calibration.fitted_on
    if not {"dataset", "split", "num_rows", "num_patients"} <= fitted.keys():
        return "calibrated"
    return (
        f"calibrated on {fitted['num_rows']} slices of {fitted['num_patients']} patients ({fitted['dataset']}, "
        f"{fitted['split']})"
    )


def verdict(answer: Answer) -> str:
    """Say the answer in words, or that the model abstains and why.

    Example:
        >>> verdict({"answer": None, "prediction_set": ["absent", "present"]})
        'No answer: absent and present both remain possible'
    """
    if answer["answer"] is not None:
        return long_name(answer["answer"])
    if answer.get("reason"):
        return NO_ANSWER
    possible = answer["prediction_set"]
    if not possible:
        return "No answer: the slice fits none of the choices"
    all_of_them = "both" if len(possible) == 2 else "all"
    first, last = ", ".join(map(name_in_sentence, possible[:-1])), name_in_sentence(possible[-1])
    return f"No answer: {first} and {last} {all_of_them} remain possible"


def reasons_of(answers: Sequence[Answer]) -> list[str]:
    """List why there are no answers, where that is not what the slice shows: the checkpoint, or the kind of slice.

    Example:
        >>> reasons_of([{"reason": "Other weights."}, {"reason": "Other weights."}, {}])
        ['Other weights.']
    """
    return list(dict.fromkeys(answer["reason"] for answer in answers if answer.get("reason")))


def verdict_lines(answers: Sequence[Answer]) -> list[str]:
    """Say the answers to a slice in a line each: the class, or which findings are present, absent or not answered.

    Example:
        >>> found = {"label": "disc bulge", "answer": "present", "prediction_set": ["present"]}
        >>> verdict_lines([found, {"label": "stenosis", "answer": None, "prediction_set": []}])
        ['Present: disc bulge', 'No answer: stenosis']
    """
    if reasons_of(answers):
        return [NO_ANSWER]
    lines = []
    for answer in answers:
        if answer["label"] is None:
            known = answer["answer"] is not None
            lines.append(verdict(answer) + (f", {percent(answer['probabilities'][answer['answer']])}" if known else ""))
    findings = [answer for answer in answers if answer["label"] is not None]
    for state, words in (("present", "Present"), ("absent", "Absent"), (None, "No answer")):
        if named := [name_in_sentence(answer["label"]) for answer in findings if answer["answer"] == state]:
            lines.append(f"{words}: {', '.join(named)}")
    return lines


def patient_verdict(study: StudyAnswer, questions: Sequence[Question]) -> str:
    """Say what the mean over a patient's slices names, and what else single slices show.

    Example:
        >>> bulges = StudyAnswer(of_slices=[], pooled=[{"absent": 0.3, "present": 0.7}])
        >>> patient_verdict(bulges, [Question("disc bulge", ["absent", "present"])])
        'In the mean over the slices, more likely than not: disc bulge. This is not calibrated for patients.'
    """
    if reasons := reasons_of([answer for answers in study.of_slices for answer in answers]):
        return " ".join([f"{NO_ANSWER}.", *reasons])
    likely, close = _likely_and_close(study.pooled, questions)
    of_slices = [
        _likely_and_close([answer["probabilities"] for answer in answers], questions)[0] for answers in study.of_slices
    ]
    single = [
        f"{name_in_sentence(name)} ({count} of {len(of_slices)})"
        for name, count in Counter(chain.from_iterable(of_slices)).most_common()
        if name not in (*likely, *close, NO_FINDING)
    ]
    likely_names, close_names = [*map(name_in_sentence, likely)], [*map(name_in_sentence, close)]
    if questions[0].label is not None:
        named = {"more likely than not": likely_names, "too close to say": close_names}
        findings = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
        mean = findings or "none of the findings is more likely than not"
    elif close:
        mean = f"no answer: {' and '.join(close_names)} are about as probable"
    else:
        mean = f"most probable: {likely_names[0]}"
    said = [
        f"In the mean over the slices, {mean}",
        *([f"On single slices: {', '.join(single)}"] if single else []),
        "This is not calibrated for patients.",
    ]
    return ". ".join(said)


def _likely_and_close(
    of_questions: Sequence[dict[str, float]], questions: Sequence[Question]
) -> tuple[list[str], list[str]]:
    """Name the findings that are likely, or the likeliest of exclusive classes, and those too close to say."""
    likely, close = [], []
    for question, probabilities in zip(questions, of_questions, strict=True):
        first, second = sorted(probabilities, key=lambda choice: -probabilities[choice])[:2]
        is_close = probabilities[first] - probabilities[second] < CLOSE
        if question.label is None:
            likely += [] if is_close else [first]
            close += [first, second] if is_close else []
        elif question.label != NO_FINDING:  # which naming no other implies
            likely += [question.label] if first == question.choices[1] and not is_close else []
            close += [question.label] if is_close else []
    return likely, close


def name_in_sentence(name: str) -> str:
    """Name a class within a sentence: "No Finding" as "no finding", "Pfirrmann >= 4" unchanged."""
    return _LONG_NAMES[name][:1].lower() + _LONG_NAMES[name][1:] if name in _LONG_NAMES else name


def _probabilities(probabilities: Mapping[str, float]) -> str:
    return ", ".join(f"{long_name(choice)} {percent(probability)}" for choice, probability in probabilities.items())


def _cell(answer: Answer) -> str:
    """Write the answer to a question, or that there is none, with its probability."""
    shown = answer["answer"] or max(answer["probabilities"], key=answer["probabilities"].get)
    words = long_name(shown) if answer["answer"] else f"No answer (rather {name_in_sentence(shown)})"
    return f"{words}, {percent(answer['probabilities'][shown])}"
