"""The app as a user meets it: driven in a real browser, and started by its command."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from pydicom import Dataset
from transformers import BertTokenizer

import app
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPImageProcessor, LumbarCLIPModel, LumbarCLIPProcessor
from tests.browser import CHROMIUM, browser_test
from tests.conftest import PROJECT, TINY_TEXT, TINY_VISION, WORDS
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom
from tests.train.web_app.conftest import calibrate
from tests.train.web_app.test_report_index import MADE, write_index
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.web_app.answer_words import SIDES
from train.web_app.answers import open_reader
from train.web_app.interface import build_page
from train.web_app.report_index import read_index
from train.web_app.serving import launch_settings

HOSTILE = '<img src=x onerror=alert(1)>"'
OWN = "Your finding against its denial"
SECONDS = 60_000  # milliseconds that a slow machine may take to answer

# Luminances of WCAG 2.2, and their ratio, of each element that the selector finds.
CONTRASTS = """
(elements) => elements.filter((element) => element.offsetParent && [...element.childNodes].some(
  (node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()
)).map((element) => {
  const rgb = (value) => value.match(/[\\d.]+/g).map(Number);
  const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const luminance = (value) => {
    const [r, g, b] = rgb(value).map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (behind && (rgb(getComputedStyle(behind).backgroundColor)[3] ?? 1) < 1) behind = behind.parentElement;
  const back = behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)';
  const [dark, light] = [getComputedStyle(element).color, back].map(luminance).sort((a, b) => a - b);
  return [element.className + ': ' + element.textContent.slice(0, 40), (light + 0.05) / (dark + 0.05)];
})
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TINY_VISION, text_config=TINY_TEXT, projection_dim=8)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    processor = LumbarCLIPProcessor(
        LumbarCLIPImageProcessor(size={"height": 32, "width": 32}), tokenizer, max_length=32
    )
    folder = tmp_path_factory.mktemp("app") / "checkpoint"
    model = LumbarCLIPModel(config).eval()
    calibrate(model)
    save_checkpoint(model, processor, folder)
    return folder


