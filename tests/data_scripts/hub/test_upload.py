"""Files on the Hub: one commit with a tag or nothing, whatever breaks; errors that say what to do and no token."""

import hashlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
import traceback

import huggingface_hub
import pytest
from hf_xet import XetAuthenticationError
from huggingface_hub import HfApi

from data_scripts.hub import upload as hub_upload
from data_scripts.hub.upload import Destination, check_destination, files_below, upload
from tests.loopback_hub import LoopbackHub

MINE = Destination(repo_id="lumbar-lab/model")


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as hub:
        hub.connect(monkeypatch)
        monkeypatch.setattr(hub_upload, "RETRY_PAUSES", (0.0, 0.0))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name, content in {"a.safetensors": b"a" * 300_000, "b.safetensors": b"b" * 200_000}.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\nsdk: gradio\n---\nA model.\n")
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def files_of(folder):
    return {name: path.read_bytes() for name, path in files_below(folder).items()}


def without_attributes(repository):
    return {name: content for name, content in repository.files.items() if name != ".gitattributes"}


def test_a_folder_becomes_one_private_tagged_commit(hub, api, folder):
    (address,) = upload(api, {MINE: files_below(folder)})
    model = hub.model("lumbar-lab/model")
    assert model.private and model.messages == ["Publish v0.1"]
    assert without_attributes(model) == files_of(folder)
    assert model.tags == {"v0.1": model.commits[-1][0]} and address.endswith(model.tags["v0.1"])


def test_the_next_version_takes_away_what_it_has_not_and_sends_what_is_new(hub, api, folder):
    upload(api, {MINE: files_below(folder)})
    sent = hub.uploads.total()
    (folder / "a.safetensors").rename(folder / "renamed.safetensors")
    (folder / "b.safetensors").write_bytes(b"other")
    upload(api, {Destination(repo_id=MINE.repo_id, tag="v0.2"): files_below(folder)})
    model = hub.model(MINE.repo_id)
    assert without_attributes(model) == files_of(folder) and "a.safetensors" not in model.files
    assert hub.uploads.total() == sent + 1
    assert model.messages == ["Publish v0.1", "Publish v0.2"] and set(model.tags) == {"v0.1", "v0.2"}


def test_pictures_that_were_added_on_the_hub_stay(hub, api, folder, caplog):
    upload(api, {MINE: files_below(folder)})
    model = hub.model(MINE.repo_id)
    added = dict.fromkeys(("preview.png", "images/Card.JPG"), (b"picture", False))
    model.commit("By hand", model.commits[-1][2] | added | {"old.bin": (b"weights", False)})
    with caplog.at_level("INFO"):
        upload(api, {Destination(repo_id=MINE.repo_id, tag="v0.2"): files_below(folder)})
    model = hub.model(MINE.repo_id)
    assert without_attributes(model) == files_of(folder) | dict.fromkeys(added, b"picture")
    assert "Pictures that stay in lumbar-lab/model: images/Card.JPG, preview.png" in caplog.text
    again = {Destination(repo_id=MINE.repo_id, tag="v0.2"): files_below(folder)}
    upload(api, again)  # the same version: nothing to do, whatever pictures there are
    assert set(model.tags) == {"v0.1", "v0.2"}


def test_several_repositories_of_one_id(hub, api, folder):
    app = Destination(repo_id=MINE.repo_id, kind="space")
    upload(api, {MINE: files_below(folder), app: {"app.py": folder / "README.md"}})
    assert hub.space(MINE.repo_id).sdk == "gradio" and "app.py" in hub.space(MINE.repo_id).files
    assert set(hub.space(MINE.repo_id).tags) == set(hub.model(MINE.repo_id).tags) == {"v0.1"}


@pytest.mark.parametrize(
    "repo_id, said",
    [
        ("model", "'model' has no owner: give owner/name"),
        ("a/b/c", "'a/b/c' is not a repository id"),
        ("me/a--b", "'me/a--b' is not a repository id"),
        ("me/", "'me/' is not a repository id"),
        ("me/rücken", "'me/rücken' is not a repository id"),
    ],
)
def test_an_id_that_no_repository_can_have(repo_id, said):
    with pytest.raises(ValueError, match=said):
        Destination(repo_id=repo_id)


