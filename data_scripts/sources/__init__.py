"""The sources of data sets, each in a folder of its own.

To add one: write `sources/NAME/source.py` with the three members of `Source`, and add it to `SOURCES`. `--source`,
`--list` and the card read all else from its `ABOUT`. Tables are read with `sources.tables`, notes with `sources.notes`,
images and DICOM with `data_scripts.imaging`; captions are put together with `reports.phrasing`.
"""

import textwrap
from collections.abc import Iterator
from typing import Protocol

from data_scripts.records import Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources import folder
from data_scripts.sources.knee_kl import source as knee_kl
from data_scripts.sources.lsma_pqr import source as lsma_pqr
from data_scripts.sources.mendeley import source as mendeley
from data_scripts.sources.rsna2024 import source as rsna2024
from data_scripts.sources.spider import source as spider
from data_scripts.sources.synthetic import source as synthetic


class Source(Protocol):
    """What a source module must offer."""

    ABOUT: SourceAbout

    def describe(self, options: ReadOptions) -> SourceInfo:
        """Describe the source for the card, with the vocabularies of its records."""
        ...

    def read(self, options: ReadOptions) -> Iterator[Record | Exclusion]:
        """Yield each row in the order of the source: a record, or an exclusion with its reason."""
        ...


SOURCES: dict[str, Source] = {
    "folder": folder,
    "knee_kl": knee_kl,
    "lsma_pqr": lsma_pqr,
    "mendeley": mendeley,
    "rsna2024": rsna2024,
    "spider": spider,
    "synthetic": synthetic,
}


def list_sources() -> str:
    """Describe each source for a terminal: what it is, licence, size, where to get it, what to cite."""
    return "\n\n".join(_describe(source.ABOUT) for source in SOURCES.values())


def _describe(about: SourceAbout) -> str:
    license_words = about.license.removeprefix("other: ")
    lines = {
        "Licence": license_words + ("" if about.may_be_shared else "; data sets built from it must not be shared"),
        "Size": about.size,
        "Get it": about.where,
        "Cite": about.citation,
    }
    described = [textwrap.fill(about.summary, width=79, initial_indent="  ", subsequent_indent="  ")]
    for name, words in lines.items():
        described.append(
            textwrap.fill(
                words,
                width=79,
                initial_indent=f"  {name + ':':<9}",
                subsequent_indent=" " * 11,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join([about.name, *described])
