"""What the server holds of a visit to the page, and when it lets go of it.

The library lets its states expire alone. The last value of every part of the page, pictures among them, it would keep
until the app ends, and so what could not be delivered to a page that was closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from gradio.routes import App

SECONDS_KEPT = 1800  # since the page was last used, at most
SECONDS_BETWEEN_LOOKS = 60


@asynccontextmanager
async def forgetting(app: App) -> AsyncIterator[None]:
    """Forget unused sessions as long as an app runs; its `lifespan`.

    On the event loop of the app, so that no session is taken away while it is being looked up.
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
    """Drop all that is held of pages that were closed, or not used for so long that the next look would be too late.

    What is being answered waits. Whoever uses the page after that has an empty one.

    Args:
        app: What `launch` gives.
        now: The time, as the library notes it for each use.
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
