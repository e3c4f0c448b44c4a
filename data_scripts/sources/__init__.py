"""The sources: each module offers `describe(options) -> SourceInfo` and `read(options)`, yielding one item a row."""

from collections.abc import Iterator
from typing import Protocol

from data_scripts.records import Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources import folder, spider, synthetic


class Source(Protocol):
    """What a source module offers."""

    ABOUT: SourceAbout

    def describe(self, options: ReadOptions) -> SourceInfo:
        """What the card says of the source, and the vocabularies of its records."""
        ...

    def read(self, options: ReadOptions) -> Iterator[Record | Exclusion]:
        """Yield each row of the source in its order: a record, or the reason why it is none."""
        ...


SOURCES: dict[str, Source] = {"folder": folder, "spider": spider, "synthetic": synthetic}
