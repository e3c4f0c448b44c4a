"""Pictures as HTML that carries its pixels along: nothing of an upload is written to a file to be shown."""

import base64
import io
from html import escape

from PIL import Image

from train.web_app.uploads import Slice

MAX_SHOWN_SIDE = 768  # pixels; what is sent to the browser of a large radiograph
THUMBNAIL_SIDE = 56


def data_uri(image: Image.Image) -> str:
    """An image as a `data:` address, PNG without metadata."""
    buffer = io.BytesIO()
    Image.Image.copy(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: Image.Image) -> Image.Image:
    """A small square with the whole slice in it, on black."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    square = Image.new("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    square.paste(small, ((THUMBNAIL_SIDE - small.width) // 2, (THUMBNAIL_SIDE - small.height) // 2))
    return square


def slice_html(slice_: Slice, heat: Image.Image | None, about_map: str) -> str:
    """Show a slice, a map over it, and what both are.

    Args:
        slice_: The slice.
        heat: The map, mode `RGBA`, over the whole slice; None for none.
        about_map: What the map shows, or why there is none; may be empty.
    """
    shown = slice_.image.copy()
    shown.thumbnail((MAX_SHOWN_SIDE, MAX_SHOWN_SIDE), Image.Resampling.LANCZOS)
    facts = f" · {escape(slice_.facts)}" if slice_.facts else ""
    overlay = f'<img class="lc-heat" src="{data_uri(heat)}" alt="{escape(about_map)}">' if heat else ""
    scale = '<span class="lc-scale" aria-hidden="true">low<i></i>high</span>' if heat else ""
    words = f'<p class="lc-small">{escape(about_map)} {scale}</p>' if about_map else ""
    return (
        '<figure class="lc-figure"><div class="lc-stack">'
        f'<img class="lc-slice" src="{data_uri(shown)}" alt="The slice {escape(slice_.name)}">{overlay}</div>'
        f'<figcaption><b>{escape(slice_.name)}</b><span class="lc-small">{facts}</span>{words}</figcaption></figure>'
    )
