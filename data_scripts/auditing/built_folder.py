"""Read a built dataset from its current files, and nothing outside its folder."""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from datasets.exceptions import DatasetsError
from datasets.features.features import require_decoding
from huggingface_hub import DatasetCard, metadata_load
from PIL import Image

from data_scripts.imaging.images import IMAGE_FORMATS
from data_scripts.lumbar_builder import DATA_FOLDER
from data_scripts.records import SPLITS

CARD, REPORT = "README.md", "build_report.json"
_SHARD = re.compile(rf"({'|'.join(SPLITS)})([-_.][\w.-]*)?\.parquet")
_BYTES_THAT_TELL = 16  # as Pillow reads to tell a format
_AGAIN = "Build or copy the dataset again."


def read_dataset(name: str | Path, cache_dir: str | None = None) -> datasets.DatasetDict:
    """Load a built dataset from its folder, or from the Hub.

    Only `data/SPLIT-*.parquet` is read from a folder. Rows must not name files: `datasets` would read them from the
    user's disk, or fetch them.

    Raises:
        ValueError: If a shard is damaged, may not be read or has other columns, or anything refers to files outside the
            folder.
    """
    folder = Path(name)
    if not folder.is_dir():
        _check_card(f"dataset {name}", _card_of_hub(str(name)))
        dataset = datasets.load_dataset(str(name), cache_dir=cache_dir)
        for rows in dataset.values():
            _check_features(str(name), rows.features)
        _check_stored(dataset)
        _check_values(str(name), dataset)
        return dataset
    shards = check_is_dataset(folder)
    # `datasets` caches files by name and modification time; a shard may change and keep both.
    stats = [(path.name, path.stat()) for paths in shards.values() for path in paths]
    state = repr([(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats])
    files = {split: [escape(str(path.resolve())) for path in paths] for split, paths in shards.items()}
    try:
        dataset = datasets.load_dataset(
            "parquet", hashlib.sha256(state.encode()).hexdigest()[:16], data_files=files, cache_dir=cache_dir
        )
    except (DatasetsError, pa.ArrowException) as error:
        for path in (path for paths in shards.values() for path in paths):
            _check_readable(path)
        raise ValueError(f"{folder} cannot be read as a dataset: {error.__cause__ or error}") from error
    _check_stored(dataset)
    _check_values(str(folder / DATA_FOLDER), dataset)
    return dataset


def check_is_dataset(folder: Path) -> dict[str, list[Path]]:
    """Return the shards of a folder by split.

    Raises:
        ValueError: If there are none, one is damaged or may not be read, or `data/` holds or the card names other
            data.
        OSError: If a folder may not be read.
    """
    data = folder / DATA_FOLDER
    # Not `glob`, which finds nothing where it may not look.
    if not data.is_dir() or not any(path.suffix == ".parquet" for path in data.iterdir()):
        raise ValueError(
            f"{folder} has no {DATA_FOLDER}/*.parquet: it is not a dataset. Name a folder that data_scripts.build made."
        )
    for path in (folder / CARD, folder / REPORT, *data.iterdir()):
        _check_inside(path, folder)
    _check_card(str(folder / CARD), _card_of_folder(folder))
    shards: dict[str, list[Path]] = {}
    for path in sorted(path for path in data.iterdir() if not path.name.startswith(".")):
        if not (of_split := _SHARD.fullmatch(path.name)) or not path.is_file():
            raise ValueError(f"{path} is not a shard of {', '.join(SPLITS)}, such as train-00000-of-00001.parquet.")
        shards.setdefault(of_split[1], []).append(path)
    shards = {split: shards[split] for split in SPLITS if split in shards}
    _check_columns([path for paths in shards.values() for path in paths])
    return shards


def _check_inside(path: Path, folder: Path) -> None:
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":  # in the cache of the Hub, files are links to its blobs
        allowed.append(folder.resolve().parents[1] / "blobs")
    try:
        inside = any(path.resolve().is_relative_to(parent) for parent in allowed)
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not inside:
        raise ValueError(f"{path} is a link to a file outside {folder}: replace it by a copy.")


def _card_of_folder(folder: Path) -> dict[str, Any]:
    try:
        return (metadata_load(folder / CARD) or {}) if (folder / CARD).is_file() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder / CARD} has a damaged head: {' '.join(str(error).split())}") from error


