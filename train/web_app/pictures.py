"""Pictures and messages as HTML.

Gradio's own pictures are files that its server delivers. Ours carry their pixels along, so that showing an upload
writes nothing to disk. Whatever comes from a file or a user is escaped.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from train.web_app.uploads import Slice

THUMBNAIL_SIDE = 56


def message_html(messages: Sequence[str], kind: str = "error") -> str:
    """Show messages: an `error`, which a screen reader reads out at once, or a `note`."""
    role = "alert" if kind == "error" else "status"
    said = "".join(f"<p>{escape(message)}</p>" for message in messages)
    return f'<div class="lc-message lc-{kind}" role="{role}">{said}</div>' if messages else ""


def headline_html(name: str, verdicts: Sequence[str]) -> str:
    """Name what was read, and say the answers to it in a line each."""
    said = "".join(f"<p>{escape(verdict)}</p>" for verdict in verdicts)
    return f'<div class="lc-headline" role="status"><p class="lc-small">{escape(name)}</p>{said}</div>'


def thumbnail_html(image: Image.Image) -> str:
    """Show a small slice, without a name."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return f'<img src="{_data_uri(small)}" alt="" width="{small.width}" height="{small.height}">'


def slice_html(slice_: Slice, heat: Image.Image | None, about_map: str, legend: Image.Image | None = None) -> str:
    """Show a slice, a map over it and its legend (mode `RGBA`) if any, and what the map shows or why there is none."""
    facts = f" · {escape(slice_.facts)}" if slice_.facts else ""
    overlay = f'<img class="lc-heat" src="{_data_uri(heat)}" alt="{escape(about_map)}">' if heat else ""
    ramp = f'<i><img src="{_data_uri(legend)}" alt=""></i>' if legend else ""
    scale = f'<span class="lc-scale" aria-hidden="true">low{ramp}high</span>' if heat else ""
    words = f'<p class="lc-small">{escape(about_map)} {scale}</p>' if about_map else ""
    return (
        '<figure class="lc-figure"><div class="lc-stack">'
        f'<img class="lc-slice" src="{_data_uri(slice_.image)}" alt="The slice {escape(slice_.name)}">{overlay}</div>'
        f'<figcaption><b>{escape(slice_.name)}</b><span class="lc-small">{facts}</span>{words}</figcaption></figure>'
    )


def _data_uri(image: Image.Image) -> str:
    """Write an image as a `data:` address, PNG without metadata."""
    buffer = io.BytesIO()
    Image.Image.copy(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
