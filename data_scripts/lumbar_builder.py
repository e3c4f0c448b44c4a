"""Records to a dataset: the schema, Parquet shards, and the dataset card that `load_dataset` reads."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm

from data_scripts.images import UnusableImageError, class_indices, grey_8bit, png_bytes
from data_scripts.records import LEVELS, PLANES, SEQUENCES, SPLITS, Exclusion, Record, SourceInfo

DATA_FOLDER = "data"


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
            "mask": datasets.Image(),
            "source": datasets.Value("string"),
        }
    )


def encode_record(record: Record, info: SourceInfo) -> dict[str, Any]:
    """Load a record's pixels and give its row.

    Raises:
        UnusableImageError: If the image or the mask cannot be stored.
    """
    image = grey_8bit(record.load_image())
    mask = None
    if record.load_mask is not None:
        mask = class_indices(record.load_mask(), image.size, num_classes=len(info.mask_names))
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
        "mask": None if mask is None else {"bytes": png_bytes(mask), "path": None},
        "source": record.source,
    }


class LumbarReports(datasets.GeneratorBasedBuilder):
    """Paired lumbar images and reports, built from records that are already assigned to splits.

    Images are loaded one at a time while the shards are written. A record whose image cannot be used is left out and
    appended to `exclusions`, which is complete once `download_and_prepare` has returned.

    Args:
        source_info: Vocabularies of the records.
        records_of_split: The records of each split. None of them empty.
        cache_dir: Folder for the library's lock files.
    """

    def __init__(
        self, source_info: SourceInfo, records_of_split: Mapping[str, Sequence[Record]], cache_dir: Path
    ) -> None:
        self.source_info = source_info
        self.records_of_split = records_of_split
        self.exclusions: list[Exclusion] = []
        super().__init__(cache_dir=str(cache_dir), dataset_name="lumbar_reports")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=dataset_features(self.source_info))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split})
            for split in SPLITS
            if self.records_of_split.get(split)
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(tqdm(self.records_of_split[split], desc=f"writing {split}", unit=" images")):
            try:
                row = encode_record(record, self.source_info)
            except UnusableImageError as error:
                self.exclusions.append(Exclusion(record.source, str(error)))
                continue
            yield index, row


def card_metadata(info: SourceInfo, dataset_info: datasets.DatasetInfo) -> str:
    """The YAML head of the dataset card: features and files, so that any reader decodes them without our code."""
    metadata = DatasetCardData(
        license=info.about.license.split(":")[0],
        pretty_name=f"Lumbar reports: {info.about.name}",
        task_categories=["zero-shot-image-classification", "image-classification", "image-to-text"],
        tags=["medical", "lumbar-spine", "radiology"],
    )
    DatasetInfosDict({"default": dataset_info}).to_dataset_card_data(metadata)
    files = [{"split": split, "path": f"{DATA_FOLDER}/*-{split}*.parquet"} for split in dataset_info.splits or ()]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(metadata)
    return f"---\n{metadata}\n---\n"


def split_table(records_of_split: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Rows, patients and rows of each label, by split."""
    return {
        split: {
            "rows": len(records),
            "patients": len({record.patient_id for record in records}),
            "labels": dict(sorted(Counter(label for record in records for label in set(record.labels)).items())),
        }
        for split, records in records_of_split.items()
    }
