"""Fill templates of reports and cards, and turn their Markdown into one HTML page that needs no other file."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import markdown
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables

from data_scripts.system.markdown import Markdown, code_block, code_span, escape_markdown, printable, quoted_as_code

TEMPLATES = Path(__file__).with_name("templates")
PAGE = "page.html.jinja"
# How a template writes what is not part of a sentence; all else is escaped.
FILTERS = {"code": code_span, "code_block": code_block, "quoted_as_code": quoted_as_code}


def fill_template(template: Path, values: Mapping[str, Any]) -> str:
    """Fill a Jinja template, which may import from `templates/`, and drop the empty lines that conditions leave.

    Values are escaped for Markdown, or for HTML in the template of a page, unless they are `Markdown`.

    Raises:
        ValueError: If the template cannot be parsed, or has a placeholder without a value, even in a branch not taken.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=None if template.name == PAGE else _escape,
    )
    environment.filters.update(FILTERS)
    source, known = template.read_text(encoding="utf-8"), f"Known: {', '.join(sorted(values))}."
    try:
        if unknown := sorted(find_undeclared_variables(environment.parse(source)) - set(values)):
            raise ValueError(f"{template.name} has unknown placeholders: {', '.join(unknown)}. {known}")
        text = environment.from_string(source).render(values)
    except TemplateSyntaxError as error:
        raise ValueError(f"{template.name}, line {error.lineno}: {error}.") from error
    except UndefinedError as error:  # of a part, as in `calibration.dataset`
        raise ValueError(f"{template.name} has an unknown placeholder: {error}. {known}") from error
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _escape(value: Any) -> Any:
    """Escape a value for Markdown, unless it is `Markdown` or, in Jinja, the output of a macro or a block."""
    return value if hasattr(value, "__html__") else escape_markdown(value)


def html_page(report: str, title: str, figures: Mapping[str, Path]) -> str:
    """Turn a Markdown report into one self-contained page.

    It contains the `figures`, PNG files by their names in the report, and no other file. It runs no script, sends no
    form and fetches nothing, whatever a dataset's texts hold.
    """
    # Markdown inside it, as on the Hub.
    foldable = re.sub(r"^<details>(?=$|<summary>)", '<details markdown="1">', report, flags=re.MULTILINE)
    body = markdown.markdown(foldable, extensions=["tables", "fenced_code", "md_in_html"])

    def embedded(match: re.Match[str]) -> str:
        if (figure := figures.get(match[2])) is None:
            return match[0]
        return f"{match[1]}data:image/png;base64,{base64.b64encode(figure.read_bytes()).decode()}"

    body = re.sub(r'(<img [^<>]*\bsrc=")([^"]+)', embedded, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return fill_template(TEMPLATES / PAGE, {"title": printable(title), "body": Markdown(body)})