@dataclass
class Served:
    """The page, served by this process; what is uploaded to it comes to a folder of its own."""

    address: str
    uploads: Path

    def kept_files(self) -> list[Path]:
        return [path for path in self.uploads.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def served(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    reader = open_reader(str(checkpoint))
    made = {**MADE, "weights_sha256": weights_sha256(reader.model), "what": "reports"}
    write_index(folder / "index.parquet", np.eye(8), [f"Report {n}: disc bulge {HOSTILE}." for n in range(8)], made)
    (folder / "uploads").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        page = build_page(reader, "tiny", read_index(folder / "index.parquet", made["weights_sha256"]))
        _, address, _ = page.launch(prevent_thread_lock=True, **launch_settings())
        yield Served(address.rstrip("/"), folder / "uploads")
        page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], headless=True)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, served):
    """Opens the page in a window; at the end nothing was asked of another machine, and no upload lies on the disk."""
    contexts, requests, problems = [], [], []

    def open_in(width=1200, height=900, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(served.address)
        page.get_by_role("button", name="Normal disc").click(trial=True)  # waits until nothing covers it any more
        return page

    yield open_in
    for context in contexts:
        context.close()
    own = (served.address, "data:", "blob:")
    assert [url for url in requests if not url.startswith(own)] == []
    assert problems == []
    assert served.kept_files() == []


@pytest.fixture
def slices(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (120, 100 + 40 * number), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"slice {number}.png")
    (folder / "notes.png").write_text("The disc is normal.")
    return folder


def choose_file(page, files):
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Click to upload").locator("visible=true").click()
    chosen.value.set_files(files)


def cells(page, table) -> list[list[str]]:
    """The text of a table, row by row."""
    grid = page.get_by_role("grid", name=table)
    grid.get_by_role("gridcell").first.wait_for()
    rows = grid.locator(".virtual-row").all()
    return [[text.strip() for text in row.get_by_role("gridcell").all_inner_texts()] for row in rows]


def ask(page, finding):
    page.get_by_label("A finding of your own").first.fill(finding)
    page.get_by_role("button", name="Ask").click()


def heat_opacity(page) -> float:
    return float(page.locator(".lc-heat").evaluate("element => getComputedStyle(element).opacity"))


def tab_to(page, name, role="button"):
    """Press Tab until a control has the focus."""
    wanted = page.get_by_role(role, name=name).locator("visible=true")
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return wanted
    raise AssertionError(f"Tab never came to {name!r}")


@browser_test
def test_a_slice_is_uploaded_answered_explained_and_asked_about(open_page, slices, served, tmp_path):
    page = open_page()
    page.screenshot(path=tmp_path / "start.png")
    choose_file(page, slices / "slice 1.png")
    page.locator(".lc-heat").wait_for()
    assert page.locator(".lc-figure").inner_text().startswith("slice 1.png")
    (disc, left) = cells(page, "Answers")
    assert (disc[0], left[0]) == ("Disc bulge?", "Left bulge?")
    assert re.fullmatch(r"Absent (\d+|> 99|< 1) %, Present (\d+|> 99|< 1) %", disc[3])
    assert len(cells(page, "Reports whose text is nearest to the slice")) == 4
    assert served.kept_files() == []

    assert heat_opacity(page) == 0.6
    page.get_by_role("spinbutton", name="Opacity").fill("80")
    page.wait_for_function("getComputedStyle(document.querySelector('.lc-heat')).opacity == 0.8")

    ask(page, "left disc bulge")
    page.get_by_role("grid", name=OWN).wait_for()
    assert [row[0] for row in cells(page, OWN)] == ["More like “present”", "More like “absent”"]
    note = page.get_by_role("status").filter(has_text="Left disc bulge? Not calibrated")
    assert SIDES in note.inner_text()
    page.get_by_text("for “left disc bulge”, on its own scale").wait_for()
    assert heat_opacity(page) == 0.8
    page.screenshot(path=tmp_path / "answer.png", full_page=True)

    ask(page, "no disc bulge")
    page.get_by_role("alert").filter(has_text="denies a finding").wait_for()
    ask(page, "左椎间盘")
    page.get_by_role("alert").filter(has_text="knows no word of “左椎间盘”").wait_for()
    assert note.is_visible()
    ask(page, "qwerty disc")
    page.get_by_role("status").get_by_text("does not know the word “qwerty”").wait_for()
    page.screenshot(path=tmp_path / "unknown.png", full_page=True)


@browser_test
def test_text_of_a_data_set_is_never_html(open_page, tmp_path):
    page = open_page()
    page.get_by_role("button", name="Normal disc").click()
    reports = cells(page, "Reports whose text is nearest to the slice")
    assert all(HOSTILE in report for report, _, _ in reports)
    assert page.locator("img[src=x]").count() == 0


@browser_test
def test_a_study_is_answered_slice_by_slice_and_for_the_patient(open_page, slices, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Study").click()
    choose_file(page, sorted(slices.iterdir()))
    rows = cells(page, "Slice by slice")
    assert rows[0][1] == "The patient: mean of 3 slices"
    assert [row[1] for row in rows[1:]] == ["slice 0.png", "slice 1.png", "slice 2.png"]
    said = page.get_by_role("status").locator("visible=true")
    said.filter(has_text="This is not calibrated for patients.").wait_for()
    said.filter(has_text="notes.png is not a readable image").wait_for()
    assert page.locator(".lc-table .body-cell img").locator("visible=true").count() == 3
    page.screenshot(path=tmp_path / "study.png", full_page=True)


@browser_test
def test_a_text_that_is_called_png_is_refused_and_the_answers_before_it_are_gone(open_page, slices, tmp_path):
    page = open_page()
    page.get_by_role("button", name="Normal disc").click()
    page.locator(".lc-heat").wait_for()
    choose_file(page, slices / "notes.png")
    alert = page.get_by_role("alert").filter(has_text="notes.png")
    alert.wait_for()
    assert "not a readable image" in alert.inner_text()
    page.locator(".lc-figure").wait_for(state="detached")
    assert page.get_by_role("grid", name="Answers").count() == 0
    page.screenshot(path=tmp_path / "error.png")
    choose_file(page, slices / "slice 1.png")
    page.locator(".lc-heat").wait_for()
    assert page.get_by_role("alert").count() == 0


@browser_test
def test_a_frame_of_a_dicom_file_is_picked_and_its_header_stays_unseen(open_page, tmp_path):
    private = Dataset()
    private.add_new(0x00110010, "LO", "ACME 1.0")
    private.add_new(0x00111001, "LO", "SECRET")
    dataset = make_dicom(tmp_path / "several", draw_pixels(np.uint8, 8, (3, 64, 64)), patient_id="MRN-4711")
    dataset.update(private)
    dataset.save_as(tmp_path / "several")
    page = open_page()
    choose_file(page, tmp_path / "several")
    page.locator(".lc-figure").filter(has_text="several, frame 1").wait_for()
    page.get_by_role("spinbutton", name="Frame").fill("3")
    page.get_by_role("spinbutton", name="Frame").press("Enter")
    page.locator(".lc-figure").filter(has_text="several, frame 3").wait_for()
    assert not [secret for secret in ("SECRET", "MRN-4711", "Doe") if secret in page.content()]


def wait_until_still(page):
    """Wait until nothing has been added to the page, or taken away, for a second."""
    page.evaluate(
        """() => new Promise((done) => {
            let timer = setTimeout(done, 1000);
            new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, 1000); })
                .observe(document.body, { childList: true, subtree: true });
        })"""
    )


def open_file_chooser(page):
    """Press Enter on the upload box; again, if an answer drew the box anew meanwhile, which loses the focus."""
    for _ in range(4):
        wait_until_still(page)
        tab_to(page, "Click to upload")
        try:
            with page.expect_file_chooser(timeout=5000) as chosen:
                page.keyboard.press("Enter")
        except Exception as error:
            if type(error).__name__ != "TimeoutError":  # of Playwright, which may not be installed
                raise
        else:
            return chosen.value
    raise AssertionError("Enter opens no file chooser.")


@browser_test
def test_the_keyboard_is_enough(open_page, slices, tmp_path):
    page = open_page()
    tab_to(page, "Normal disc")
    page.keyboard.press("Enter")
    page.get_by_text("Drawn example: normal disc").wait_for()
    open_file_chooser(page).set_files(slices / "slice 2.png")
    page.locator(".lc-figure").filter(has_text="slice 2.png").wait_for()
    page.locator("body").press("Home")
    tab_to(page, "Opacity", role="slider")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("getComputedStyle(document.querySelector('.lc-heat')).opacity == 0.65")
    tab_to(page, "Another map")
    page.keyboard.press("Enter")
    assert page.get_by_role("radio", name="Grad-CAM").is_checked()
    tab_to(page, "Text-to-patch similarity", role="radio")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.lc-figure').innerText.includes('\\nText-to-patch similarity for')")
    page.screenshot(path=tmp_path / "keyboard.png", full_page=True)
    for _ in range(20):
        page.keyboard.press("Tab")
        if "own" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
            break
    page.keyboard.type("normal disc")
    tab_to(page, "Ask")
    page.keyboard.press("Enter")
    page.get_by_role("grid", name=OWN).wait_for()
    tab_to(page, "Study", role="tab")
    page.keyboard.press("Enter")
    tab_to(page, "Example: six")
    page.keyboard.press("Enter")
    page.get_by_role("grid", name="Slice by slice").wait_for()


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(open_page, tmp_path, scheme):
    page = open_page(390, 844, color_scheme=scheme)
    page.get_by_role("button", name="Canal stenosis").click()
    page.locator(".lc-heat").wait_for()
    page.screenshot(path=tmp_path / f"phone_{scheme}.png", full_page=True)
    page.mouse.wheel(0, 700)
    page.wait_for_function("window.scrollY > 300")
    notice = page.locator("#notice").bounding_box()
    assert 0 <= notice["y"] < 40, "the research notice has scrolled away"
    assert notice["height"] < 40, "the research notice takes more than a line"
    assert "not for any decision about a patient" in page.locator(".lc-small").last.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert_contrast(page)
    page.get_by_role("tab", name="Study").click()
    page.get_by_role("button", name="Example: six").click()
    page.get_by_role("grid", name="Slice by slice").wait_for()
    page.screenshot(path=tmp_path / f"phone_study_{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert_contrast(page)


def in_view(page, selector) -> bool:
    """Whether the top of an element is on the screen, below the notice."""
    box = page.locator(selector).locator("visible=true").first.bounding_box()
    return 30 <= box["y"] < page.viewport_size["height"] - 40


@browser_test
def test_on_a_phone_an_upload_brings_its_answer_into_view_and_the_picture_comes_after_it(open_page, slices, tmp_path):
    page = open_page(390, 844)
    assert "the answers appear here" in page.locator(".lc-answers").inner_text()
    choose_file(page, slices / "slice 1.png")
    page.locator(".lc-headline").filter(has_text="slice 1.png").wait_for()
    page.wait_for_function("document.querySelector('.lc-headline').getBoundingClientRect().top < 300")
    wait_until_still(page)
    page.screenshot(path=tmp_path / "phone_upload.png")
    assert in_view(page, ".lc-headline") and in_view(page, "[aria-label=Answers]")
    lines = page.locator(".lc-headline p").all_inner_texts()
    assert lines[0] == "slice 1.png" and re.match(r"(Present|Absent|No answer): ", lines[1])
    tops = [page.locator(part).bounding_box()["y"] for part in (".lc-take", ".lc-answers", ".lc-picture")]
    assert tops == sorted(tops)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@browser_test
def test_on_a_desktop_the_picture_lies_below_the_upload_and_the_page_stays_where_it_is(open_page):
    page = open_page(1280, 900)
    page.get_by_role("button", name="Canal stenosis").click()
    page.locator(".lc-heat").wait_for()
    wait_until_still(page)
    take, answers, picture = (page.locator(part).bounding_box() for part in (".lc-take", ".lc-answers", ".lc-picture"))
    assert take["x"] == picture["x"] < answers["x"] and take["y"] == answers["y"]
    assert picture["y"] < take["y"] + take["height"] + 40
    assert page.evaluate("scrollY") == 0


@browser_test
@pytest.mark.parametrize("width", [390, 1280])
def test_each_cell_of_a_table_has_a_line_on_each_side(open_page, width):
    page = open_page(width, 900)
    page.get_by_role("button", name="Canal stenosis").click()
    grid = page.get_by_role("grid", name="Answers")
    grid.get_by_role("gridcell").first.wait_for()
    frame = grid.locator(".upload-container").bounding_box()
    headers, rows = grid.get_by_role("columnheader").all(), grid.locator(".virtual-row").all()
    bottom = None
    for row, line in enumerate([headers, *(row.get_by_role("gridcell").all() for row in rows)]):
        boxes = [cell.bounding_box() for cell in line]
        for column, (cell, box) in enumerate(zip(line, boxes, strict=True)):
            drawn = cell.evaluate("e => [getComputedStyle(e).borderRightWidth, getComputedStyle(e).borderBottomWidth]")
            assert drawn == ["0px" if column == len(line) - 1 else "1px", "0px" if row == len(rows) else "1px"]
            if column:
                assert abs(box["x"] - boxes[column - 1]["x"] - boxes[column - 1]["width"]) < 1, "a gap in the line"
        assert bottom is None or abs(boxes[0]["y"] - bottom) < 1, "a gap between rows"
        bottom = boxes[0]["y"] + boxes[0]["height"]
    assert (
        abs(bottom - frame["y"] - frame["height"]) < 3
        and grid.locator(".upload-container").evaluate("e => getComputedStyle(e).borderTopWidth") == "1px"
    )


@browser_test
def test_the_map_has_the_colours_and_the_opacity_of_its_legend(open_page):
    page = open_page()
    page.get_by_role("button", name="Canal stenosis").click()
    page.locator(".lc-heat").wait_for()
    page.locator(".lc-scale img").wait_for()
    page.get_by_role("spinbutton", name="Opacity").fill("80")
    page.wait_for_function("getComputedStyle(document.querySelector('.lc-heat')).opacity == 0.8")
    assert page.locator(".lc-scale img").evaluate("element => getComputedStyle(element).opacity") == "0.8"
    assert page.locator(".lc-scale i").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(0, 0, 0)"


def assert_contrast(page):
    """Every text of ours stands out as WCAG asks of small letters, 4.5 to 1."""
    words = page.locator(
        "#notice *, .lc-head *, .lc-small, .lc-message p, .lc-headline p, .lc-table .body-cell *, .lc-table th *, "
        ".lc-empty"
    )
    found = words.evaluate_all(CONTRASTS)
    assert len(found) > 8
    assert [name for name, ratio in found if ratio < 4.5] == []


@pytest.mark.slow
def test_the_command_serves_the_page_and_leaves_nothing_when_it_is_ended(checkpoint, tmp_path):
    command = [sys.executable, "app.py", "--checkpoint", str(checkpoint)]
    settings = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=PROJECT, env=settings, stdout=subprocess.PIPE, text=True) as started:
        said = started.stdout.readline()
        address = re.search(r"Research use only. Open (http://127.0.0.1:\d+/?) in", said)[1]
        with urllib.request.urlopen(address, timeout=60) as page:
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            assert b"LumbarCLIP" in page.read()
        assert [path.name for path in tmp_path.glob("lumbarclip-app-*")]
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=60) == 0
    assert not list(tmp_path.glob("lumbarclip-app-*"))


def test_a_checkpoint_is_named_without_the_way_to_it(checkpoint):
    assert app.display_name(str(checkpoint)) == checkpoint.parent.name
    assert app.display_name("org/lumbarclip") == "org/lumbarclip"
    assert app.display_name("/srv/no/such/model") == "model"


def test_an_index_of_another_checkpoint_of_the_same_width_ends_the_command(checkpoint, tmp_path):
    write_index(tmp_path / "index.parquet", np.eye(8), ["Disc bulge."] * 8)
    with pytest.raises(ValueError, match="cannot be compared"):
        app.main(app.AppArguments(checkpoint=str(checkpoint), index=str(tmp_path / "index.parquet")))


class NoPageError(Exception):
    """Raised where the page would be built."""


@pytest.mark.parametrize("card", ["", "---\nreports_index: index.parquet\n---\n"])
def test_only_an_index_that_is_named_is_read(checkpoint, tmp_path, monkeypatch, card):
    """One that happens to lie there is a stranger's; that of a Space is named by its card."""
    (tmp_path / "index.parquet").write_text("not ours")
    (tmp_path / "README.md").write_text(card)
    monkeypatch.setattr(app, "HERE", tmp_path)
    monkeypatch.chdir(tmp_path)

    def stop(reader, name, index):
        raise NoPageError(index)

    monkeypatch.setattr("train.web_app.interface.build_page", stop)
    error, said = (ValueError, "No index at .*index.parquet") if card else (NoPageError, "None")
    with pytest.raises(error, match=said):
        app.main(app.AppArguments(checkpoint=str(checkpoint)))


def test_without_gradio_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"needs the package gradio: pip install 'lumbarclip\[app\]'"):
        app.main(app.AppArguments())


