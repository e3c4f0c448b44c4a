"""Records to a dataset: the schema, the rows, and the YAML head of the card that `load_dataset` reads."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.errors import HFValidationError
from PIL import Image

from data_scripts.hub.licenses import license_name
from data_scripts.imaging.images import UnusableImageError, class_indices, grey_8bit, png_bytes
from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.privacy.protection import scrub
from data_scripts.records import LEVELS, PLANES, SEQUENCES, SPLITS, Exclusion, Record, SourceInfo

DATA_FOLDER = "data"
WRITTEN_AT_ONCE = 32  # rows held in memory: a large radiograph is tens of MB, and each write costs as much as four rows


def dataset_features(info: SourceInfo) -> datasets.Features:
    """The columns of a built dataset, the same for every source; only the vocabularies differ.

    A source without labels or grades has a `ClassLabel` without names there, empty lists and nulls.
    """
    return datasets.Features(
        {
            "image": datasets.Image(),
            "report": datasets.Value("string"),
            "rephrasings": datasets.List(datasets.Value("string")),
            "labels": datasets.List(datasets.ClassLabel(names=list(info.label_names))),
            "grade": datasets.ClassLabel(names=list(info.grade_names)),
            "patient_id": datasets.Value("string"),
            "study_id": datasets.Value("string"),
            "plane": datasets.ClassLabel(names=list(PLANES)),
            "sequence": datasets.ClassLabel(names=list(SEQUENCES)),
            "level": datasets.ClassLabel(names=list(LEVELS)),
            "pixel_spacing_mm": datasets.Value("float32"),
            "disc_height_mm": datasets.Value("float32"),
            "mask": datasets.Image(),
            "source": datasets.Value("string"),
        }
    )


def load_pixels(record: Record, info: SourceInfo) -> tuple[Image.Image, Image.Image | None]:
    """The image of a record as it is stored, and its mask.

    Raises:
        UnusableImageError: If the image or the mask cannot be stored.
    """
    image = grey_8bit(record.load_image())
    if record.load_mask is None:
        return image, None
    return image, class_indices(record.load_mask(), image.size, num_classes=len(info.mask_names))


def encode_record(record: Record, info: SourceInfo, image: Image.Image, mask: Image.Image | None) -> dict[str, Any]:
    """The row of a record, with its pixels as `load_pixels` gives them."""
    return {
        "image": {"bytes": png_bytes(image), "path": None},
        "report": record.report,
        "rephrasings": list(record.rephrasings),
        "labels": sorted(set(record.labels), key=info.label_names.index),
        "grade": record.grade,
        "patient_id": record.patient_id,
        "study_id": record.study_id,
        "plane": record.plane,
        "sequence": record.sequence,
        "level": record.level,
        "pixel_spacing_mm": record.pixel_spacing_mm,
        "disc_height_mm": record.disc_height_mm,
        "mask": None if mask is None else {"bytes": png_bytes(mask), "path": None},
        "source": record.source,
    }


@dataclass
class Account:
    """What became of the rows that were written.

    Args:
        exclusions: Rows left out since their image cannot be used.
        scrubbed: Number of passages in texts that were replaced, by kind.
        left_in_texts: Number of passages that a second look still finds, by kind.
        facts_changed: Sources of the rows whose texts state other findings since then.
        burnt_in_text: Sources of the rows whose image seems to show letters.
    """

    exclusions: list[Exclusion] = field(default_factory=list)
    scrubbed: Counter[str] = field(default_factory=Counter)
    left_in_texts: Counter[str] = field(default_factory=Counter)
    facts_changed: list[str] = field(default_factory=list)
    burnt_in_text: list[str] = field(default_factory=list)


class LumbarReports(datasets.GeneratorBasedBuilder):
    """Paired lumbar images and reports, built from records that are already assigned to splits.

    Images are loaded one at a time while the rows are written. A record whose image cannot be used is left out. Names
    are taken out of the texts; an image that seems to show letters is written, but listed. `account` says so once
    `download_and_prepare` has returned.

    Args:
        source_info: Vocabularies of the records.
        records_of_split: The records of each split.
        cache_dir: Folder for the library's lock files.
    """

    def __init__(
        self, source_info: SourceInfo, records_of_split: Mapping[str, Iterable[Record]], cache_dir: Path
    ) -> None:
        self.source_info = source_info
        self.records_of_split = records_of_split
        self.account = Account()
        super().__init__(cache_dir=str(cache_dir), dataset_name="lumbar_reports", writer_batch_size=WRITTEN_AT_ONCE)

    def _info(self) -> datasets.DatasetInfo:
        return dataset_info(self.source_info)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split})
            for split in SPLITS
            if split in self.records_of_split
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(self.records_of_split[split]):
            try:
                image, mask = load_pixels(record, self.source_info)
            except UnusableImageError as error:
                self.account.exclusions.append(Exclusion(record.source, str(error)))
                continue
            # Whatever a decoder raises on a damaged file: one row must not cost a build of hours.
            except Exception as error:
                reason = f"unreadable image: {type(error).__name__}: {error}"
                self.account.exclusions.append(Exclusion(record.source, reason))
                continue
            if has_burnt_in_text(image):
                self.account.burnt_in_text.append(record.source)
            yield index, encode_record(self._without_names(record), self.source_info, image, mask)

    def _without_names(self, record: Record) -> Record:
        report, *rephrasings = map(scrub, (record.report, *record.rephrasings))
        for text in (report, *rephrasings):
            self.account.scrubbed.update(text.replaced)
            self.account.left_in_texts.update(text.left)
        if any(text.facts_changed for text in (report, *rephrasings)):
            self.account.facts_changed.append(record.source)
        return replace(record, report=report.text, rephrasings=tuple(text.text for text in rephrasings))


def dataset_info(info: SourceInfo) -> datasets.DatasetInfo:
    """The columns of a built dataset, and where it comes from."""
    about = info.about
    return datasets.DatasetInfo(
        description=info.summary or about.summary,
        citation=about.citation,
        license=about.license,
        features=dataset_features(info),
    )


def card_metadata(
    info: SourceInfo, splits: Sequence[datasets.SplitInfo], num_file_bytes: int, sha256: str, *, passed: bool
) -> str:
    """The YAML head of the dataset card: licence, features and files, so that any reader decodes them without our code.

    Args:
        info: The source.
        splits: What was written.
        num_file_bytes: Size of all shards.
        sha256: Digest of all shards. `load_dataset` finds a folder in its cache by the folder's name and this head, not
            by the files: without it, a rebuilt dataset would be read as it was before.
        passed: Whether the dataset passed the de-identification check; the cards of models trained on it ask.
    """
    license_id, _, license_words = info.about.license.partition(": ")
    metadata = DatasetCardData(
        license=license_id,
        pretty_name=f"Lumbar reports: {info.about.name}",
        task_categories=["zero-shot-image-classification", "image-classification", "image-to-text"],
        tags=["medical", "lumbar-spine", "radiology"],
        citation=info.about.citation,
        may_be_shared=info.about.may_be_shared,
        deidentification_passed=passed,
    )
    if info.mask_names:
        metadata["mask_names"] = list(info.mask_names)
    if license_words:
        metadata["license_name"] = license_name(license_words)
        metadata["license_details"] = license_words
    written = dataset_info(info)
    written.splits = SplitDict({split.name: split for split in splits})
    written.download_size = num_file_bytes
    written.dataset_size = sum(split.num_bytes for split in splits)
    DatasetInfosDict({"default": written}).to_dataset_card_data(metadata)
    files = [{"split": split.name, "path": f"{DATA_FOLDER}/{split.name}-*.parquet"} for split in splits]
    MetadataConfigs({"default": {"data_files": files, "description": f"sha256 {sha256}"}}).to_dataset_card_data(
        metadata
    )
    return f"---\n{metadata}\n---\n"


def read_mask_names(dataset: str | Path) -> tuple[str, ...]:
    """Read the names of the mask classes from the card of a data set, background first.

    Args:
        dataset: Folder or Hub id.

    Returns:
        The names in the order of the class indices; empty if the card has none or cannot be found.
    """
    card_path = Path(dataset) / "README.md"
    if not card_path.is_file() and Path(dataset).exists():
        return ()
    try:
        card = DatasetCard.load(card_path if card_path.is_file() else str(dataset))
    except (OSError, HFValidationError):
        return ()
    return tuple(getattr(card.data, "mask_names", None) or ())
