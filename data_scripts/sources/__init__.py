"""The sources of datasets.

To add one: write `sources/NAME.py`, or `sources/NAME/source.py` next to its other files, with the three members of
`Source`, and add it to `_MODULES`. Read tables with `sources.tables`, notes with `sources.notes`, images and DICOM with
`data_scripts.imaging`; compose captions with `reports.phrasing`.
"""

import textwrap
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from data_scripts.records import Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources import bids
from data_scripts.sources.folder import source as folder
from data_scripts.sources.knee_kl import source as knee_kl
from data_scripts.sources.lsma_pqr import source as lsma_pqr
from data_scripts.sources.mendeley import source as mendeley
from data_scripts.sources.rsna2024 import source as rsna2024
from data_scripts.sources.spider import source as spider
from data_scripts.sources.synthetic import source as synthetic


class Source(Protocol):
    """What a source module must define."""

    ABOUT: SourceAbout

    def describe(self, options: ReadOptions) -> SourceInfo:
        """Describe the source for the card, with the vocabularies of its records."""
        ...

    def read(self, options: ReadOptions) -> Iterator[Record | Exclusion]:
        """Yield each row in the order of the source: a record, or an exclusion with its reason."""
        ...


_MODULES: tuple[Source, ...] = (folder, bids, knee_kl, lsma_pqr, mendeley, rsna2024, spider, synthetic)
SOURCES = {source.ABOUT.name: source for source in _MODULES}


def list_sources() -> str:
    """Describe each source for a terminal: what it is, licence, size, where to get it, what to cite."""
    return "\n\n".join(_describe(source.ABOUT) for source in SOURCES.values())


def _describe(about: SourceAbout) -> str:
    license_words = about.license.removeprefix("other: ")
    lines = {
        "Licence": license_words + ("" if about.may_be_shared else "; datasets built from it must not be shared"),
        "Size": about.size,
        "Get it": about.where,
        "Cite": about.citation,
    }
    fill = partial(textwrap.fill, width=79, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False)
    described = [fill(words, initial_indent=f"  {name + ':':<9}") for name, words in lines.items()]
    summary = textwrap.fill(about.summary, width=79, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([about.name, summary, *described])