def _card_of_hub(name: str) -> dict[str, Any]:
    try:
        return DatasetCard.load(name).data.to_dict()
    except (OSError, ValueError):  # offline, or no id: loading says so, or finds the rows in the cache
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"The card of dataset {name} has a damaged head: {' '.join(str(error).split())}") from error


def _check_card(card: str, head: Mapping[str, Any]) -> None:
    """Check that the head of a card names only data within the dataset."""
    configurations = head.get("configs") or []
    if not isinstance(configurations, list) or not all(isinstance(each, dict) for each in configurations):
        raise ValueError(f"{card} has `configs` that are not a list of objects: remove them.")
    for each in configurations:
        try:
            names = list(_texts([each.get("data_files"), each.get("data_dir")]))
        except RecursionError:  # YAML may refer to itself
            raise ValueError(f"{card} has `configs` that contain themselves: remove them.") from None
        for name in names:
            if ":" in name or name.startswith(("/", "\\", "~")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                raise ValueError(f"{card} names the data {name!r}, outside the dataset: remove it from `configs`.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _check_columns(shards: list[Path]) -> None:
    """Check the columns of each shard without reading rows."""
    first: datasets.Features | None = None
    for path in shards:
        try:
            features = datasets.Features.from_arrow_schema(pq.read_schema(path))
            num_rows = pq.read_metadata(path).num_rows
        except PermissionError as error:
            raise ValueError(
                f"{path} cannot be read (Permission denied). Ask its owner for: chmod a+r {path}"
            ) from error
        except Exception as error:  # a damaged head, or features that `datasets` does not know
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())} {_AGAIN}") from error
        _check_features(str(path), features)
        if not num_rows:
            raise ValueError(f"{path} has no rows. {_AGAIN}")
        if first is None:
            first = features
        elif features != first:
            differing = sorted(name for name in {*first, *features} if first.get(name) != features.get(name))
            raise ValueError(f"{path} has other columns than {shards[0].name}: {', '.join(differing)}. {_AGAIN}")


def _check_features(where: str, features: datasets.Features) -> None:
    """Check that columns have the types a build writes, and that reading rows reads no other files."""
    for name, feature in features.items():
        if require_decoding(feature) and not isinstance(feature, datasets.Image):
            raise ValueError(f"{where} has a column {name} of {feature}, which may read other files: remove it.")
        if name in _KINDS and _kind(feature) != _KINDS[name]:
            raise ValueError(f"{where} has a column {name} of {_kind(feature)}, not {_KINDS[name]}. {_AGAIN}")


_KINDS = {
    **dict.fromkeys(("image", "mask"), "Image"),
    **dict.fromkeys(("report", "patient_id", "study_id", "series_id", "source"), "string"),
    **dict.fromkeys(("grade", "plane", "sequence", "level", "mask_origin"), "ClassLabel"),
    **dict.fromkeys(("pixel_spacing_mm", "slice_spacing_mm", "disc_height_mm"), "float32"),
    **{"labels": "List of ClassLabel", "mask_classes": "List of ClassLabel", "rephrasings": "List of string"},
}
_NEVER_EMPTY = ("report", "rephrasings", "patient_id", "source")


def _kind(feature: Any) -> str:
    if isinstance(feature, datasets.List):
        return f"List of {_kind(feature.feature)}"
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _check_readable(shard: Path) -> None:
    try:
        with pq.ParquetFile(shard) as file:
            for _ in file.iter_batches(64):
                pass
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{shard} is damaged: {' '.join(str(error).split())} {_AGAIN}") from error


