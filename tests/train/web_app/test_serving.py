"""What the server holds of a visit goes when the page says so, and what is in use stays."""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from io import BytesIO
from types import SimpleNamespace

import gradio.processing_utils
import numpy as np
import pytest
from PIL import Image

from train.web_app import serving, uploads
from train.web_app.interface import FORGOTTEN, NO_SLICE, PRIVACY
from train.web_app.serving import CONTENT_POLICY, SECONDS_BETWEEN_LOOKS, SECONDS_KEPT, forget_unused

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

    def upload(self, content, name="slice.png"):
        """Send a file; return what the page then says of it."""
        (path,) = post_files(self.api, [(name, content)])
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

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
        shown = self.ask("_show_slice", [None, 1, "", None, "Grad-CAM", False])
        return shown[0], shown[3]

    def heartbeat(self):
        """The connection that is open as long as the page is."""
        return urllib.request.urlopen(f"{self.api}/heartbeat/{self.session}", timeout=60)


def post_files(api, files, **headers):
    """Post files as a page does; return their paths."""
    parts = [
        b'--limit\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in files
    ]
    body = b"".join([*parts, b"--limit--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=limit", **headers}
    with urllib.request.urlopen(urllib.request.Request(f"{api}/upload", body, headers), timeout=60) as answer:
        return json.load(answer)


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


def test_the_app_fetches_no_address_that_a_question_names(tmp_path):
    with pytest.raises(ValueError, match=r"does not fetch http://93\.184\.216\.34/x\.png: upload the file"):
        asyncio.run(gradio.processing_utils.async_ssrf_protected_download("http://93.184.216.34/x.png", str(tmp_path)))


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

    assert visit.show() == ("", NO_SLICE.format(", or take an example"))  # the empty page
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


def status(address, path, method="GET", body=None, **headers):
    """The status of an answer, and the answer."""
    try:
        request = urllib.request.Request(address.rstrip("/") + path, body, headers, method=method)
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, "" if method == "HEAD" else answer.read(2000).decode(errors="replace")


def test_the_page_is_served_with_its_policy(launch):
    *_, address = launch()
    for path in ("/", "/config", "/theme.css", "/gradio_api/info", "/nothing"):
        _, headers, _ = status(address, path)
        assert headers["Content-Security-Policy"] == CONTENT_POLICY, path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    for rule in ("form-action 'none'", "base-uri 'none'", "object-src 'none'", "frame-ancestors 'self' https://hugg"):
        assert rule in CONTENT_POLICY


def test_what_the_page_does_not_ask_for_is_not_found(launch, tmp_path):
    """Every route of Gradio that the page does not need, with values that it would answer."""
    page, app, address = launch()
    visit = Visit(page, app, address, "own")
    visit.ask("_take_example")
    (tmp_path / "stored.png").write_text("another's")
    needed = {
        *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/static/{path:path}"),
        *(
            "/assets/{path:path}",
            "/gradio_api/theme.css",
            "/gradio_api/info",
            "/gradio_api/app_id",
            "/gradio_api/reset",
        ),
        *("/gradio_api/startup-events", "/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/cancel"),
        *("/gradio_api/heartbeat/{session_hash}", "/gradio_api/upload"),
    }
    routes = {
        (method, route.path)
        for route in all_routes(app.routes)
        for method in (getattr(route, "methods", None) or {"GET"})
    }
    assert ("GET", "/gradio_api/deep_link") in routes
    for method, path in routes:
        if path.rstrip("/") in {known.rstrip("/") for known in needed}:
            continue
        filled = re.sub(r"\{[^}]*\}", "own", path)
        found, _, said = status(address, f"{filled}?session_hash=own", method, b"{}" if method == "POST" else None)
        assert (found, said) == (404, "" if method == "HEAD" else "Not found."), (method, path)
    for path in (
        *(
            f"/gradio_api/file={tmp_path}/stored.png",
            f"/gradio_api/file/{tmp_path}/stored.png",
            f"/file={tmp_path}/stored.png",
        ),
        *("/gradio_api/deep_link/?session_hash=own", "//gradio_api/deep_link?session_hash=own", "/gradio_api/mcp/sse"),
        *("/gradio_api/%64eep_link?session_hash=own", "/docs", "/openapi.json", "/gradio_api/heartbeat/a/b"),
    ):
        assert status(address, path)[0] == 404, path
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "HEAD"):
        assert status(address, "/gradio_api/queue/join", method)[0] == 404


def all_routes(routes):
    """Routes, those of included routers among them."""
    for route in routes:
        inner = getattr(getattr(route, "original_router", route), "routes", None)
        yield from all_routes(inner) if inner else [route]


def test_a_request_of_any_size_is_cut_off(launch):
    *_, address = launch()
    body = b'{"data": ["' + b"x" * 2**20 + b'"], "fn_index": 0, "session_hash": "a"}'
    for sent in (body, iter([body])):  # with its length, and in chunks without
        try:
            found, _, said = status(
                address, "/gradio_api/queue/join", "POST", sent, **{"Content-Type": "application/json"}
            )
        except urllib.error.URLError as error:  # answered and closed before all was sent
            assert isinstance(error.reason, ConnectionError)
        else:
            assert found == 413 and "1 MB" in said


def test_a_full_queue_says_so(launch, monkeypatch):
    page, app, address = launch()
    monkeypatch.setattr(page._queue, "max_size", 0)
    with pytest.raises(urllib.error.HTTPError) as refused:
        Visit(page, app, address, "one").send("_take_example", [])
    assert refused.value.code == 503  # for which Gradio's page says that the app is busy


def test_the_page_says_so_when_a_slice_was_dropped_for_others(launch, monkeypatch):
    page, app, address = launch()
    visit, other = Visit(page, app, address, "one"), Visit(page, app, address, "other")
    visit.ask("_take_example")
    assert PICTURE in visit.show()[0]
    monkeypatch.setattr(uploads, "MAX_HELD_BYTES", 10)
    other.ask("_take_example")
    assert visit.show() == ("", FORGOTTEN)
    assert PICTURE in other.show()[0]


def test_visitors_with_the_same_file_do_not_disturb_each_other(launch, tmp_path):
    page, app, address = launch()
    picture = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)).save(picture, "PNG")
    visits = [Visit(page, app, address, f"visit-{number}") for number in range(8)]
    sent = [visit.upload(picture.getvalue()) for visit in visits]
    assert len({file["path"] for file in sent}) == len(visits)
    for visit, file in zip(visits, sent, strict=True):
        assert "damaged" not in str(visit.ask("_take_file", [file]))
        assert PICTURE in visit.show()[0]
    assert not list(tmp_path.rglob("*"))
