"""Pseudonyms of patients, studies and files: meaningless, and the same wherever the same key is used."""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_MIN_KEY_BYTES = 16
_NUM_HEX_DIGITS = 16  # 64 bits: among a million ids the chance of one collision is 3e-8

# A date, perhaps with a time, as scanners write them into folder names: 20160309, 20160309_091629, 2016-03-09.
_DATE_IN_NAME = re.compile(
    r"(?<!\d)(?:19|20)\d\d(?P<dash>-?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])(?:[_T.-]?[0-2]\d[0-5]\d[0-5]\d)?(?!\d)"
)


@dataclass(frozen=True)
class Pseudonyms:
    """Keyed pseudonyms: HMAC-SHA256 of the identifier, so that only the holder of the key can link or test them.

    A plain hash would not do: whoever knows that ids are numbers could hash them all.

    Raises:
        ValueError: If the key has fewer than 16 bytes.

    Example:
        >>> pseudonyms = Pseudonyms(bytes(32))
        >>> pseudonyms.of("0001"), pseudonyms.of("0002")
        ('p-4b1a6b63e71d8e5d', 'p-c97fdf597e3ca541')
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) < _MIN_KEY_BYTES:
            raise ValueError(f"a pseudonym key needs at least {_MIN_KEY_BYTES} bytes, got {len(self.key)}")

    @classmethod
    def random(cls) -> "Pseudonyms":
        """Draw a key that nobody keeps: no one can trace the pseudonyms back once the program ends."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_file(cls, path: Path) -> "Pseudonyms":
        """Read the key from a file, made if missing; afterwards only its owner can read it.

        Raises:
            ValueError: If the file contains no key.
        """
        if not path.exists():
            _make_key_file(path)
        with suppress(OSError):  # another user's file, or a read-only disk
            path.chmod(0o600)
        try:
            return cls(bytes.fromhex(path.read_text(encoding="ascii")))
        except ValueError as error:
            raise ValueError(f"{path} contains no pseudonym key: expected 64 hexadecimal digits ({error})") from error

    def of(self, identifier: str, prefix: str = "p") -> str:
        """Return the pseudonym of an identifier; `prefix` distinguishes a patient from a study of the same number."""
        return f"{prefix}-{self._digest(f'{prefix}:{identifier}').hex()[:_NUM_HEX_DIGITS]}"

    def of_uid(self, uid: str) -> str:
        """Return the replacement of a UID in a DICOM file, in the form of a UUID (PS3.5, B.2)."""
        return f"2.25.{int.from_bytes(self._digest(f'uid:{uid}')[:16])}"

    def of_dates_in(self, name: str) -> str:
        """Replace the dates in a file name; it stays as unique as before.

        Example:
            >>> Pseudonyms(bytes(32)).of_dates_in("0001/L-SPINE_LSS_20160309_091629_240000/T2_0005_001.ima")
            '0001/L-SPINE_LSS_date-76122f3990b39ccf_240000/T2_0005_001.ima'
        """
        return _DATE_IN_NAME.sub(lambda match: self.of(match[0], prefix="date"), name)

    def _digest(self, text: str) -> bytes:
        return hmac.new(self.key, text.encode(), hashlib.sha256).digest()


def _make_key_file(path: Path) -> None:
    """Make the file with the key in it, so that no other process reads it empty; the first to write wins."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=path.parent, prefix=f".{path.name}-") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        with suppress(FileExistsError):  # another process was first
            os.link(file.name, path)  # only its owner can read the temporary file, and so this one


def holds_date(name: str) -> bool:
    """Whether a file name or an id contains a date.

    Example:
        >>> holds_date("LSS_20160309_091629"), holds_date("9003175L.png")
        (True, False)
    """
    return _DATE_IN_NAME.search(name) is not None