def test_without_a_checkpoint_it_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("MODEL_ID", raising=False)
    with pytest.raises(ValueError, match="name one with --checkpoint"):
        app.main(app.AppArguments())


def test_the_variable_of_a_space_goes_before_its_card(monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("---\nmodels:\n- org/of-card\nmodel_revision: v0.2\n---\n# Space\n")
    assert app.content_of_space(tmp_path / "README.md") == ("org/of-card", "v0.2", "")
    assert app.content_of_space(tmp_path / "none.md") == ("", None, "")
    (tmp_path / "old.md").write_text("---\nmodels:\n- org/of-card\n---\n# Space\n")
    assert app.content_of_space(tmp_path / "old.md") == ("org/of-card", None, "")
    monkeypatch.setattr(app, "HERE", tmp_path)

    def refuse(name, revision):
        raise ValueError(f"asked for {name}, {revision}")

    monkeypatch.setattr("train.web_app.answers.open_reader", refuse)
    monkeypatch.delenv("MODEL_ID", raising=False)
    with pytest.raises(ValueError, match="asked for org/of-card, v0.2"):
        app.main(app.AppArguments())
    monkeypatch.setenv("MODEL_ID", "org/of-variable")
    with pytest.raises(ValueError, match="asked for org/of-variable, None"):
        app.main(app.AppArguments())
