"""Serve the page and nothing else, limit what the browser may fetch, and forget visits.

Gradio expires only states. It would keep the last value of every component, pictures among them, until the app ends,
and also what could not be delivered to a page that was closed.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
import gradio.processing_utils
from gradio.routes import App
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from train.web_app.receiving import receive, sweep

SECONDS_KEPT = 1800  # since the page was last used, at most
SECONDS_BETWEEN_LOOKS = 60
FONTS = ["system-ui", "sans-serif"]
MAX_FILE_SIZE = "200mb"
MAX_SESSIONS = 100  # in memory at once; the least recently used goes first
MAX_WAITING = 100  # questions in the queue; Gradio tells the next one that the app is busy
MAX_THREADS = 8  # the model answers one question at a time; the other threads send files of the page
# What the page asks for. Gradio would also serve other files, APIs and copies of a session.
UPLOAD = "/gradio_api/upload"
REQUESTS = {
    "GET": re.compile(
        r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static)/.+|"
        r"/gradio_api/(theme\.css|info|app_id|startup-events|queue/data|heartbeat/[^/]+)"
    ),
    "POST": re.compile(rf"{UPLOAD}|/gradio_api/(queue/join|cancel|reset)/?"),
}
REQUESTS["HEAD"] = REQUESTS["GET"]
MAX_BODY_BYTES = {UPLOAD: 500 * 10**6}  # of one request
MAX_OTHER_BODY_BYTES = 2**20
# The browser refuses to fetch from elsewhere, or to send there, whatever a page or a library tries. A Space is shown
# in a frame of the Hub's page.
CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self' https://huggingface.co https://*.huggingface.co"
)
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


async def _fetch_nothing(url: str) -> NoReturn:
    raise ValueError(f"The app does not fetch {url[:100]}: upload the file.")


# A question may name an address in place of an upload, and Gradio would download it, whatever its size.
gradio.processing_utils.async_ssrf_protected_get = _fetch_nothing


def launch_settings() -> dict[str, Any]:
    """Collect the settings of `launch` that keep the page on this machine and nothing on disk.

    Without the last three, Gradio would record each run in the browser, with what was uploaded, link to a page with the
    runs, and start a second server on a Space.
    """
    return {
        "share": False,
        "quiet": True,
        # Cells of tables are set in the second font.
        "theme": gr.themes.Default(primary_hue="sky", font=FONTS, font_mono=FONTS),
        "css_paths": Path(__file__).with_name("app.css"),
        "max_file_size": MAX_FILE_SIZE,
        "state_session_capacity": MAX_SESSIONS,
        "max_threads": MAX_THREADS,
        "app_kwargs": {
            "routes": [Route(UPLOAD, receive, methods=["POST"])],  # goes before Gradio's own
            "middleware": [Middleware(_OnlyThePage)],
            "lifespan": forgetting,
        },
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
    }


class _OnlyThePage:
    """Answers only `REQUESTS`, of a bounded size, and adds `HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket, which stays unopened
        max_bytes = MAX_BODY_BYTES.get(scope["path"], MAX_OTHER_BODY_BYTES)
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > max_bytes:
                raise HTTPException(413, f"More than {max_bytes / 1e6:.0f} MB at once are refused.")
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        allowed = REQUESTS.get(scope["method"])
        length = Headers(scope=scope).get("content-length", "")
        if allowed is None or not allowed.fullmatch(scope["path"]):
            answer: ASGIApp = PlainTextResponse("Not found.", 404)
        elif length.isdecimal() and int(length) > max_bytes:
            answer = PlainTextResponse(f"More than {max_bytes / 1e6:.0f} MB at once are refused.", 413)
        else:
            answer = self.app
        await answer(scope, receive_bounded, send_with_headers)


@asynccontextmanager
async def forgetting(app: App) -> AsyncIterator[None]:
    """Forget unused sessions while an app runs; its `lifespan`.

    This runs on the event loop of the app, so that no session disappears while it is being looked up.
    """

    async def look_regularly() -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            forget_unused(app, datetime.now())
            sweep(Path(app.uploaded_file_dir), time.time())

    task = asyncio.create_task(look_regularly())
    try:
        yield
    finally:
        task.cancel()


def forget_unused(app: App, now: datetime) -> None:
    """Drop what the app keeps of pages that were closed, or unused too long to wait for the next check.

    A page that waits for an answer is kept.
    """
    holder, queue = app.state_holder, app.get_blocks()._queue
    answering = {event.session_hash for event in queue.event_ids_to_events.values()}
    with holder.lock:
        for session, state in list(holder.session_data.items()):
            unused = (now - holder.time_last_used.get(session, now)).total_seconds()
            is_over = state.is_closed or unused > SECONDS_KEPT - SECONDS_BETWEEN_LOOKS
            if is_over and session not in answering:
                del holder.session_data[session]
                holder.time_last_used.pop(session, None)
    for session in queue.pending_messages_per_session.keys() - holder.session_data.keys() - answering:
        del queue.pending_messages_per_session[session]
