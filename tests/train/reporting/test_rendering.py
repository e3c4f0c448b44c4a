import re

import pytest
from PIL import Image

from tests.page_content import HOSTILE, page_content, shown
from train.reporting.rendering import fill_template, html_page


@pytest.fixture
def filled(tmp_path):
    """Fill a template that is given as text."""

    def fill(text, **values):
        (tmp_path / "made.md").write_text(text)
        return fill_template(tmp_path / "made.md", values)

    return fill


def test_values_are_text_unless_a_template_says_otherwise(filled):
    template = (
        "{% from 'shared.md.jinja' import listed %}"
        "# {{ a }}: {{ a | code }} {{ n }} {{ 'x' if n }}{% set b %}*{{ a }}*{% endset %}{{ b }}\n{{ listed([a]) }}"
    )
    assert filled(template, a="a*b", n=-1.5) == "# a\\*b: `a*b` -1.5 x*a\\*b*\n- a\\*b"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_has_only_the_elements_of_its_template(filled, text):
    template = "# {{ a }}\n\n<details>\n<summary>All</summary>\n\n- {{ a }}\n\n{{ a | code_block('sh') }}\n\n</details>"
    elements, words = page_content(html_page(filled(template, a="plain"), "plain", {}))
    page = html_page(filled(template, a=text), text, {})
    assert page_content(page) == (elements, words.replace("plain", shown(text)))


def test_a_page_contains_the_figures_it_is_given_and_no_other_file(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("secret.png", "figures/a.png", "figures/b.png"):
        Image.new("L", (2, 2)).save(tmp_path / name)
    names = ["figures/a.png", "figures/b.png", "secret.png", str(tmp_path / "secret.png"), "figures/../secret.png", "x"]
    report = "\n\n".join(f"![A > figure]({name})" for name in names) + '\n\n`src="figures/a.png"`'
    page = html_page(report, "A page", {"figures/a.png": tmp_path / "figures" / "a.png"})
    assert page.count("data:image/png;base64,") == 1 and re.findall(r'<img [^>]*src="([^:]*?)"', page) == names[1:]
    assert '<code>src="figures/a.png"</code>' in page


def test_a_page_runs_sends_and_fetches_nothing():
    page = html_page("text", "A page", {})
    assert (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'\">" in page
    )
