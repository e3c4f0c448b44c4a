"""What the server holds of a visit goes when the page says so, and what is in use stays."""

import json
import time
import urllib.request
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from train.web_app import serving
from train.web_app.interface import NO_SLICE, PRIVACY, build_page
from train.web_app.serving import SECONDS_BETWEEN_LOOKS, SECONDS_KEPT, forget_unused, launch_settings

PICTURE = "data:image/png"
MINUTE = timedelta(minutes=1)


class Visit:
    """The page in a browser, as the server sees it: events of a session, and a connection that tells it is open."""

    def __init__(self, page, app, address, session):
        self.page, self.app, self.session = page, app, session
        self.api = f"{address.rstrip('/')}/gradio_api"

    def send(self, function, inputs):
        """Ask for what a function of the page does."""
        acts = {number: getattr(event.fn, "func", event.fn) for number, event in self.page.fns.items() if event.fn}
        number = next(number for number, act in acts.items() if act.__name__ == function)
        body = json.dumps({"fn_index": number, "data": inputs, "session_hash": self.session}).encode()
        request = urllib.request.Request(f"{self.api}/queue/join", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    def ask(self, function, inputs=()):
        """Ask, and wait for the answer."""
        self.send(function, list(inputs))
        with urllib.request.urlopen(f"{self.api}/queue/data?session_hash={self.session}", timeout=60) as answers:
            messages = [json.loads(line.removeprefix(b"data: ")) for line in answers if line.startswith(b"data: ")]
        (done,) = [message for message in messages if message["msg"] == "process_completed"]
        assert done["success"], done
        until(lambda: not self.page._queue.event_ids_to_events)
        return done["output"]["data"]

    def show(self):
        """What the page shows of the slice in memory: its picture, and the placeholder."""
        shown = self.ask("_show_slice", [None, 1, "", None, "Grad-CAM"])
        return shown[0], shown[3]

    def heartbeat(self):
        """The connection that is open as long as the page is."""
        return urllib.request.urlopen(f"{self.api}/heartbeat/{self.session}", timeout=60)


def held(app) -> str:
    """All that the server holds of any session."""
    states = [(state.config_values, state.state_data) for state in app.state_holder.session_data.values()]
    queues = app.get_blocks()._queue.pending_messages_per_session.values()
    return repr((states, [list(queue._queue) for queue in queues]))


def until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def launch(reader, tmp_path, monkeypatch):
    pages = []

    def launch():
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        pages.append(build_page(reader, "tiny"))
        app, address, _ = pages[-1].launch(prevent_thread_lock=True, **launch_settings())
        return pages[-1], app, address

    yield launch
    for page in pages:
        page.close()


def test_a_page_that_was_not_used_for_half_an_hour_is_forgotten_and_one_in_use_is_not(launch):
    page, app, address = launch()
    visit, other = Visit(page, app, address, "one"), Visit(page, app, address, "other")
    visit.ask("_take_example")
    assert PICTURE in visit.show()[0]
    assert PICTURE in repr(other.ask("_show_study_example")[1])
    other.send("_show_study_example", [])  # and nobody fetches the answer
    until(lambda: not page._queue.event_ids_to_events)
    assert PICTURE in held(app)

    forget_unused(app, datetime.now() + 28 * MINUTE)
    assert PICTURE in visit.show()[0]

    app.state_holder.time_last_used["other"] -= 20 * MINUTE
    forget_unused(app, datetime.now() + 20 * MINUTE)
    assert list(app.state_holder.session_data) == ["one"]
    assert PICTURE in visit.show()[0]

    forget_unused(app, datetime.now() + timedelta(seconds=SECONDS_KEPT - SECONDS_BETWEEN_LOOKS + 1))
    assert not app.state_holder.session_data and not app.state_holder.time_last_used
    assert PICTURE not in held(app)

    assert visit.show() == ("", NO_SLICE)  # the empty page
    visit.ask("_take_example")
    assert PICTURE in visit.show()[0]
    assert f"{SECONDS_KEPT // 60} minutes" in PRIVACY


def test_the_running_app_forgets_a_page_that_was_closed(launch, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setenv("GRADIO_HEARTBEAT_INTERVAL", "0.1")
    page, app, address = launch()
    visit = Visit(page, app, address, "one")
    with visit.heartbeat():
        visit.ask("_take_example")
        assert PICTURE in visit.show()[0]
        time.sleep(0.5)
        assert PICTURE in visit.show()[0]
    until(lambda: not app.state_holder.session_data)
    assert PICTURE not in held(app)


def test_what_is_being_answered_is_not_taken_away(launch):
    page, app, address = launch()
    visit = Visit(page, app, address, "one")
    visit.ask("_take_example")
    app.state_holder.session_data["one"].is_closed = True
    page._queue.event_ids_to_events["running"] = SimpleNamespace(session_hash="one")
    forget_unused(app, datetime.now())
    assert "one" in app.state_holder.session_data and "one" in page._queue.pending_messages_per_session
    del page._queue.event_ids_to_events["running"]
    forget_unused(app, datetime.now())
    assert "one" not in app.state_holder.session_data and "one" not in page._queue.pending_messages_per_session
