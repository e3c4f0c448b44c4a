"""The page of a card, which a dry run writes to be looked at, shows what the Hub would and is not sent."""

import json
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser import CHROMIUM, browser_test
from tests.page_content import HOSTILE as HOSTILE_TEXTS
from tests.page_content import page_content, shown
from tests.train.reporting.card.made_run import change, made_run
from train.publishing.publication import card_page
from train.reporting.card import model_card
from train.reporting.card.model_card import build_model_card
from train.reporting.rendering import html_page

RUNS = Path(__file__).parent / "runs"


@pytest.mark.parametrize("name", ["demo", "spider", "spider_classifier"])
def test_the_page_is_the_card_laid_out(name, tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "check_same_weights", lambda checkpoint, digest: None)  # no weights are kept
    card = str(build_model_card(RUNS / name, "someone/made"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text(card)
    page = card_page(tmp_path / "model", "someone/made")
    assert page == tmp_path / "card.html" and [path.name for path in (tmp_path / "model").iterdir()] == ["README.md"]
    html = page.read_text()
    assert "<title>someone/made</title>" in html and "<h1>made</h1>" in html
    assert html.count("<table>") == len(re.findall(r"^\|[ :-]+-", card, re.MULTILINE)) > 4
    assert html.count("<summary>") == card.count("<summary>") > 1
    body = re.sub(r"<pre>.*?</pre>", "", html.partition("<body>")[2], flags=re.DOTALL)
    assert not re.search(r"\|\s*:?--|\*\*|\{\{|\{%|```|^#|^- |^> |&lt;", body, re.MULTILINE)
    assert "model-index" not in body and "license_link" not in body and "pipeline_tag" not in body


HOSTILE = """<script>document.title = "ran"</script>
<img src="http://127.0.0.1:9/seen.gif" onerror="document.title = 'ran'">
<style>@import url(http://127.0.0.1:9/seen.css);</style><iframe src="http://127.0.0.1:9/"></iframe>"""


@browser_test
def test_html_of_a_data_set_runs_and_fetches_nothing_and_the_page_is_whole(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "figure.png")
    table = "| a | b |\n|---|--:|\n| 1 | 2 |"
    report = f"{HOSTILE}\n\n![Figure](figure.png)\n\n<details><summary>More</summary>\n\n{table}\n\n</details>\n"
    (tmp_path / "card.html").write_text(html_page(report, "A card", {"figure.png": tmp_path / "figure.png"}))
    asked, blocked = set(), set()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], headless=True)
        page = browser.new_page()
        page.on("request", lambda request: asked.add(request.url))
        page.on("requestfailed", lambda request: blocked.add(request.url) if request.failure == "csp" else None)
        page.goto((tmp_path / "card.html").as_uri())
        assert page.title() == "A card"
        assert {url.partition(":")[0] for url in asked - blocked} <= {"file", "data"}
        assert page.locator("img[alt=Figure]").evaluate("image => image.naturalWidth") == 3
        cell = page.get_by_role("cell", name="2")
        assert not cell.is_visible()
        page.get_by_text("More").click()
        assert cell.is_visible()
        assert cell.evaluate("cell => getComputedStyle(cell).textAlign") == "right"
        assert cell.evaluate("cell => getComputedStyle(cell).borderBottomStyle") == "solid"
        browser.close()


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_names_add_nothing_to_a_card_but_words(text, tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "check_same_weights", lambda checkpoint, digest: None)
    found = []
    for number, name in enumerate(("plain", text)):
        run = made_run(tmp_path / str(number), findings=True)
        for file in ("metrics.json", "checkpoint/config.json"):  # a class
            words = (run / file).read_text()
            (run / file).write_text(words.replace("spondylolisthesis", json.dumps(name)[1:-1]))
        about = {f"data__{key}": name for key in ("citation", "summary", "report_origin", "split_rule", "name")}
        change(run, "run.json", data__license=f"other: {name}", command=shlex.quote(name), device_name=name, **about)
        change(run, "metrics.json", dataset__name=name, command=shlex.quote(name))
        card = build_model_card(run, "someone/made")
        assert ModelCard(str(card)).data.eval_results[0].dataset_name.split() == name.split()
        found.append(page_content(html_page(card.text, name, {})))
    (elements, words), hostile = found
    assert hostile[0] == elements
    assert hostile[1].replace("\\n", "").count(shown(text)) >= words.count("plain") - 4  # quoted in shell and YAML
