"""Lay out the page: what a user chooses, and where the answers appear. `views` computes what is shown.

Uploads are deleted as soon as they are read. The slices live in the memory of the session, which `serving` forgets, and
the page carries its pictures itself, so that none of it is written to disk. Nothing is fetched from elsewhere.
"""

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.utils import get_upload_folder

from data_scripts.records import KNEE, LUMBAR_SPINE
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from train.web_app.answer_words import (
    OWN_HEADERS,
    REPORT_HEADERS,
    REPORTS_HEADING,
    REPORTS_NOTE,
    SIDES,
    WORDING_HEADERS,
    answer_headers,
    calibrated_on,
    coverage_words,
    scope_note,
    study_headers,
    wording_rows,
)
from train.web_app.answers import AnyReader, Reader, own_finding, seen_slice, unknown_words
from train.web_app.examples import EXAMPLES, Example, example_study, example_upload, fits_examples
from train.web_app.explanations import METHODS, NO_MAP, subjects
from train.web_app.pictures import headline_html, message_html
from train.web_app.receiving import forget
from train.web_app.report_index import ReportIndex
from train.web_app.serving import MAX_WAITING, SECONDS_KEPT
from train.web_app.uploads import HeldUploads, UnusableUploadError, Upload, read_study, read_upload
from train.web_app.views import Rows, view_slice, view_study

SUGGESTED_FINDINGS = {
    LUMBAR_SPINE: (
        *("disc bulge", "disc protrusion", "spinal canal stenosis", "foraminal narrowing", "nerve root compression"),
        *("disc dehydration", "disc space narrowing", "endplate changes", "spondylolisthesis"),
    ),
    KNEE: ("osteoarthritis", "osteophytes", "joint space narrowing", "sclerosis"),
}
NOT_FOR = "Not a medical device; not for diagnosis, and not for any decision about a patient."
# Of the two, a phone shows the one that leaves the notice a single line; the page ends with the other.
NOTICE = (
    '<div role="note"><b>Research use only.</b> '
    f'<span class="lc-wide">{NOT_FOR}</span><span class="lc-narrow">Not for diagnosis.</span></div>'
)
HEAD = '<h1>LumbarCLIP</h1><p>{} {}</p><p class="lc-small">Model: {}, {}. {}</p><p class="lc-small">{}</p>'
SHOW_IT = "Show it an image of the {}."
SHOW_IT_ANY = "Show it an image like those that it was trained on."
COMPARES = (
    "It compares the picture with sentences of radiology reports and says which fit, how sure it is, and when it does "
    "not know."
)
CLASSIFIES = "It says which of the classes that it was fine-tuned for fit, and how sure it is."
EMPTY = '<div class="lc-empty">{}</div>'
NO_SLICE = EMPTY.format("Upload a slice{}: the answers appear here.")
NO_STUDY = EMPTY.format("Upload the slices of one patient{}: the answers appear here.")
FORGOTTEN = EMPTY.format(
    "The slice is no longer in memory: the page was idle for a while, or many others are using it. Upload it again."
)
NO_FILE = "The file did not arrive. Upload it again."
OF_CLASSIFIER = (
    "The answer is the likelier choice. A classifier carries no prediction sets, so it does not abstain where it is "
    "unsure."
)
NO_CALIBRATION = (
    "This checkpoint has no calibration, so it has no questions of its own and no probabilities to trust. Ask for a "
    "finding in your own words, about one slice."
)
NO_EVIDENCE = (
    "<b>A map is not evidence of a finding.</b> It is a picture of the model, and a network that learned nothing "
    "gives equally pretty maps. In our measurement on drawn slices no map beat pointing at the middle of the picture."
)
PRIVACY = (
    "No upload is kept: a file is deleted as soon as it is read. The slice and its answers leave memory at most "
    f"{SECONDS_KEPT // 60} minutes after you last used this page, and about a minute after you closed it. Names and "
    "numbers in a DICOM header are not shown. Letters burnt into the picture are."
)
MEAN = (
    "The mean averages the probabilities of the slices. A finding on one slice of many hardly moves it. Prediction "
    "sets are made for single slices, so the mean has none."
)
OPACITY = 60  # percent
SMALL = '<p class="lc-small">{}</p>'
# On a phone the answers lie below the upload: bring them into view.
SHOW_ANSWERS = """() => {
  const [answers] = [...document.querySelectorAll('.lc-answers')].filter((element) => element.offsetParent);
  if (answers && answers.getBoundingClientRect().top > innerHeight / 2) answers.scrollIntoView({ block: 'start' });
}"""
SET_OPACITY = "(percent) => document.documentElement.style.setProperty('--lc-opacity', percent / 100)"


