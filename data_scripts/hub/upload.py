"""Put files on the Hugging Face Hub: one commit with a tag, or nothing.

`HfApi.upload_folder` may cut a folder into several commits, so that a repository could hold the code of one version and
the weights of another. `HfApi.create_commit` makes one. Rerun to resume: large files that have arrived are not sent
twice.

The token comes from `hf auth login` or HF_TOKEN; it is not an argument, so that no shell history, run.json or log
contains it.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Literal, TypeVar

from httpx2 import TransportError  # passed on by huggingface_hub when a connection breaks
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash

logger = logging.getLogger(__name__)

RETRY_PAUSES = (1.0, 4.0)  # seconds; huggingface_hub itself retries large files only
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")  # previews, which a user adds on the Hub or a card shows
_KEPT = (".gitattributes",)  # the Hub's own
_SETTINGS = "https://huggingface.co/settings/tokens"
_TAG = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.|lock$|$))*")
_PATH_START = re.compile(r"(?:(?<![\w:/.<])|file://)(?=/\w|[A-Za-z]:[\\/])")
_PATH_WORD = re.compile(r"(?:/[\w.\-]+){2,}")
_USERS_FILES = re.compile(r"/(?:home|Users|mnt)/|[A-Za-z]:[\\/]+Users[\\/]")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A repository on the Hub, and who may see it."""

    repo_id: str  # `owner/name`; the owner is the user or one of the user's organisations
    kind: Literal["model", "dataset", "space"] = "model"
    private: bool = True  # only the owner sees it
    tag: str = "v0.1"  # name of this version, unique in the repository
    tag_option: str = field(default="--tag", compare=False)  # option of the command, for messages
    public_option: str = field(default="--public", compare=False)  # option of the command, for messages

    def __post_init__(self) -> None:
        """Check the id by the rules of the Hub, and the tag by those of git."""
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise ValueError(f"{self.repo_id!r} is not a repository id (owner/name): {error}") from error
        if "/" not in self.repo_id:
            raise ValueError(f"{self.repo_id!r} has no owner: give owner/name, such as me/lumbar.")
        if not _TAG.fullmatch(self.tag) or self.tag == "main":
            raise ValueError(
                f"{self.tag_option} {self.tag!r} is not a tag: use letters, digits, single points, hyphens "
                "and underscores, such as v0.1, and not main."
            )


def check_destination(api: HfApi, destination: Destination, *, is_new: bool = False) -> bool:
    """Check that files can be published to a repository, before hours of work; send nothing.

    The tag must be free if `is_new`, for files that do not exist yet. Otherwise the newest commit may have it, so
    that an interrupted publication of several repositories can resume.

    Returns:
        Whether the newest commit has the tag.

    Raises:
        ValueError: If the Hub rejects the token, the owner is neither the user nor one of the user's organisations, the
            tag is taken, or the repository is public and should not be.
    """
    with hub_errors(api, destination.repo_id):
        repo_id, kind = destination.repo_id, destination.kind
        user = asked_again(api.whoami)
        owners = [user["name"], *(organisation["name"] for organisation in user["orgs"])]
        owner = repo_id.split("/")[0]
        if owner.casefold() not in map(str.casefold, owners):
            raise ValueError(
                f"{repo_id} is not yours: this token publishes as {' or '.join(owners)}, not as {owner}. "
                f"Give another id, or the token of a member ({_SETTINGS})."
            )
        try:
            repository = asked_again(lambda: api.repo_info(repo_id, repo_type=kind))
        except RepositoryNotFoundError:
            return False  # it will be created
        if destination.private and not repository.private:
            raise ValueError(
                f"{repo_id} is public: publish with {destination.public_option}, or give the id of a private one."
            )
        if not destination.private and repository.private:
            logger.warning("%s stays private; change that in its settings on the Hub.", repo_id)
        tags = asked_again(lambda: api.list_repo_refs(repo_id, repo_type=kind)).tags
        tagged = {tag.name: tag.target_commit for tag in tags}.get(destination.tag)
        if tagged is not None and (is_new or tagged != repository.sha):
            raise _taken(destination)
        return tagged is not None


