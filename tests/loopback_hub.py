"""A small Hugging Face Hub on 127.0.0.1, for tests of publishing and loading with the real client over real HTTP.

    python -m tests.loopback_hub        # prints the variables to export, and serves until Ctrl-C

It keeps models, datasets and Spaces in memory: commits, tags, large files by their SHA-256. Private repositories want
the token. `misbehave` makes chosen requests fail, break off or wait; `requests` and `uploads` say what arrived. Its
answers follow what huggingface_hub reads, without Xet (`HF_HUB_DISABLE_XET=1`): large files go by Git LFS, type basic.
"""

import argparse
import base64
import hashlib
import json
import re
import secrets
import socket
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import constants

from tests.hub_card_rules import card_errors

USER, ORGANISATIONS = "tester", ("lumbar-lab",)
LARGE_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin", ".onnx")
KINDS = {
    "model": "",
    "dataset": "datasets/",
    "space": "spaces/",
}  # in the paths of files; those of the API: models/ ...


@dataclass
class Repository:
    """One repository; a commit holds all its files, as (bytes, whether by LFS)."""

    private: bool
    sdk: str | None = None
    commits: list[tuple[str, str, dict[str, tuple[bytes, bool]]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, message, files):
        self.commits.append((secrets.token_hex(20), message, files))

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest commit."""
        return {path: content for path, (content, _) in self.commits[-1][2].items()}

    @property
    def messages(self) -> list[str]:
        """The commits after the one that made the repository."""
        return [message for _, message, _ in self.commits[1:]]

    def at(self, revision):
        wanted = self.commits[-1][0] if revision == "main" else self.tags.get(revision, revision)
        return next(((oid, files) for oid, _, files in self.commits if oid == wanted), None)


@dataclass
class Fault:
    """What happens to the next `times` requests whose line, such as `PUT /lfs/...`, matches the pattern.

    They are answered with `status`, broken off when `drop_after` bytes of their body are read, done without an answer
    (`mute`), or wait for the event `until`.
    """

    pattern: str
    status: int | None = None
    drop_after: int | None = None
    mute: bool = False
    until: threading.Event | None = None
    times: int = 1


class LoopbackHub(ThreadingHTTPServer):
    """`with LoopbackHub() as hub: ...`; `hub.environment()` is what a process needs to use it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.token = f"hf_{secrets.token_hex(17)}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.uploads: Counter[str] = Counter()  # complete uploads of large files, by SHA-256
        self.faults: list[Fault] = []
        self.lock = threading.RLock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for fault in self.faults:
            if fault.until:
                fault.until.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing: clients are killed here, and connections broken."""

    def environment(self, home) -> dict[str, str]:
        """Variables of a process that uses this Hub, with its caches in the folder `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def connect(self, monkeypatch):
        """Let clients in this process reach it, though the tests are offline; they take endpoint and token."""
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def misbehave(self, pattern, **fault):
        """Make the next requests whose line matches fail; see `Fault`."""
        self.faults.append(Fault(pattern, **fault))
        return self.faults[-1]

    def model(self, name) -> Repository:
        return self.repositories["model", name]

    def dataset(self, name) -> Repository:
        return self.repositories["dataset", name]

    def space(self, name) -> Repository:
        return self.repositories["space", name]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_):
        pass

    def handle_any(self):
        hub, line = self.server, f"{self.command} {unquote(self.path)}"
        with hub.lock:
            hub.requests.append(line)
            fault = next((fault for fault in hub.faults if fault.times > 0 and re.search(fault.pattern, line)), None)
            if fault:
                fault.times -= 1
        size = int(self.headers.get("Content-Length", 0))
        if fault and fault.until:
            fault.until.wait()
        if fault and fault.drop_after is not None:
            self.rfile.read(min(size, fault.drop_after))
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        self.body = self.rfile.read(size) if size else self._read_chunks()
        self.is_mute = bool(fault and fault.mute)
        if fault and fault.status:
            return self.answer(fault.status, {"error": "the Hub has a bad day"})
        url = urlsplit(unquote(self.path))
        self.query = parse_qs(url.query)
        for method, pattern, action in ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, url.path)):
                with hub.lock:
                    return action(self, **match.groupdict())
        return self.answer(404, {"error": f"the loopback Hub does not know {line}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 (names of http.server)

    def _read_chunks(self):
        """Read a body of unknown length, as the client sends large files."""
        parts = []
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, content=b"", **headers):
        if self.is_mute:
            self.close_connection = True
            return
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, what, status=404):
        self.answer(status, {"error": f"{what} not found"}, X_Error_Code=f"{what}NotFound")

    # Who asks, and for what.

    def sent_token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def check_member(self):
        if self.sent_token() == self.server.token:
            return False
        words = "Invalid credentials in Authorization header"
        self.answer(401, {"error": words}, X_Error_Message=words)
        return True

    def find(self, kind, name, revision="main"):
        """The repository, the id and the files of a revision; None when that was answered with an error."""
        repository = self.server.repositories.get((kind, name))
        if repository is None or (repository.private and self.sent_token() != self.server.token):
            return self.missing("Repo", 404 if self.sent_token() else 401)
        found = repository.at(revision)
        return (repository, *found) if found else self.missing("Revision")

    def whoami(self):
        if not self.check_member():
            organisations = [{"name": name, "type": "org"} for name in ORGANISATIONS]
            self.answer(200, {"type": "user", "name": USER, "orgs": organisations, "auth": {}})

    def create(self):
        if self.check_member():
            return None
        asked = json.loads(self.body)
        owner, kind = asked.get("organization") or USER, asked.get("type") or "model"
        if owner not in (USER, *ORGANISATIONS):
            return self.answer(403, {"error": "no rights"}, X_Error_Message=f"You have no rights in {owner}")
        name = f"{owner}/{asked['name']}"
        url = f"{self.server.endpoint}/{KINDS[kind]}{name}"
        if (kind, name) in self.server.repositories:
            return self.answer(409, {"error": "You already created this repo", "url": url})
        repository = Repository(private=asked.get("visibility") == "private", sdk=asked.get("sdk"))
        repository.commit("initial commit", {".gitattributes": (b"*.safetensors filter=lfs", False)})
        self.server.repositories[kind, name] = repository
        return self.answer(200, {"url": url, "name": name})

    # Uploads.

    def preupload(self, kind, name, revision):
        if self.check_member() or not (found := self.find(kind, name, revision)):
            return
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE_SUFFIXES) else "regular"
            known = found[2].get(file["path"])
            oid = known and object_id(*known)
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": answers})

    def batch(self, kind, name):
        kind = {prefix: kind for kind, prefix in KINDS.items()}[kind]
        if self.check_member() or not self.find(kind, name):
            return
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.large_files:
                entry["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{entry['oid']}"}}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer(400, {"error": "wrong SHA-256"})
        self.server.large_files[oid] = self.body
        self.server.uploads[oid] += 1
        return self.answer(200)

    def commit(self, kind, name, revision):
        if self.check_member() or not (found := self.find(kind, name, revision)):
            return None
        repository, _, files = found
        header, files = {}, dict(files)
        for operation in map(json.loads, self.body.splitlines()):
            key, value = operation["key"], operation["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.server.large_files:
                    return self.answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = (self.server.large_files[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
        repository.commit(header["summary"], files)
        oid = repository.commits[-1][0]
        return self.answer(200, {"commitUrl": f"{self.server.endpoint}/{name}/commit/{oid}", "commitOid": oid})

    def tag(self, kind, name, revision):
        if self.check_member() or not (found := self.find(kind, name, revision)):
            return None
        tag = json.loads(self.body)["tag"]
        if tag in found[0].tags:
            return self.answer(409, {"error": f"tag {tag} exists"})
        found[0].tags[tag] = found[1]
        return self.answer(200, {})

    def validate(self):
        asked = json.loads(self.body)
        errors = [{"message": error} for error in card_errors(asked["content"], asked["repoType"])]
        has_metadata = asked["content"].startswith("---\n")
        warnings = [] if has_metadata else [{"message": "empty or missing yaml metadata"}]
        self.answer(400 if errors else 200, {"errors": errors, "warnings": warnings})

    # Downloads.

    def refs(self, kind, name):
        if found := self.find(kind, name):
            main = [{"name": "main", "ref": "refs/heads/main", "targetCommit": found[1]}]
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in found[0].tags.items()]
            self.answer(200, {"branches": main, "tags": tags, "converts": []})

    def info(self, kind, name, revision=None):
        if found := self.find(kind, name, revision or "main"):
            repository, oid, files = found
            siblings = [{"rfilename": path} for path in files]
            self.answer(
                200,
                {"id": name, "sha": oid, "private": repository.private, "sdk": repository.sdk, "tags": []}
                | {"siblings": siblings, "disabled": False, "gated": False, "downloads": 0, "likes": 0},
            )

    def tree(self, kind, name, revision, folder=None):
        if not (found := self.find(kind, name, revision)):
            return None
        entries = entries_of(found[2], f"{folder}/" if folder else "", self.query.get("recursive") == ["true"])
        return self.answer(200, entries) if entries or not folder else self.missing("Entry")

    def paths_info(self, kind, name, revision):
        if found := self.find(kind, name, revision):
            fields = parse_qs(self.body.decode())
            everything = {entry["path"]: entry for entry in entries_of(found[2], "", recursive=True)}
            self.answer(200, [everything[path] for path in fields.get("paths", []) if path in everything])

    def resolve(self, kind, name, revision, path):
        kind = {prefix: kind for kind, prefix in KINDS.items()}[kind]
        if not (found := self.find(kind, name, revision)):
            return None
        _, oid, files = found
        if path not in files:
            return self.missing("Entry")
        content, is_large = files[path]
        headers = {"ETag": f'"{object_id(content, is_large)}"', "X_Repo_Commit": oid, "Accept_Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(content)}"
            return self.answer(206, content[start : end + 1], **headers)
        return self.answer(200, content, **headers)


def object_id(content, is_large):
    """SHA-256 of a large file, as LFS names it; of others the SHA-1 of Git."""
    return (
        hashlib.sha256(content).hexdigest()
        if is_large
        else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )


def entries_of(files, prefix, recursive):
    """Files and folders below a folder, as the API lists them."""
    entries = {}
    for path, (content, is_large) in files.items():
        if not path.startswith(prefix):
            continue
        below = path.removeprefix(prefix).split("/")
        for depth in range(1, len(below) if recursive else min(len(below), 2)):
            folder = prefix + "/".join(below[:depth])
            entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if recursive or len(below) == 1:
            oid = object_id(content, is_large)
            entries[path] = {"type": "file", "path": path, "oid": oid, "size": len(content)}
            if is_large:
                entries[path]["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return list(entries.values())


API = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
FILES = r"/(?P<kind>datasets/|spaces/|)(?P<name>[^/]+/[^/]+?)"
ROUTES = (
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", API + r"/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", FILES + r"\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.put),
    ("POST", API + r"/commit/(?P<revision>.+)", Handler.commit),
    ("POST", API + r"/tag/(?P<revision>.+)", Handler.tag),
    ("GET", API + r"/refs", Handler.refs),
    ("GET", API + r"(/revision/(?P<revision>.+))?", Handler.info),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    ("POST", API + r"/paths-info/(?P<revision>.+)", Handler.paths_info),
    ("GET", FILES + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with LoopbackHub() as hub, suppress(KeyboardInterrupt):
        lines = [f"export {name}={value}" for name, value in hub.environment(tempfile.mkdtemp()).items()]
        print("\n".join(lines), flush=True)
        threading.Event().wait()