def build_page(reader: AnyReader, model_name: str, index: ReportIndex | None = None) -> gr.Blocks:
    """Build the page for a checkpoint, called `model_name` there, and an index of reports, if any."""
    with gr.Blocks(title="LumbarCLIP", analytics_enabled=False) as page:
        gr.HTML(NOTICE, elem_id="notice")
        show_it = SHOW_IT.format(reader.anatomy) if reader.anatomy else SHOW_IT_ANY
        does = COMPARES if isinstance(reader, Reader) else CLASSIFIES
        head = (show_it, does, model_name, calibrated_on(reader), scope_note(reader.model.config.scope), SIDES)
        gr.HTML(HEAD.format(*map(escape, head)), elem_classes="lc-head")
        with gr.Tab("One slice"):
            _slice_tab(reader, index)
        with gr.Tab("Study of one patient"):
            _study_tab(reader)
        gr.HTML(SMALL.format(f"{NOT_FOR} {PRIVACY}"))
    page.queue(max_size=MAX_WAITING)
    return page


def _slice_tab(reader: AnyReader, index: ReportIndex | None) -> None:
    takes_words = isinstance(reader, Reader)
    suggested = [
        finding
        for finding in SUGGESTED_FINDINGS.get(reader.anatomy or "", ())
        if isinstance(reader, Reader) and not unknown_words(reader.processor, finding)
    ]
    examples = EXAMPLES if fits_examples(reader.scope) else ()
    no_slice = NO_SLICE.format(", or take an example" if examples else "")
    what = index.what if index else "images"
    held = HeldUploads()
    upload = gr.State(None)  # its key
    finding = gr.State("")
    with gr.Row(elem_classes="lc-parts"):  # in the order of a phone
        with gr.Column(min_width=320, elem_classes="lc-take"):
            file = gr.File(label="Slice: DICOM or image", height=150)
            with gr.Column(visible=bool(examples)):
                gr.HTML(SMALL.format("Or take a drawn example:"))
                with gr.Row(elem_classes="lc-examples"):
                    buttons = [gr.Button(example.name, size="sm", min_width=100) for example in examples]
            message = gr.HTML()
            frame = gr.Slider(1, 2, value=1, step=1, label="Frame", visible=False)
        with gr.Column(min_width=320, elem_classes="lc-answers"):
            headline = gr.HTML(no_slice)
            score_outside = gr.Checkbox(False, label="Show scores all the same", visible=False)
            headers = answer_headers(reader)
            answers = _table(
                "Answers", headers, ["24%", "23%", "26%", "27%"] if len(headers) == 4 else ["30%", "30%", "40%"]
            )
            _reading_aid(reader)
            with gr.Group(visible=takes_words):
                label = "A finding of your own: pick one, or write it in a few words"
                own_text = gr.Dropdown(suggested, value="", allow_custom_value=True, label=label)
                ask = gr.Button("Ask", variant="primary")
            refusal = gr.HTML()
            own_note = gr.HTML()
            own = _table("Your finding against its denial", OWN_HEADERS, ["30%", "20%", "50%"])
            with gr.Column(visible=False) as nearest:
                reports = _table(REPORTS_HEADING[what], REPORT_HEADERS, ["52%", "24%", "24%"])
                gr.HTML(SMALL.format(REPORTS_NOTE[what]))
        with gr.Column(min_width=320, elem_classes="lc-picture"):
            picture = gr.HTML()
            with gr.Column(visible=False) as map_controls:
                opacity = gr.Slider(0, 100, value=OPACITY, step=5, label="Opacity of the map, %", buttons=[])
                with gr.Accordion("Another map", open=False):
                    method = gr.Radio([*METHODS, NO_MAP], value=next(iter(METHODS)), label="How it is made")
                    subject = gr.Dropdown([], label="What it explains")
                gr.HTML(SMALL.format(NO_EVIDENCE))

    view = partial(_show_slice, reader, index, held, missing=no_slice)
    inputs = [upload, frame, finding, subject, method, score_outside]
    outputs = [picture, map_controls, subject, headline, score_outside, answers, own_note, own, nearest, reports]
    taken = [upload, frame, subject, message, file, score_outside]
    _on(file.upload, partial(_take_file, reader, held), [file], taken, preprocess=False).success(
        view, inputs, outputs, **_PRIVATE
    ).success(None, [], [], js=SHOW_ANSWERS, **_PRIVATE)
    for button, example in zip(buttons, examples, strict=True):
        _on(button.click, partial(_take_example, reader, held, example), [], taken).success(
            view, inputs, outputs, **_PRIVATE
        ).success(None, [], [], js=SHOW_ANSWERS, **_PRIVATE)
    look_again = partial(_show_slice, reader, index, held, missing=FORGOTTEN)  # there was a slice
    for changed in (frame.input, subject.input, method.change, score_outside.input):
        _on(changed, look_again, inputs, outputs, trigger_mode="always_last")
    for asked in (ask.click, own_text.select):
        _on(asked, partial(_take_finding, reader), [own_text, finding, subject], [finding, subject, refusal]).success(
            view, inputs, outputs, **_PRIVATE
        )
    opacity.input(None, [opacity], [], js=SET_OPACITY, **_PRIVATE)


