"""Serve the page: limit what the browser may fetch, and forget visits.

Gradio expires only states. It would keep the last value of every component, pictures among them, until the app ends,
and also what could not be delivered to a page that was closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.routes import App
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_KEPT = 1800  # since the page was last used, at most
SECONDS_BETWEEN_LOOKS = 60
FONTS = ["system-ui", "sans-serif"]
MAX_FILE_SIZE = "200mb"
MAX_SESSIONS = 100  # in memory at once; the least recently used goes first
# With it the browser refuses to fetch from elsewhere, or to send there, whatever a page or a library tries.
CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


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
        "app_kwargs": {"middleware": [Middleware(_OwnSourcesOnly)], "lifespan": forgetting},
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
    }


class _OwnSourcesOnly:
    """Adds `CONTENT_POLICY` to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


@asynccontextmanager
async def forgetting(app: App) -> AsyncIterator[None]:
    """Forget unused sessions while an app runs; its `lifespan`.

    This runs on the event loop of the app, so that no session disappears while it is being looked up.
    """

    async def look_regularly() -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            forget_unused(app, datetime.now())

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
