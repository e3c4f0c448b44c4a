"""Uploads stay in a private folder only until they are read, interrupted or abandoned."""

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import PROJECT
from tests.train.web_app.test_serving import post_files, until
from train.web_app import receiving, serving
from train.web_app.receiving import BUSY, SECONDS_UNREAD, forget, sweep, upload_folder


def stored(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def api(launch):
    *_, address = launch()
    return f"{address.rstrip('/')}/gradio_api"


def test_each_upload_is_private_and_its_name_leads_nowhere(api, tmp_path):
    names = ["../../outside.png", "/etc/passwd", "..", "a" * 5000 + ".png", "b%00.png", "c\\d.png", "é 椎.png", " ", ""]
    for name in names:
        try:
            paths = post_files(api, [(name, b"x")])
        except urllib.error.HTTPError as refused:
            assert refused.code in (400, 413, 507)
            continue
        for path in paths:
            assert tmp_path in Path(path).resolve().parents
            assert Path(path).is_file()
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    first, second = (post_files(api, [("slice.png", b"x")] * 2) for _ in range(2))
    assert len({*first, *second}) == 2  # of one request, equal files are one


def test_nothing_of_an_interrupted_upload_stays(api, tmp_path):
    address = urlsplit(api)
    for _ in range(20):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        connection.putrequest("POST", f"{address.path}/upload?upload_id=a")
        connection.putheader("Content-Type", "multipart/form-data; boundary=limit")
        connection.putheader("Content-Length", "10000000")
        connection.endheaders()
        connection.send(b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n')
        connection.send(bytes(200_000))
        connection.close()
    until(lambda: not list(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("files", "limit", "code", "words"),
    [
        ([("a.png", bytes(2000))], ("MAX_FILE", 1000), 413, "exceeded maximum allowed size"),
        ([("a.png", bytes(2000))], ("MAX_STORED_BYTES", -1), 503, BUSY),
        ([("a.png", bytes(2000))] * 9, ("MAX_BODY_BYTES", 10_000), 413, "at once are refused"),
        ([("a.png", b"")] * 1001, None, 400, "Too many files"),
    ],
    ids=["a file too large", "disk in use", "all too large", "too many"],
)
def test_too_much_is_refused_in_words(launch, tmp_path, monkeypatch, files, limit, code, words):
    page, _, address = launch()
    if limit and limit[0] == "MAX_FILE":
        page.max_file_size = limit[1]
    elif limit and limit[0] == "MAX_BODY_BYTES":
        monkeypatch.setitem(serving.MAX_BODY_BYTES, serving.UPLOAD, limit[1])
    elif limit:
        monkeypatch.setattr(receiving, limit[0], limit[1])
    with pytest.raises(urllib.error.HTTPError) as refused:
        post_files(f"{address.rstrip('/')}/gradio_api", files)
    assert refused.value.code == code
    assert words in refused.value.read().decode()
    assert not list(tmp_path.iterdir())


def test_an_upload_that_takes_too_long_is_given_up(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(receiving, "SECONDS_TO_ARRIVE", 0.2)
    *_, address = launch()
    connection = http.client.HTTPConnection(urlsplit(address).hostname, urlsplit(address).port, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=limit")
    connection.putheader("Content-Length", "10000")
    connection.endheaders()
    connection.send(b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx')
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:22]) == (408, b"The upload took longer")
    connection.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("body", [b"", b"--limit", b"--limit\r\n\r\nx\r\n--limit--", b"x" * 100])
def test_what_is_no_upload_is_refused(api, tmp_path, body):
    address = urlsplit(api)
    for kind in ("multipart/form-data; boundary=limit", "multipart/form-data", "application/json"):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        connection.request("POST", f"{address.path}/upload", body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 400 or (answer.status, answer.read()) == (200, b"[]")
        connection.close()
    assert not stored(tmp_path)


def test_abandoned_uploads_are_swept_and_arriving_ones_are_not(tmp_path):
    for name in ("old/hash/a.png", "arriving/tmp1", "new/hash/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "tmp2").write_text("x")
    past = time.time() - SECONDS_UNREAD - 5
    for path in (*(tmp_path / "old").rglob("*"), tmp_path / "old", tmp_path / "arriving", tmp_path / "tmp2"):
        os.utime(path, (past, past))
    sweep(tmp_path, time.time())
    assert stored(tmp_path) == ["b.png", "tmp1"]
    sweep(tmp_path / "missing", time.time())


def test_the_running_app_sweeps(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(receiving, "SECONDS_UNREAD", 0)
    *_, address = launch()
    post_files(f"{address.rstrip('/')}/gradio_api", [("a.png", b"x")])
    until(lambda: not list(tmp_path.iterdir()))


def test_forgetting_deletes_uploads_and_nothing_else(tmp_path):
    uploads = tmp_path / "uploads"
    (uploads / "token" / "hash").mkdir(parents=True)
    (uploads / "token" / "hash" / "slice.png").write_text("pixels")
    (uploads / "loose.png").write_text("pixels")
    (tmp_path / "mine.txt").write_text("keep")
    forget(
        [
            *(uploads / "token" / "hash" / "slice.png", uploads / "loose.png", uploads / ".." / "mine.txt"),
            *(uploads / "gone.png", uploads, uploads / "loose.png" / "x"),
        ],
        uploads,
    )
    assert list(uploads.iterdir()) == []
    assert (tmp_path / "mine.txt").exists()


def test_the_folder_is_private_and_goes_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with upload_folder() as folder:
        (folder / "slice.png").write_text("pixels")
        assert folder.parent.stat().st_mode & 0o077 == 0
        with upload_folder() as other:  # a second app leaves the first alone
            assert other != folder
        assert (folder / "slice.png").exists()
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_apps_are_removed_and_no_others(tmp_path, monkeypatch):
    code = "import time\nfrom train.web_app.receiving import upload_folder\nwith upload_folder() as folder:\n"
    code += "    (folder / 'slice.png').write_text('x')\n    print('here', flush=True)\n    time.sleep(600)"
    settings = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, env=settings, stdout=subprocess.PIPE) as killed:
        assert killed.stdout.readline() == b"here\n"
        killed.send_signal(signal.SIGKILL)
    assert stored(tmp_path) == ["lock", "slice.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lock").write_text("kept")
    (tmp_path / f"{receiving.PREFIX}link").symlink_to(tmp_path / "mine")
    (tmp_path / f"{receiving.PREFIX}other").mkdir()  # not of an app: without a lock
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with upload_folder():
        assert stored(tmp_path / "mine") == ["lock"]
        assert (tmp_path / "mine" / "lock").read_text() == "kept"
        assert (tmp_path / f"{receiving.PREFIX}other").exists()
        assert "slice.png" not in stored(tmp_path)