def _study_tab(reader: AnyReader) -> None:
    if not reader.questions:
        gr.HTML(message_html([NO_CALIBRATION], "note"))
        return
    files = gr.File(label="Slices of one patient: DICOM or images", file_count="multiple", height=150)
    has_example = fits_examples(reader.scope)
    no_study = NO_STUDY.format(", or take the example" if has_example else "")
    example = gr.Button("Example: six slices of one drawn patient", size="sm", visible=has_example)
    message = gr.HTML()
    verdict = gr.HTML(no_study)
    headers = study_headers(reader.questions)
    others = len(headers) - 1
    widths = ["84px", "220px", *["150px"] * (others - 1)]
    slices = _table("Slice by slice", headers, widths, datatype=["html", *["str"] * others])
    gr.HTML(SMALL.format(MEAN))
    _reading_aid(reader)
    shown = [verdict, slices, message, files]
    _on(files.upload, partial(_show_study_files, reader, no_study), [files], shown, preprocess=False)
    _on(example.click, partial(_show_study_example, reader), [], shown)


def _table(
    label: str, headers: list[str], widths: list[str] | None = None, datatype: str | list[str] = "str", **how: Any
) -> gr.Dataframe:
    """Make a table whose cells are text, never HTML; hidden until it has rows."""
    return gr.Dataframe(
        headers=headers,
        datatype=cast(Any, datatype),
        label=label,
        column_widths=cast(Any, widths),
        interactive=False,
        wrap=True,
        buttons=[],
        elem_classes="lc-table",
        **{"visible": False, **how},
    )


def _reading_aid(reader: AnyReader) -> None:
    """Say what a prediction set promises, and which sentences represent each choice."""
    if not isinstance(reader, Reader):
        gr.HTML(SMALL.format(OF_CLASSIFIER))
        return
    if not reader.calibration:
        gr.HTML(message_html([NO_CALIBRATION], "note"))
        return
    if not calibration_problem(reader.model):
        gr.HTML(SMALL.format(escape(coverage_words(reader.calibration))))
    with gr.Accordion("Sentences of each choice", open=False):
        wording = wording_rows(reader.calibration)
        _table("Sentences for each choice", WORDING_HEADERS, ["30%", "20%", "50%"], value=wording, visible=True)


# The model answers one request at a time, whichever control sent it.
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}


def _on(event: Callable[..., Any], act: Callable[..., Any], inputs: list[Any], outputs: list[Any], **how: Any) -> Any:
    return event(act, inputs, outputs, **_PRIVATE, **how)


def uploaded_paths(sent: dict[str, Any] | list[dict[str, Any]]) -> list[Path]:
    """List the paths of uploaded files; paths outside the folder of uploads are left out.

    Gradio would check the paths itself, but leave an empty file behind for each.
    """
    folder = Path(get_upload_folder()).resolve()
    named = [str(file["path"]) for file in (sent if isinstance(sent, list) else [sent])]
    paths = [Path(name).resolve() for name in named if "\0" not in name]
    return [path for path in paths if folder in path.parents]


