"""Turn records into a dataset: schema, rows, and the YAML head of the card that `load_dataset` reads."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.errors import HFValidationError
from PIL import Image

from data_scripts.hub.licenses import license_name
from data_scripts.imaging.images import (
    ORIENTATION_STATED,
    WINDOW_REPLACED,
    UnusableImageError,
    class_indices,
    grey_8bit,
    png_bytes,
)
from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.privacy.identifiers import names_in
from data_scripts.privacy.protection import scrub
from data_scripts.records import (
    LEVELS,
    LUMBAR_SPINE,
    MASK_ORIGINS,
    PLANES,
    PSEUDO_MASK,
    SEQUENCES,
    SOURCE_MASK,
    SPLITS,
    Exclusion,
    Record,
    SourceAbout,
    SourceInfo,
)

DATA_FOLDER = "data"
WRITTEN_AT_ONCE = 32  # rows in memory: a large radiograph has tens of MB, and each write costs as much as four rows


def dataset_features(info: SourceInfo) -> datasets.Features:
    """Return the columns of a built dataset; sources differ only in vocabularies, which may be empty."""
    return datasets.Features(
        {
            "image": datasets.Image(),
            "report": datasets.Value("string"),
            "rephrasings": datasets.List(datasets.Value("string")),
            "labels": datasets.List(datasets.ClassLabel(names=list(info.label_names))),
            "grade": datasets.ClassLabel(names=list(info.grade_names)),
            "patient_id": datasets.Value("string"),
            "study_id": datasets.Value("string"),
            "series_id": datasets.Value("string"),
            "slice_index": datasets.Value("int32"),
            "plane": datasets.ClassLabel(names=list(PLANES)),
            "sequence": datasets.ClassLabel(names=list(SEQUENCES)),
            "level": datasets.ClassLabel(names=list(LEVELS)),
            "pixel_spacing_mm": datasets.Value("float32"),
            "slice_spacing_mm": datasets.Value("float32"),
            "disc_height_mm": datasets.Value("float32"),
            "mask": datasets.Image(),
            "mask_classes": datasets.List(datasets.ClassLabel(names=list(info.mask_names))),
            "mask_origin": datasets.ClassLabel(names=list(MASK_ORIGINS)),
            "source": datasets.Value("string"),
        }
    )


def load_pixels(record: Record, info: SourceInfo) -> tuple[Image.Image, Image.Image | None]:
    """Load a record's image and mask as they are written; raise an UnusableImageError if they cannot be.

    `Image.info` of the image tells `ORIENTATION_STATED` and `WINDOW_REPLACED`. A mask of a `gets_pseudo_mask` record is
    a pseudo-mask.
    """
    loaded = record.load_image()
    image = grey_8bit(loaded)
    image.info = {fact: loaded.info.get(fact) is True for fact in (ORIENTATION_STATED, WINDOW_REPLACED)}
    if record.load_mask is None:
        return image, _pseudo_mask(record, info, image) if record.gets_pseudo_mask else None
    mask = class_indices(record.load_mask(), image.size, num_classes=len(info.mask_names))
    marked = _marked_classes(record, info)
    for index in np.unique(np.asarray(mask)).tolist():
        if index and marked and index not in marked:
            raise UnusableImageError(
                f"mask contains class {index} ({info.mask_names[index]}), which it should not mark"
            )
    return image, mask


def encode_record(record: Record, info: SourceInfo, image: Image.Image, mask: Image.Image | None) -> dict[str, Any]:
    """Make the row of a record, with the pixels of `load_pixels`."""
    return {column: getattr(record, column, None) for column in dataset_features(info)} | {
        "image": {"bytes": png_bytes(image), "path": None},
        "rephrasings": list(record.rephrasings),
        "labels": None if record.labels is None else sorted(set(record.labels), key=info.label_names.index),
        "mask": None if mask is None else {"bytes": png_bytes(mask), "path": None},
        "mask_classes": None if mask is None else _marked_classes(record, info),
        "mask_origin": None if mask is None else PSEUDO_MASK if record.gets_pseudo_mask else SOURCE_MASK,
    }


def _pseudo_mask(record: Record, info: SourceInfo, image: Image.Image) -> Image.Image | None:
    """Compute the mask of a record without one, with the indices of the source's `mask_names`."""
    from data_scripts.preprocessing.pseudo_masks import PSEUDO_MASK_NAMES, pseudo_mask

    mask = pseudo_mask(np.asarray(image), record.report)
    indices = np.array([info.mask_names.index(name) for name in PSEUDO_MASK_NAMES], np.uint8)
    return None if mask is None else Image.fromarray(indices[mask])


def _marked_classes(record: Record, info: SourceInfo) -> list[int] | None:
    """Return the indices of the classes that a record's mask marks; None if the source does not name classes."""
    names = info.mask_names[1:] if record.mask_classes is None else record.mask_classes
    return sorted(map(info.mask_names.index, names)) if info.mask_names else None


