"""Put files on the Hugging Face Hub: one commit with a tag, or nothing.

`HfApi.upload_folder` may cut a folder into several commits, and one that fails into smaller ones: a repository could
then hold the code of one version and the weights of another. `HfApi.create_commit` makes one. Whatever breaks off is
resumed by asking again: large files that have arrived are not sent twice.

The token is that of `hf auth login` or of the variable HF_TOKEN; it is no argument, so that no shell history, run.json
or log can hold it.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Literal, TypeVar

from httpx2 import TransportError  # what huggingface_hub lets through when a connection breaks
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

RETRY_PAUSES = (1.0, 4.0)  # seconds; huggingface_hub itself asks for large files, and only for them, more than once
_KEPT = ".gitattributes"  # the Hub's own
_SETTINGS = "https://huggingface.co/settings/tokens"
_TAG = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.|lock$|$))*")
_PATH_START = re.compile(r"(?:(?<![\w:/.<])|file://)(?=/\w|[A-Za-z]:[\\/])")
_PATH_WORD = re.compile(r"(?:/[\w.\-]+){2,}")
_USERS_FILES = re.compile(r"/(?:home|Users|mnt)/|[A-Za-z]:[\\/]+Users[\\/]")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where on the Hub, and who may see it.

    Args:
        repo_id: `owner/name`; the owner is the user or one of the user's organisations.
        kind: What it holds.
        private: Whether only the owner sees it.
        tag: Name of this version; a repository has it once.
        tag_option: How the user's command takes the tag, for messages.
        public_option: What publishes for all to see, for messages.
    """

    repo_id: str
    kind: Literal["model", "dataset", "space"] = "model"
    private: bool = True
    tag: str = "v0.1"
    tag_option: str = field(default="--tag", compare=False)
    public_option: str = field(default="--public", compare=False)

    def __post_init__(self) -> None:
        """Refuse an id that no repository can have, and a tag that git would not take."""
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise ValueError(f"{self.repo_id!r} is no id of a repository (owner/name): {error}") from error
        if "/" not in self.repo_id:
            raise ValueError(f"{self.repo_id!r} does not say whose it is: give owner/name, such as me/{self.repo_id}.")
        if not _TAG.fullmatch(self.tag) or self.tag == "main":
            raise ValueError(
                f"{self.tag_option} {self.tag!r} is no tag: name this version in letters, digits, single points, "
                "hyphens and underscores, such as v0.1, and not main."
            )


def check_destination(api: HfApi, destination: Destination, *, is_new: bool = False) -> bool:
    """See that a folder could be published there, before minutes of checks or hours of training; sends nothing.

    Args:
        api: Client of the Hub.
        destination: Where to.
        is_new: Whether the files are still to be made, so that the tag must be free. Otherwise the newest commit may
            have it: a publication of several repositories that broke off between their tags is gone on with.

    Returns:
        Whether the newest commit has the tag.

    Raises:
        ValueError: If the Hub does not know the token, the owner is neither the user nor one of the user's
            organisations, the tag is taken, or the repository is public and not meant to be.
    """
    with hub_errors(api, destination.repo_id):
        user = asked_again(api.whoami)
        owners = [user["name"], *(organisation["name"] for organisation in user["orgs"])]
        owner = destination.repo_id.split("/")[0]
        if owner.casefold() not in map(str.casefold, owners):
            raise ValueError(
                f"{destination.repo_id} is not yours: this token publishes as {' or '.join(owners)}, not as {owner}. "
                f"Give another id, or the token of a member ({_SETTINGS})."
            )
        repo_id, kind = destination.repo_id, destination.kind
        try:
            repository = asked_again(lambda: api.repo_info(repo_id, repo_type=kind))
        except RepositoryNotFoundError:
            return False  # it will be made
        if destination.private and not repository.private:
            raise ValueError(
                f"{destination.repo_id} is public: {destination.public_option} publishes into it; or give the id of a "
                "private one."
            )
        if not destination.private and repository.private:
            logger.warning("%s is private and stays so; its settings on the Hub change that.", destination.repo_id)
        tags = asked_again(lambda: api.list_repo_refs(repo_id, repo_type=kind)).tags
        tagged = {tag.name: tag.target_commit for tag in tags}.get(destination.tag)
        if tagged is not None and (is_new or tagged != repository.sha):
            raise _taken(destination)
        return tagged is not None


def _taken(destination: Destination) -> ValueError:
    return ValueError(
        f"{destination.repo_id} has a version {destination.tag}, which others may use: give another "
        f"{destination.tag_option}."
    )


def files_below(folder: Path) -> dict[str, Path]:
    """All files of a folder, by their names relative to it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def paths_of_this_machine(text: str) -> list[str]:
    """Find absolute paths of a machine in a text: they help no reader and may name someone.

    Below the folders where users' files lie, any counts, of whatever machine, up to the next quote or the end of the
    line, since names have blanks; elsewhere a word that is a file or a folder here, or all up to there.

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
            # A phrase may be too long for a path, at which `Path.exists` raises.
            found.update(path for path in (word.group(), phrase) if os.path.exists(path))  # noqa: PTH110
    return sorted(found)