def _take_file(reader: AnyReader, held: HeldUploads, sent: dict[str, Any] | list[dict[str, Any]]) -> tuple[Any, ...]:
    paths = uploaded_paths(sent)
    try:
        if not paths:
            raise UnusableUploadError(NO_FILE)
        return _taken(held, read_upload(paths[0], partial(seen_slice, reader)))
    except UnusableUploadError as error:
        # Drop the previous slice, too: its answers must not appear next to the name of another file.
        return _taken(held, None, str(error))
    finally:
        forget(paths, Path(get_upload_folder()))


def _take_example(reader: AnyReader, held: HeldUploads, example: Example) -> tuple[Any, ...]:
    return _taken(held, example_upload(example, partial(seen_slice, reader)))


def _taken(held: HeldUploads, upload: Upload | None, problem: str = "") -> tuple[Any, ...]:
    """Values of upload, frame, subject, message, file and scores outside; the file's place is free for the next one."""
    num_frames = len(upload.slices) if upload else 1
    frame = gr.Slider(1, max(2, num_frames), value=1, step=1, label="Frame", visible=num_frames > 1)
    message = message_html([problem]) if problem else message_html(upload.notes if upload else (), "note")
    return held.keep(upload) if upload else None, frame, gr.Dropdown(choices=[], value=None), message, None, False


def _take_finding(reader: AnyReader, text: str, finding: str, subject: str | None) -> tuple[Any, ...]:
    """Values of finding, subject and refusal."""
    assert isinstance(reader, Reader), "a classifier takes no words"
    try:
        finding = own_finding(reader.processor, text or "")
    except ValueError as error:
        return finding, subject, message_html([str(error)])
    names = [found.name for found in subjects(reader, finding)]
    return finding, gr.Dropdown(choices=names, value=finding), ""


def _show_slice(
    reader: AnyReader,
    index: ReportIndex | None,
    held: HeldUploads,
    key: HeldUploads.Key | None,
    frame: int,
    finding: str,
    subject: str | None,
    method: str,
    score_outside: bool,
    *,
    missing: str,
) -> tuple[Any, ...]:
    """Values of picture, map controls, subject, headline, scores outside, answers, own note, own, nearest, reports."""
    hidden = gr.Column(visible=False)
    upload = held.use(key) if key else None
    if upload is None:
        said = FORGOTTEN if key else missing
        nothing = gr.Dropdown(choices=[], value=None), said, gr.Checkbox(visible=False)
        return "", hidden, *nothing, _rows([]), "", _rows([]), hidden, _rows([])
    slice_ = upload.slices[min(int(frame), len(upload.slices)) - 1]
    asked = {"finding": finding, "subject": subject or "", "method": method}
    view = view_slice(reader, index, slice_, **asked, score_outside=score_outside)
    return (
        view.picture,
        gr.Column(visible=bool(view.subjects)),
        gr.Dropdown(choices=view.subjects, value=view.subject or None),
        headline_html(slice_.name, view.verdicts, view.reasons),
        gr.Checkbox(visible=bool(view.outside)),
        _rows(view.answers),
        message_html(view.own_notes, "note"),
        _rows(view.own),
        gr.Column(visible=bool(view.reports)),
        _rows(view.reports),
    )


def _rows(rows: Rows) -> gr.Dataframe:
    return gr.Dataframe(value=rows, visible=bool(rows))


def _show_study_files(reader: AnyReader, no_study: str, sent: list[dict[str, Any]]) -> tuple[Any, ...]:
    """Values of verdict, slices, message and files."""
    paths = uploaded_paths(sent)
    try:
        if not paths:
            raise UnusableUploadError(NO_FILE)
        return _shown_study(reader, read_study(paths, partial(seen_slice, reader)))
    except UnusableUploadError as error:
        return no_study, _rows([]), message_html([str(error)]), None
    finally:
        forget(paths, Path(get_upload_folder()))


def _show_study_example(reader: AnyReader) -> tuple[Any, ...]:
    return _shown_study(reader, example_study(partial(seen_slice, reader)))


def _shown_study(reader: AnyReader, upload: Upload) -> tuple[Any, ...]:
    verdict, rows = view_study(reader, upload)
    return message_html([verdict], "note"), _rows(rows), message_html(upload.notes, "note"), None
