"""What a page of HTML is made of, and what it says; texts that try to be more than text."""

import json
from html.parser import HTMLParser

import pytest

from tests.conftest import SHARED_DATA

HOSTILE = (
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/refresh">',
    "![a](../../../../secret.png)",
    "![a](figures/systems.png)",
    '<form action=http://127.0.0.1:9/form><input name="p" value="secret"><button>Sign in</button></form>',
    "[a](javascript:alert(1)) <http://127.0.0.1:9/> [b][c]",
    '"><script>alert(1)</script><!-- | a | `b` $x$ ~~c~~',
    "</details></summary></table></code></pre>|*a*|__b__\\",
    "[a]: http://127.0.0.1:9/",
    "# a\n\n- b\n---\n```\n1. c | d",
    "&lt;b&gt; &#60;b&#62; \\<b> \\`a\\`",
    "{{ 1 }} {% x %} {name} %s",
    "\x1b]0;a\x07\x9b2J\u202eb",
)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.made_of: list[tuple[str, ...]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.made_of.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.made_of.append(("/", tag))

    def handle_data(self, data):
        self.words += data.split()

    def handle_comment(self, data):
        self.made_of.append(("!", data))

    handle_decl = handle_pi = unknown_decl = handle_comment


def page_content(html: str) -> tuple[list[tuple[str, ...]], str]:
    """Return the elements of a page with the names of their attributes, in order, and its text without blanks."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.made_of, "".join(reader.words)


def shown(text: str) -> str:
    """Return how a page shows a text, without blanks: as typed, but control characters as escapes."""
    controls = {"\x1b": r"\x1b", "\x07": r"\x07", "\x9b": r"\x9b", "\u202e": r"\u202e"}
    return "".join("".join(controls.get(character, character) for character in text).split())


def recorded_texts() -> list[str]:
    """Read the texts that a page once obeyed, which lie beside the project."""
    cases = SHARED_DATA.parent / "faults" / "security" / "cases.json"
    if not cases.exists():
        pytest.skip("no recorded texts beside the project")
    (found,) = (case["inputs"] for case in json.loads(cases.read_text()) if case["id"] == "html-injection")
    return found