def _taken(destination: Destination) -> ValueError:
    return ValueError(
        f"{destination.repo_id} already has a version {destination.tag}, which others may use: give another "
        f"{destination.tag_option}."
    )


def files_below(folder: Path) -> dict[str, Path]:
    """List all files of a folder by their names relative to it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def paths_of_this_machine(text: str) -> list[str]:
    """Find absolute paths in a text: they help no reader and may name someone.

    In folders of users' files any path counts, on any machine, up to the next quote or the end of the line, since names
    may contain blanks; elsewhere only a word, or a phrase up to there, that is a file or folder on this machine.

    Example:
        >>> paths_of_this_machine("python /bin/sh --out /no/such/folder, https://github.com/mnt/a")
        ['/bin/sh']
        >>> paths_of_this_machine('--raw "/mnt/scans of May/mri" --out "/mnt/out"')
        ['/mnt/out', '/mnt/scans of May/mri']
    """
    found = set()
    for start in _PATH_START.finditer(text):
        phrase = re.split(r"[\"'`\r\n]", text[start.end() :], maxsplit=1)[0].rstrip()
        if _USERS_FILES.match(phrase):
            found.add(phrase)
        elif word := _PATH_WORD.match(phrase):
            # `Path.exists` raises for a phrase too long for a path.
            found.update(path for path in (word.group(), phrase) if os.path.exists(path))  # noqa: PTH110
    return sorted(found)


def upload(api: HfApi, files: Mapping[Destination, Mapping[str, Path]]) -> list[str]:
    """Replace the content of each repository by these files in one commit, and tag it.

    Creates all repositories, then all commits, then all tags: an interrupted upload is not yet a version, though a
    repository may have it as its newest commit. Rerun to resume.

    Files are given by name in the repository, which is created if missing. Its other files are removed in the same
    commit: weights or code of an earlier version would be loaded, too. Pictures stay, as nothing loads them.

    Returns:
        Addresses of the commits.

    Raises:
        ValueError: If the Hub refuses, fails or cannot be reached; a repository then holds all of this version, or
            none, and the message names those that hold it without its tag.
    """
    for destination, paths in files.items():
        if check_destination(api, destination) and not _holds(api, paths, destination):
            raise _taken(destination)
    for destination in files:
        repo_id, kind = destination.repo_id, destination.kind
        create = partial(api.create_repo, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
        with hub_errors(api, repo_id, sends=True):
            asked_again(partial(create, repo_id, repo_type=kind, private=destination.private))
    commits: dict[Destination, CommitInfo] = {}
    try:
        for destination, paths in files.items():
            commits[destination] = _commit(api, paths, destination)
        for destination, commit in commits.items():
            tag = partial(api.create_tag, revision=commit.oid, exist_ok=True)
            with hub_errors(api, destination.repo_id, sends=True):
                asked_again(partial(tag, destination.repo_id, repo_type=destination.kind, tag=destination.tag))
    except ValueError as error:
        if not commits:
            raise
        there = ", ".join(f"{destination.kind} {destination.repo_id}" for destination in commits)
        raise ValueError(f"{error} Already there as the newest commit, perhaps without its tag: {there}.") from error
    return [commit.commit_url for commit in commits.values()]


def _holds(api: HfApi, paths: Mapping[str, Path], destination: Destination) -> bool:
    with hub_errors(api, destination.repo_id):
        entries = asked_again(
            lambda: list(api.list_repo_tree(destination.repo_id, recursive=True, repo_type=destination.kind))
        )
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    there = {path: entry for path, entry in files.items() if path in paths or not _stays(path)}
    return there.keys() == paths.keys() and all(_is_same(path, there[name]) for name, path in paths.items())


def _stays(path: str) -> bool:
    """Whether a file of a repository stays although it is not sent."""
    return path in _KEPT or path.lower().endswith(PICTURES)


def _is_same(path: Path, there: RepoFile) -> bool:
    if there.lfs is None:
        return git_hash(path.read_bytes()) == there.blob_id
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == there.lfs.sha256


def _commit(api: HfApi, paths: Mapping[str, Path], destination: Destination) -> CommitInfo:
    repo_id, kind = destination.repo_id, destination.kind

    def commit() -> CommitInfo:
        # List the files again each time: after a commit whose answer was lost, nothing is left to do.
        there = set(api.list_repo_files(repo_id, repo_type=kind)) - paths.keys()
        others = sorted(path for path in there if not _stays(path))
        if pictures := sorted(there.difference(others, _KEPT)):
            logger.info("Pictures that stay in %s: %s", repo_id, ", ".join(pictures))
        if others:
            logger.info("Removed, but kept in the history of %s: %s", repo_id, ", ".join(others))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(other) for other in others),
            *(CommitOperationAdd(name, path) for name, path in paths.items()),
        ]
        return api.create_commit(repo_id, operations, commit_message=f"Publish {destination.tag}", repo_type=kind)

    with hub_errors(api, repo_id, sends=True):
        return asked_again(commit)


def asked_again(ask: Callable[[], ResultT]) -> ResultT:
    """Make a request; retry if it fails for a temporary reason."""
    for pause in RETRY_PAUSES:
        try:
            return ask()
        except Exception as error:
            if not _is_of_hub(error) or not _may_pass(error):
                raise
            logger.warning("The Hub failed; retrying in %g s. (%s)", pause, _first_line(error))
            time.sleep(pause)
    return ask()


def _is_of_hub(error: Exception) -> bool:
    """Whether the Hub or the connection failed; hf_xet, which sends large files, raises Python's own errors."""
    kinds = (HfHubHTTPError, TransportError, ConnectionError, TimeoutError, RuntimeError)
    return isinstance(error, kinds) or type(error).__module__ == "hf_xet"


