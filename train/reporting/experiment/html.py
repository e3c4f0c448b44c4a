"""A report or a card as one HTML file that needs nothing beside it: figures are inside.

What a data set brings into a card, such as its citation, may hold HTML: the page runs no script and fetches nothing.
"""

import base64
import re
from html import escape
from pathlib import Path

import markdown

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto; padding: 1rem; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #e6e6e6; }}
th {{ border-bottom: 2px solid #8a8a8a; }}
td:first-child, th:first-child {{ position: sticky; left: 0; background: white; }}
img {{ max-width: 100%; height: auto; }}
blockquote {{ margin: 1rem 0; padding: 0 1rem; border-left: .25rem solid #8a8a8a; }}
details {{ margin: 1rem 0; }}
summary {{ margin-bottom: .7rem; cursor: pointer; }}
pre {{ background: #f6f6f6; padding: .7rem; overflow-x: auto; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def html_page(report: str, title: str, folder: Path) -> str:
    """Turn a Markdown report into one self-contained page.

    Args:
        report: Markdown; images are PNG files named relative to `folder`.
        title: Of the page.
        folder: Where the images lie.

    Returns:
        HTML.

    Raises:
        FileNotFoundError: If an image is missing.
    """
    foldable = report.replace("<details>", '<details markdown="1">')  # Markdown inside it, as on the Hub
    body = markdown.markdown(foldable, extensions=["tables", "fenced_code", "md_in_html"])
    body = re.sub(r'src="([^":]+\.png)"', lambda match: f'src="{_data_uri(folder / match[1])}"', body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return PAGE.format(title=escape(title), body=body)


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