def upload(api: HfApi, files: Mapping[Destination, Mapping[str, Path]]) -> list[str]:
    """Make each repository hold these files and no others, in one commit, and tag it.

    First all repositories are made, then all commits, then all tags: what breaks off in between is not yet a version,
    though a repository may have it as its newest commit already, and the same command goes on.

    Args:
        api: Client of the Hub; it knows the token.
        files: What to send where, by name in the repository, which is made if it does not exist. Other files that it
            holds are removed in the same commit: weights or code of an earlier version would be loaded, too.

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
        _create(api, destination)
    commits: dict[Destination, CommitInfo] = {}
    try:
        for destination, paths in files.items():
            commits[destination] = _commit(api, paths, destination)
        for destination, commit in commits.items():
            _tag(api, destination, commit)
    except ValueError as error:
        if not commits:
            raise
        there = ", ".join(f"{destination.kind} {destination.repo_id}" for destination in commits)
        raise ValueError(f"{error} Already there as the newest commit, perhaps without its tag: {there}.") from error
    return [commit.commit_url for commit in commits.values()]


def _holds(api: HfApi, paths: Mapping[str, Path], destination: Destination) -> bool:
    """Whether the newest commit has these files and no others."""
    with hub_errors(api, destination.repo_id):
        entries = asked_again(
            lambda: list(api.list_repo_tree(destination.repo_id, recursive=True, repo_type=destination.kind))
        )
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile) and entry.path != _KEPT}
    return there.keys() == paths.keys() and all(_is_same(path, there[name]) for name, path in paths.items())


def _is_same(path: Path, there: RepoFile) -> bool:
    if there.lfs is None:
        return git_hash(path.read_bytes()) == there.blob_id
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == there.lfs.sha256


def _create(api: HfApi, destination: Destination) -> None:
    repo_id, kind = destination.repo_id, destination.kind
    sdk = "gradio" if kind == "space" else None
    with hub_errors(api, repo_id, sends=True):
        asked_again(
            lambda: api.create_repo(repo_id, repo_type=kind, private=destination.private, exist_ok=True, space_sdk=sdk)
        )


def _commit(api: HfApi, paths: Mapping[str, Path], destination: Destination) -> CommitInfo:
    repo_id, kind = destination.repo_id, destination.kind

    def commit() -> CommitInfo:
        # What the repository holds is asked anew each time: a commit whose answer was lost leaves nothing to do.
        others = sorted(set(api.list_repo_files(repo_id, repo_type=kind)) - {*paths, _KEPT})
        if others:
            logger.info("Removed, but kept in the history of %s: %s", repo_id, ", ".join(others))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(other) for other in others),
            *(CommitOperationAdd(name, path) for name, path in paths.items()),
        ]
        return api.create_commit(repo_id, operations, commit_message=f"Publish {destination.tag}", repo_type=kind)

    with hub_errors(api, repo_id, sends=True):
        return asked_again(commit)


def _tag(api: HfApi, destination: Destination, commit: CommitInfo) -> None:
    repo_id, kind, tag = destination.repo_id, destination.kind, destination.tag
    with hub_errors(api, repo_id, sends=True):
        asked_again(lambda: api.create_tag(repo_id, repo_type=kind, tag=tag, revision=commit.oid, exist_ok=True))


def asked_again(ask: Callable[[], ResultT]) -> ResultT:
    """Repeat a request that failed for a reason that may pass."""
    for pause in RETRY_PAUSES:
        try:
            return ask()
        except Exception as error:
            if not _is_of_hub(error) or not _may_pass(error):
                raise
            logger.warning("The Hub does not answer as it should; asked again in %g s. (%s)", pause, _first_line(error))
            time.sleep(pause)
    return ask()


def _is_of_hub(error: Exception) -> bool:
    """Whether an error comes from the Hub or the way to it. hf_xet, which sends large files, raises Python's own."""
    kinds = (HfHubHTTPError, TransportError, ConnectionError, TimeoutError, RuntimeError)
    return isinstance(error, kinds) or type(error).__module__ == "hf_xet"


def _status(error: BaseException) -> int | None:
    """The status that the Hub answered with; of hf_xet, which has no field for it, from its words."""
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
    """What happened, where the client says "Error while uploading FILE"."""
    return error.__cause__ if isinstance(error.__cause__, HfHubHTTPError | TransportError) else error


@contextmanager
def hub_errors(api: HfApi, repo_id: str, *, sends: bool = False) -> Iterator[None]:
    """Say what failed, and the way out, in place of the client's own errors.

    Args:
        api: Client of the Hub.
        repo_id: What it is asked for.
        sends: Whether something is written there, and not only read.

    Raises:
        ValueError: In place of what the client raises.
    """
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"There is no token of the Hub: run `hf auth login`, or set HF_TOKEN to one that may write ({_SETTINGS})."
        ) from error
    except OfflineModeIsEnabled as error:
        raise ValueError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it to publish.") from error
    except Exception as error:
        if not _is_of_hub(error):
            raise
        state = f" {repo_id} holds all files of this version or none of them; the same command goes on from there."
        raise ValueError(_in_words(_reason(error), api, repo_id, sends) + (state if sends else "")) from error


def _in_words(error: BaseException, api: HfApi, repo_id: str, sends: bool) -> str:
    if _may_pass(error):
        return f"The Hub at {api.endpoint} failed several times ({_first_line(error)})."
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo_id} at {api.endpoint} that this token may see."
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return f"The Hub refuses the token: `hf auth login --force` or HF_TOKEN sets another one ({_SETTINGS})."
    if status == HTTPStatus.FORBIDDEN:
        right = f"write to {repo_id}" if sends else f"read {repo_id}, which may want its conditions accepted first"
        return f"This token may not {right}: give it the right to ({_SETTINGS}). ({_first_line(error)})"
    return f"The Hub refused {repo_id}: {' '.join(str(error).split())}"


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