def _check_stored(dataset: Mapping[str, datasets.Dataset]) -> None:
    """Check that each row contains its images, in formats that a build reads; look only at their first bytes."""
    for split, rows in dataset.items():
        for name in (name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)):
            start = 0
            for chunk in rows.data.column(name).chunks:
                if found := _unusable_row(chunk, may_be_null=name != "image"):  # a row may have no mask
                    row, stored = found
                    raise ValueError(f"row {start + row} of {split} stores no {name}, only {stored}. {_AGAIN}")
                start += len(chunk)


def _check_values(where: str, dataset: Mapping[str, datasets.Dataset]) -> None:
    """Check that no cell that a build fills is empty, and that numbers of classes have a class."""
    for split, rows in dataset.items():
        for name, feature in rows.features.items():
            values = rows.data.column(name)
            if name in _NEVER_EMPTY and values.null_count:
                row = pc.index(values.is_null(), True).as_py()
                raise ValueError(f"{where}: row {row} of {split} has no {name}. {_AGAIN}")
            if isinstance(feature, datasets.List):
                values, feature = pc.list_flatten(values), feature.feature
                if values.null_count:
                    raise ValueError(f"{where}: a list of {name} in {split} has an empty entry. {_AGAIN}")
            if isinstance(feature, datasets.ClassLabel):
                ends = pc.min_max(values).as_py().values()
                if wrong := [value for value in ends if value is not None and not 0 <= value < feature.num_classes]:
                    raise ValueError(
                        f"{where}: {name} of {split} holds {wrong[0]}, and has {feature.num_classes} classes. {_AGAIN}"
                    )


def _unusable_row(images: pa.StructArray, may_be_null: bool) -> tuple[int, str] | None:
    """Find a row without the bytes of an image in one of our formats, and what it has instead."""
    missing = pc.struct_field(images, "bytes").is_null()
    if may_be_null:
        missing = pc.and_(missing, pc.struct_field(images, "path").is_valid())
    if pc.any(missing).as_py():
        row = missing.index(True).as_py()
        path = (images[row].as_py() or {}).get("path")
        return row, f"the path {path!r}" if path else "an empty cell"
    starts = pc.binary_slice(pc.struct_field(images, "bytes"), 0, _BYTES_THAT_TELL)
    for first_bytes in pc.unique(starts).drop_null().to_pylist():
        if name := _other_format(first_bytes):
            return starts.index(first_bytes).as_py(), f"a file of type {name}, which is not read"
    return None


def _other_format(first_bytes: bytes) -> str | None:
    """Name a format that Pillow knows and we do not read: `datasets` would decode it, EPS by starting Ghostscript."""
    if len(first_bytes) < _BYTES_THAT_TELL:
        return None  # cut off; decoding says so
    Image.init()
    others = ((name, accepts) for name, (_, accepts) in Image.OPEN.items() if name not in IMAGE_FORMATS)
    return next((name for name, accepts in others if accepts and accepts(first_bytes)), None)


@contextmanager
def opened_afresh(folder: Path) -> Iterator[datasets.DatasetDict]:
    """Load a dataset from its files into a temporary cache; raise a ValueError as `read_dataset` does."""
    check_is_dataset(folder)
    shared_cache = Path(datasets.config.HF_DATASETS_CACHE)  # on a disk with room for rows
    shared_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checked-", dir=shared_cache) as cache:
        yield read_dataset(folder, cache)


def shard_digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file below `data`, by its name relative to the folder."""
    digests = {}
    for path in sorted((folder / DATA_FOLDER).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def check_shards_unchanged(folder: Path, built: Mapping[str, str]) -> None:
    """Raise a ValueError naming shards that were changed, removed or added since the build, by its digests."""
    now = shard_digests(folder)
    if changed := sorted(name for name in built.keys() | now.keys() if built.get(name) != now.get(name)):
        verbs = ("added" if name not in built else "removed" if name not in now else "changed" for name in changed)
        what = ", ".join(f"{name} was {verb}" for name, verb in zip(changed, verbs, strict=True))
        raise ValueError(f"{folder} was changed after the build: {what}. Change the source's rows, and build again.")
