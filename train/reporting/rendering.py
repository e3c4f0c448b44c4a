"""Fill templates of reports and cards, and turn their Markdown into one HTML page that needs no other file."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import markdown
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables

TEMPLATES = Path(__file__).with_name("templates")
PAGE = "page.html.jinja"


def fill_template(template: Path, values: Mapping[str, Any]) -> str:
    """Fill a Jinja template, which may import from `templates/`, and drop the empty lines that conditions leave.

    Raises:
        ValueError: If the template cannot be parsed, or has a placeholder without a value, even in a branch not taken.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
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


def html_page(report: str, title: str, folder: Path) -> str:
    """Turn a Markdown report with PNG images, named relative to `folder`, into one self-contained page.

    The page runs no script and fetches nothing: text of a dataset, such as its citation, may hold HTML.
    """
    foldable = report.replace("<details>", '<details markdown="1">')  # Markdown inside it, as on the Hub
    body = markdown.markdown(foldable, extensions=["tables", "fenced_code", "md_in_html"])

    def embedded(match: re.Match[str]) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((folder / match[1]).read_bytes()).decode()}"'

    body = re.sub(r'src="([^":]+\.png)"', embedded, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return fill_template(TEMPLATES / PAGE, {"title": title, "body": body})
