"""The page of a card, which a dry run writes to be looked at, shows what the Hub would and is not sent."""

import re
from pathlib import Path

import pytest

from train.publish import card_page
from train.reporting import model_card
from train.reporting.model_card import build_model_card

RUNS = Path(__file__).parents[1] / "reporting" / "runs"


@pytest.mark.parametrize("name", ["demo", "spider", "spider_classifier"])
def test_the_page_is_the_card_laid_out(name, tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "refuse_other_weights", lambda checkpoint, digest: None)  # no weights are kept
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