def test_what_is_refused_before_anything_is_sent(hub, api, folder):
    upload(api, {MINE: files_below(folder)})
    (folder / "README.md").write_text("Another model.")
    seen = len(hub.requests)
    cases = {
        Destination(
            repo_id="strangers/model"
        ): "not yours: this token publishes as tester or lumbar-lab, not as strang",
        MINE: "has a version v0.1",
    }
    for destination, said in cases.items():
        with pytest.raises(ValueError, match=said):
            upload(api, {destination: files_below(folder)})
    with pytest.raises(ValueError, match="The Hub refuses the token: .*hf auth login --force"):
        check_destination(HfApi(endpoint=hub.endpoint, token="hf_wrong"), MINE)
    with pytest.raises(ValueError, match=r"which others may use: give another --hub_tag\.$"):
        check_destination(api, Destination(repo_id=MINE.repo_id, tag_option="--hub_tag"), is_new=True)
    hub.model(MINE.repo_id).private = False
    with pytest.raises(ValueError, match="lumbar-lab/model is public: publish with --public"):
        check_destination(api, Destination(repo_id=MINE.repo_id, tag="v2"))
    with pytest.raises(ValueError, match="lumbar-lab/model is public: publish with publish.py --public"):
        check_destination(api, Destination(repo_id=MINE.repo_id, tag="v2", public_option="publish.py --public"))
    assert all(line.startswith("GET") for line in hub.requests[seen:])


def test_what_broke_off_between_two_tags_goes_on_with_the_same_call(hub, api, folder):
    app = Destination(repo_id=MINE.repo_id, kind="space")
    files = {MINE: files_below(folder), app: {"app.py": folder / "README.md"}}
    hub.misbehave("/api/spaces/.*/tag/", status=500, times=1000)
    with pytest.raises(ValueError, match="failed several times"):
        upload(api, files)
    model, space = hub.model(MINE.repo_id), hub.space(MINE.repo_id)
    assert set(model.tags) == {"v0.1"} and not space.tags
    hub.faults.clear()
    with pytest.raises(ValueError, match="has a version v0.1"):
        check_destination(api, MINE, is_new=True)  # as before a training, whose files will be others
    assert check_destination(api, MINE)
    upload(api, files)
    assert model.messages == space.messages == ["Publish v0.1"]
    assert space.tags == {"v0.1": space.commits[-1][0]} and model.tags == {"v0.1": model.commits[-1][0]}


@pytest.mark.parametrize("change", ["small", "large", "added", "removed", "later commit"])
def test_a_version_is_never_changed(hub, api, folder, change):
    upload(api, {MINE: files_below(folder)})
    if change == "removed":
        (folder / "b.safetensors").unlink()
    elif change == "later commit":
        hub.model(MINE.repo_id).commit("by hand", hub.model(MINE.repo_id).commits[-1][2])
    else:
        names = {"small": "README.md", "large": "a.safetensors", "added": "new.py"}
        (folder / names[change]).write_text("other")
    num_commits = len(hub.model(MINE.repo_id).commits)
    with pytest.raises(ValueError, match="has a version v0.1, which others may use: give another --tag"):
        upload(api, {MINE: files_below(folder)})
    assert len(hub.model(MINE.repo_id).commits) == num_commits