def _status(error: BaseException) -> int | None:
    """Return the Hub's status; for hf_xet, which has no field for it, from the error's text."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    if type(error).__name__ == "XetAuthenticationError":
        return HTTPStatus.UNAUTHORIZED
    found = None if isinstance(error, TransportError) else re.search(r"\b(40[0134])\b", str(error))
    return int(found[1]) if found else None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = _status(_reason(error))
    return status is None or status in (408, 429) or status >= 500


def _reason(error: BaseException) -> BaseException:
    """Return the cause of an "Error while uploading FILE"."""
    return error.__cause__ if isinstance(error.__cause__, HfHubHTTPError | TransportError) else error


@contextmanager
def hub_errors(api: HfApi, repo_id: str, *, sends: bool = False) -> Iterator[None]:
    """Turn the client's errors into ValueErrors that say what failed and what to do."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"There is no Hub token: run `hf auth login`, or set HF_TOKEN to one that can write ({_SETTINGS})."
        ) from error
    except OfflineModeIsEnabled as error:
        raise ValueError("HF_HUB_OFFLINE is set: unset it to publish.") from error
    except Exception as error:
        if not _is_of_hub(error):
            raise
        state = f" {repo_id} holds all files of this version or none of them; rerun to resume."
        raise ValueError(_in_words(_reason(error), api, repo_id, sends) + (state if sends else "")) from error


def _in_words(error: BaseException, api: HfApi, repo_id: str, sends: bool) -> str:
    if _may_pass(error):
        return f"The Hub at {api.endpoint} failed several times ({_first_line(error)})."
    if isinstance(error, RepositoryNotFoundError):
        return f"Found no repository {repo_id} at {api.endpoint}, or your token may not see it."
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return f"The Hub refuses the token: set another with `hf auth login --force` or HF_TOKEN ({_SETTINGS})."
    if status == HTTPStatus.FORBIDDEN:
        right = f"write to {repo_id}" if sends else f"read {repo_id}, whose conditions you may have to accept first"
        return f"This token may not {right}: give it the right to ({_SETTINGS}). ({_first_line(error)})"
    return f"The Hub refused {repo_id}: {' '.join(str(error).split())}"


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
