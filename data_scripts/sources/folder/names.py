"""Find the file that a name in a table means: spelt as on another system, in other case or with other accents."""

import unicodedata
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from data_scripts.imaging.images import UnusableImageError, file_inside


def find_file(raw: Path, name: str, what: str) -> Path:
    r"""Find the file or folder inside `raw` that a table names, relative to it; `\\` separates too, as on Windows.

    A name that no file has exactly may still mean one: macOS stores `ü` as two characters, and Windows ignores case.

    Raises:
        UnusableImageError: If no file or several files may be meant, or it lies outside `raw`.
    """
    try:
        return _inside(raw, name, what)
    except UnusableImageError:
        alike = _alike(raw, name)
        if not alike:
            raise
        if len(alike) > 1:
            listed = " or ".join(repr(other) for other in alike[:4])
            raise UnusableImageError(f"{what} {name!r} may be {listed}; write one of them into the table") from None
        return _inside(raw, alike[0], what)


def _inside(raw: Path, name: str, what: str) -> Path:
    try:
        return file_inside(raw, name, what)
    except UnusableImageError:
        folder = _resolved(raw, name)
        if folder is None or folder == raw.resolve() or not folder.is_dir():
            raise
        return folder


def _resolved(raw: Path, name: str) -> Path | None:
    """Resolve a name; None if it leads outside `raw`, or nowhere."""
    try:
        path = (raw / name.replace("\\", "/")).resolve()
        return path if path.exists() and path.is_relative_to(raw.resolve()) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _alike(raw: Path, name: str) -> list[str]:
    """List the names in `raw` that differ in case, accents or blanks; only those of equal letters, if there are any."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    found = [""] if parts else []
    for part in parts:
        found = [f"{parent}/{child}".lstrip("/") for parent in found for child in _children(raw, parent, _key(part))]
    equal_letters = [other for other in found if _composed(other) == _composed("/".join(parts))]
    return equal_letters or found


def _children(raw: Path, folder: str, key: str) -> tuple[str, ...]:
    path = _resolved(raw, folder)
    return _names_of_key(path, path.stat().st_mtime_ns).get(key, ()) if path is not None and path.is_dir() else ()


@lru_cache(maxsize=64)
def _names_of_key(folder: Path, changed_ns: int) -> dict[str, tuple[str, ...]]:
    """List a folder by `_key`; `changed_ns` is its time of change, so that a later listing is not the cached one."""
    names = defaultdict(list)
    for path in sorted(folder.iterdir()):
        names[_key(path.name)].append(path.name)
    return {key: tuple(alike) for key, alike in names.items()}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _key(name: str) -> str:
    """Reduce a name to what systems agree on.

    Example:
        >>> _key("Mu\u0308ller 1.PNG "), _key("M\u00fcller\u00a01.png")
        ('müller 1.png', 'müller 1.png')
    """
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(letters.split())