def test_without_a_token(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    with pytest.raises(ValueError, match="There is no Hub token: run `hf auth login`, or set HF_TOKEN"):
        check_destination(HfApi(endpoint=hub.endpoint), MINE)


def test_offline(api, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        check_destination(api, MINE)


@pytest.mark.parametrize(
    "request_line",
    ["GET /api/whoami", "POST /api/repos/create", "/preupload/", "/objects/batch", "PUT /lfs", "/commit/", "/tag/"],
)
@pytest.mark.parametrize("fault", [{"status": 500}, {"drop_after": 20}])
def test_a_fault_that_passes_is_waited_out(hub, api, folder, request_line, fault):
    hub.misbehave(request_line, **fault, times=2)
    upload(api, {MINE: files_below(folder)})
    assert without_attributes(hub.model(MINE.repo_id)) == files_of(folder)
    assert hub.model(MINE.repo_id).messages == ["Publish v0.1"] and set(hub.model(MINE.repo_id).tags) == {"v0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("request_line", ["/preupload/", "/objects/batch", "PUT /lfs", "/commit/"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"drop_after": 20}])
def test_a_fault_that_stays_leaves_nothing_and_the_same_call_goes_on(hub, api, folder, request_line, fault):
    hub.misbehave(request_line, **fault, times=1000)
    with pytest.raises(ValueError, match=r"failed several times \(.*all files of this version or none") as raised:
        upload(api, {MINE: files_below(folder)})
    model = hub.model(MINE.repo_id)
    assert model.messages == [] and not model.tags
    assert hub.token not in "".join(traceback.format_exception(raised.value))
    hub.faults.clear()
    arrived = dict(hub.uploads)
    upload(api, {MINE: files_below(folder)})
    assert without_attributes(model) == files_of(folder)
    assert all(hub.uploads[oid] == count for oid, count in arrived.items())  # not sent again


@pytest.mark.parametrize(
    ("error", "num_asked", "said"),
    [
        (ConnectionError("Network error: HTTP status client error (403 Forbidden)"), 1, "may not write to"),
        (XetAuthenticationError("Authentication error"), 1, "The Hub refuses the token"),
        (ConnectionError("Network error: error sending request"), 3, "failed several times"),
        (RuntimeError("Data processing error: CAS service error: timed out"), 3, "failed several times"),
        (TimeoutError(), 3, "failed several times (TimeoutError)"),
    ],
)
def test_errors_of_the_service_for_large_files(hub, api, folder, monkeypatch, error, num_asked, said):
    """hf_xet, which the loopback Hub does without, raises Python's own errors."""
    asked = []

    def create_commit(*args, **kwargs):
        asked.append(args)
        raise error

    monkeypatch.setattr(api, "create_commit", create_commit)
    with pytest.raises(ValueError, match=r"rerun to resume\.$") as refused:
        upload(api, {MINE: files_below(folder)})
    assert said in str(refused.value) and len(asked) == num_asked


def test_a_file_that_cannot_be_read_is_no_fault_of_the_hub(hub, api, folder, monkeypatch):
    def create_commit(*args, **kwargs):
        raise PermissionError("a.safetensors")

    monkeypatch.setattr(api, "create_commit", create_commit)
    with pytest.raises(PermissionError, match="a.safetensors"):
        upload(api, {MINE: files_below(folder)})


def test_what_is_there_already_is_said_when_the_second_repository_fails(hub, api, folder):
    space = Destination(repo_id=MINE.repo_id, kind="space")
    hub.misbehave("POST /api/spaces/lumbar-lab/model/commit", status=403)
    said = "may not write to lumbar-lab/model.* Already there as the newest commit.*: model lumbar-lab/model"
    with pytest.raises(ValueError, match=said):
        upload(api, {MINE: files_below(folder), space: files_below(folder)})
    assert not hub.model(MINE.repo_id).tags


def test_every_repository_is_made_before_the_first_is_written(hub, api, folder):
    upload(api, {MINE: files_below(folder), Destination(repo_id=MINE.repo_id, kind="space"): files_below(folder)})
    kinds = [re.search(r"POST .*/(create|commit|tag)(?:/\w+)?$", line) for line in hub.requests]
    assert [kind[1] for kind in kinds if kind] == ["create", "create", "commit", "commit", "tag", "tag"]


@pytest.mark.parametrize("tag", ["", "main", "v 1", "v1..2", "v1.", ".v1", "-v1", "v1.lock", "v1~", "a/b"])
def test_a_tag_that_git_would_not_take(tag):
    with pytest.raises(ValueError, match="is not a tag"):
        Destination(repo_id="me/model", tag=tag)
    assert Destination(repo_id="me/model", tag="v0.1-rc.2").tag == "v0.1-rc.2"


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, api, folder):
    hub.misbehave("/commit/", mute=True)
    upload(api, {MINE: files_below(folder)})
    assert hub.model(MINE.repo_id).messages == ["Publish v0.1"]


def test_the_right_to_write_is_missing(hub, api, folder):
    hub.misbehave("POST /api/repos/create", status=403)
    with pytest.raises(ValueError, match="This token may not write to lumbar-lab/model"):
        upload(api, {MINE: files_below(folder)})


UPLOAD = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from data_scripts.hub.upload import Destination, files_below, upload
upload(HfApi(), {Destination(repo_id="lumbar-lab/model"): files_below(Path(sys.argv[1]))})
"""


@pytest.mark.slow
def test_a_killed_upload_goes_on_with_what_has_not_arrived(folder, tmp_path):
    first = hashlib.sha256((folder / "a.safetensors").read_bytes()).hexdigest()
    second = hashlib.sha256((folder / "b.safetensors").read_bytes()).hexdigest()
    with LoopbackHub() as hub:
        held = hub.misbehave(f"PUT /lfs/{second}", until=threading.Event())
        environment = {**os.environ, **hub.environment(tmp_path / "home")}
        command = [sys.executable, "-c", UPLOAD, str(folder)]
        killed = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        waiting_since = time.monotonic()
        while hub.uploads[first] == 0 or held.times > 0:
            assert killed.poll() is None and time.monotonic() - waiting_since < 120, killed.stdout.read()
            time.sleep(0.05)
        killed.kill()
        killed.wait()
        model = hub.model("lumbar-lab/model")
        assert model.messages == [] and not model.tags
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert hub.uploads == {first: 1, second: 1}
        assert model.messages == ["Publish v0.1"] and without_attributes(model) == files_of(folder)


def test_no_output_holds_the_token(hub, folder, caplog, capfd):
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    errors = []
    for fault in ({"status": 500}, {"status": 401}, {"status": 400}, {"drop_after": 0}):
        hub.misbehave("/commit/", **fault, times=3)
        with caplog.at_level(logging.DEBUG), pytest.raises(ValueError) as raised:
            upload(api, {MINE: files_below(folder)})
        errors += [*traceback.format_exception(raised.value), repr(raised.value.__cause__)]
        hub.faults.clear()
    printed = capfd.readouterr()
    said = "".join([*errors, caplog.text, printed.out, printed.err, repr(MINE)])
    assert "500" in said and hub.token not in said
