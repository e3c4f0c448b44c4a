"""Other people's texts in Markdown: two parsers show them as typed, wherever they stand."""

import markdown
import pytest

from data_scripts.system.markdown import (
    code_block,
    code_span,
    escape_markdown,
    fill_markdown,
    markdown_table,
    printable,
    quoted_as_code,
)
from tests.page_content import HOSTILE, page_content, recorded_texts, shown

PLACES = {
    "start": lambda text: f"{escape_markdown(text)} tail\n\nnext",
    "line": lambda text: f"before\n{escape_markdown(text)}\nafter",
    "sentence": lambda text: f"of {escape_markdown(text)}, **x {escape_markdown(text)} y**, *z*",
    "side by side": lambda text: f"{escape_markdown(text)}{escape_markdown(text)} ({escape_markdown(text)})",
    "heading": lambda text: f"# Audit of {escape_markdown(text)}\n\n## {escape_markdown(text)}\n\nnext",
    "list": lambda text: f"- {escape_markdown(text)}: “{escape_markdown(text)}”\n- {escape_markdown(text)}\n\nnext",
    "quote": lambda text: f"> **Leak.** {escape_markdown(text)}\n> more\n\nnext",
    "folded": lambda text: f'<details markdown="1">\n<summary>All</summary>\n\n{escape_markdown(text)}\n\n</details>',
    "table": lambda text: f"{markdown_table([text, 'b'], [[text, 1], [f'{text} (2)', text]])}\n\nnext",
    "code": lambda text: f"a {code_span(text)} b",
    "block": lambda text: f"a\n\n{code_block(text, 'sh')}\n\nnext",
    "template": lambda text: fill_markdown("- {a}: {b}\n", {"a": text, "b": text}),
}


def of_python_markdown(text):
    return markdown.markdown(text, extensions=["tables", "fenced_code", "md_in_html"])


def of_commonmark(text):
    return pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).render(text)


def check_reads_as_typed(text, place, render):
    elements, words = page_content(render(PLACES[place]("plain")))
    assert page_content(render(PLACES[place](text))) == (elements, words.replace("plain", shown(text)))


@pytest.mark.parametrize("render", [of_python_markdown, of_commonmark])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_reads_as_typed(text, place, render):
    check_reads_as_typed(text, place, render)


@pytest.mark.parametrize("place", PLACES)
def test_recorded_texts_read_as_typed(place):
    for text in recorded_texts():
        check_reads_as_typed(text, place, of_python_markdown)


@pytest.mark.parametrize(
    "name", ["T1/T2_star", "disc_bulge", "L4-L5", "R@10", "Pfirrmann >= 4", "p < 0.05", "AT&T 1.2"]
)
def test_usual_names_are_not_changed(name):
    assert escape_markdown(name) == name == markdown_table([name], []).splitlines()[0].strip("| ")


def test_only_what_is_marked_is_markdown():
    bold = fill_markdown("**{name}**", {"name": "a*b"})
    assert escape_markdown(bold) == bold == r"**a\*b**"
    assert escape_markdown(bold + "") == r"\*\*a\\\*b\*\*"  # joined to a text it is one
    assert escape_markdown(-0.5) == "-0.5" and escape_markdown(None) == "None"


def test_parts_between_backticks_are_code():
    assert quoted_as_code("`a|b`, `c` have <3> rows") == "`a|b`, `c` have &lt;3> rows"
    assert quoted_as_code("`<b>` and ` alone") == "`<b>` and &#96; alone"


def test_a_terminal_obeys_no_text():
    assert printable("a\tb\n\r\x1b[2J\x00\x7f\x9b\u202e é") == "a\tb\n\\r\\x1b[2J\\x00\\x7f\\x9b\\u202e é"
