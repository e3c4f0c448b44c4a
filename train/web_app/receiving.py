"""Receive each upload in a private folder, and delete those that are never read.

Gradio would name a file by its content, so that two visitors with the same file share it, and would keep the partial
files of interrupted uploads.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from gradio.route_utils import MultiPartException, upload_fn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

MAX_STORED_BYTES = 2 * 10**9  # of all uploads that wait to be read
SECONDS_TO_ARRIVE = 600
SECONDS_UNREAD = 600  # longer than a full queue takes

PREFIX = "lumbarclip-app-"
BUSY = "Too many files are waiting to be read. Upload yours again in a few minutes."
_LOCK_NAME = "lock"


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """Yield a folder for uploads that only this user can read, and remove it at the end.

    Folders of apps that were killed are removed first.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as created:
        own = Path(created)
        with FileLock(own / _LOCK_NAME):  # the system frees it however its holder dies
            for other in own.parent.glob(f"{PREFIX}*/{_LOCK_NAME}"):
                if other.parent != own:
                    _remove_if_left(other.parent, own.lstat().st_uid)
            uploads = own / "uploads"
            uploads.mkdir()
            yield uploads


def _remove_if_left(folder: Path, user: int) -> None:
    with contextlib.suppress(Timeout, OSError):  # in use, or just removed by another app
        if folder.is_symlink() or folder.lstat().st_uid != user:
            return  # anybody may create such a name in the folder of temporary files
        with FileLock(folder / _LOCK_NAME, blocking=False):
            shutil.rmtree(folder)


async def receive(request: Request) -> Response:
    """Store the files of one request and answer with their paths, or say why not. Replaces Gradio's own route."""
    uploads = Path(request.app.uploaded_file_dir)
    uploads.mkdir(parents=True, exist_ok=True)
    if _stored_bytes(uploads) > MAX_STORED_BYTES:
        return PlainTextResponse(BUSY, 503)
    folder = Path(tempfile.mkdtemp(dir=uploads))
    try:
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            paths, *_ = await upload_fn(request, folder, request.app.get_blocks().max_file_size, None)
    except BaseException as error:  # a closed connection, too
        shutil.rmtree(folder, ignore_errors=True)  # `sweep` tries again
        if isinstance(error, TimeoutError):
            return PlainTextResponse(f"The upload took longer than {SECONDS_TO_ARRIVE // 60} minutes.", 408)
        if isinstance(error, MultiPartException):
            return PlainTextResponse(error.message, 413 if "maximum allowed size" in error.message else 400)
        if isinstance(error, HTTPException):
            return PlainTextResponse(error.detail, error.status_code)
        if isinstance(error, OSError):  # a full disk, or a name that is too long
            return PlainTextResponse("The upload could not be stored. Try later, or with a shorter file name.", 507)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)  # which nobody receives
        if isinstance(error, Exception):
            return PlainTextResponse("The request does not upload files.", 400)
        raise
    return JSONResponse([str(path) for path in paths])


def forget(paths: list[Path], folder: Path) -> None:
    """Delete uploaded files and their emptied folders, but nothing outside the folder of uploads."""
    folder = folder.resolve()
    for path in (path.resolve() for path in paths):
        if folder not in path.parents or path.is_dir():
            continue
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()


def sweep(folder: Path, now: float) -> None:
    """Delete uploads not written to for `SECONDS_UNREAD`; `now` is a time as `time.time` gives it."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # read meanwhile, or written to: the next sweep gets it
            if now - max(path.lstat().st_mtime for path in (entry, *entry.rglob("*"))) > SECONDS_UNREAD:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _stored_bytes(folder: Path) -> int:
    stored = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # read meanwhile
                stored += Path(parent, name).lstat().st_size
    return stored