@dataclass
class Account:
    """The outcome of the rows; lists of rows contain their `source`."""

    exclusions: list[Exclusion] = field(default_factory=list)  # rows with an unusable image
    scrubbed: Counter[str] = field(default_factory=Counter)  # passages replaced in texts, by kind
    left_in_texts: Counter[str] = field(default_factory=Counter)  # passages that a second check still finds, by kind
    rows_left: dict[str, list[str]] = field(default_factory=dict)  # those kinds, by row
    facts_changed: list[str] = field(default_factory=list)  # rows whose texts state other findings afterwards
    burnt_in_text: list[str] = field(default_factory=list)  # rows whose image seems to contain text
    orientation_not_stated: list[str] = field(default_factory=list)  # rows whose image is as it was stored
    pseudo_masks: list[str] = field(default_factory=list)  # rows whose mask was computed
    windows_replaced: list[str] = field(default_factory=list)  # rows whose header had a window that did not show them


class LumbarReports(datasets.GeneratorBasedBuilder):
    """Writes the records of each split, loading one image at a time.

    A record whose image is unusable is left out. Names are removed from the texts; an image that seems to contain text
    is written, but listed. `account` is complete once `download_and_prepare` has returned.
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
            # A decoder may raise anything for a damaged file: one row must not end a build of hours.
            except Exception as error:
                reason = f"unreadable image: {type(error).__name__}: {error}"
                self.account.exclusions.append(Exclusion(record.source, reason))
                continue
            if not image.info[ORIENTATION_STATED]:
                self.account.orientation_not_stated.append(record.source)
            if image.info[WINDOW_REPLACED]:
                self.account.windows_replaced.append(record.source)
            if mask is not None and record.gets_pseudo_mask:
                self.account.pseudo_masks.append(record.source)
            if has_burnt_in_text(image):
                self.account.burnt_in_text.append(record.source)
            yield index, encode_record(self._without_names(record), self.source_info, image, mask)

    def _without_names(self, record: Record) -> Record:
        texts = (record.report, *record.rephrasings)
        names = frozenset().union(*map(names_in, texts)) if record.rephrasings else frozenset()
        report, *rephrasings = (scrub(text, names) for text in texts)
        for text in (report, *rephrasings):
            self.account.scrubbed.update(text.replaced)
            self.account.left_in_texts.update(text.left)
        if left := sorted({kind for text in (report, *rephrasings) for kind in text.left}):
            self.account.rows_left[record.source] = left
        if any(text.facts_changed for text in (report, *rephrasings)):
            self.account.facts_changed.append(record.source)
        return replace(record, report=report.text, rephrasings=tuple(text.text for text in rephrasings))


def card_title(about: SourceAbout) -> str:
    """Name a built dataset on its card.

    Example:
        >>> from data_scripts.sources.knee_kl.source import ABOUT
        >>> card_title(ABOUT)
        'Knee reports: knee_kl'
    """
    anatomy = "lumbar" if about.anatomy == LUMBAR_SPINE else about.anatomy
    return f"{anatomy.capitalize()} reports: {about.name}"


def dataset_info(info: SourceInfo) -> datasets.DatasetInfo:
    """Describe columns and origin of a built dataset."""
    about = info.about
    return datasets.DatasetInfo(
        info.summary or about.summary, about.citation, license=about.license, features=dataset_features(info)
    )


def card_metadata(
    info: SourceInfo,
    splits: Sequence[datasets.SplitInfo],
    num_file_bytes: int,
    sha256: str,
    *,
    passed: bool,
    num_pseudo_masks: int = 0,
) -> str:
    """Write the YAML head of the dataset card: licence, features and files, to be read without our code.

    It has the digest of all shards, since `load_dataset` caches a folder by its name and this head, not by the files:
    without it, a rebuilt dataset would be read as it was before. Cards of models trained on the dataset need `passed`,
    whether it passed the de-identification check.
    """
    license_id, _, license_words = info.about.license.partition(": ")
    metadata = DatasetCardData(
        license=license_id,
        pretty_name=card_title(info.about),
        task_categories=["zero-shot-image-classification", "image-classification", "image-to-text"],
        tags=["medical", info.about.anatomy.replace(" ", "-"), "radiology"],
        citation=info.about.citation,
        anatomy=info.about.anatomy,
        may_be_shared=info.about.may_be_shared,
        deidentification_passed=passed,
    )
    if info.mask_names:
        metadata["task_categories"].append("image-segmentation")
        metadata["mask_names"] = list(info.mask_names)
    if num_pseudo_masks:
        metadata["pretty_name"] += " (pseudo-masks)"
        metadata["tags"].append("pseudo-masks")
        metadata["num_pseudo_masks"] = num_pseudo_masks
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
    """Read the names of the mask classes, background first, from the card of a folder or Hub dataset; may be empty."""
    card_path = Path(dataset) / "README.md"
    if not card_path.is_file() and Path(dataset).exists():
        return ()
    try:
        card = DatasetCard.load(card_path if card_path.is_file() else str(dataset))
    except (OSError, HFValidationError):
        return ()
    return tuple(getattr(card.data, "mask_names", None) or ())
