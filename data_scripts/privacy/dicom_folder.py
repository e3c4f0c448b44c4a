"""A folder of DICOM files to copies that name no one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom import Dataset
from tqdm.auto import tqdm

from data_scripts.imaging.dicom import is_dicom, read_slice
from data_scripts.imaging.dicom_reading import BoundedReader, num_frames, open_dicom
from data_scripts.imaging.images import UnusableImageError
from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.privacy.dicom_profile import deidentify_dicom, identifying_elements
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.system.staging import publish, staging_folder
from data_scripts.system.whole_files import write_json

WRITTEN = "written"


def deidentify_folder(raw: Path, out: Path, pseudonyms: Pseudonyms, *, keep_burnt_in: bool = False) -> dict[str, str]:
    """Copy every DICOM file below a folder, without what names anyone.

    Args:
        raw: The folder.
        out: Folder to make.
        pseudonyms: Their key decides the new names.
        keep_burnt_in: Whether to copy files that may have text in their pixels.

    Returns:
        What became of each file, by its path within `raw`: `written`, or why it was left out. Also in the list
        beside the output.

    Raises:
        ValueError: If the folders cannot be used, or no file could be written; `out` does not exist then.
    """
    if not raw.is_dir():
        raise ValueError(f"--raw {raw} is no folder")
    if out.exists():
        raise ValueError(f"--out {out} exists; choose another folder")
    if raw.resolve() in out.resolve().parents:
        raise ValueError(f"--out {out} lies within --raw, whose names must not be published; choose another folder")
    paths = sorted(path for path in raw.rglob("*") if path.is_file())
    outcomes: dict[str, str] = {}
    with staging_folder(out) as staging:
        copies = staging / "copies"
        shutil.rmtree(copies, ignore_errors=True)  # of a run that was killed; its key may be lost
        copies.mkdir()
        for path in tqdm(paths, desc="de-identifying", unit=" files"):
            try:
                _copy_without_names(path, copies, pseudonyms, keep_burnt_in)
                outcome = WRITTEN
            except UnusableImageError as error:
                outcome = f"left out: {error}"
            outcomes[path.relative_to(raw).as_posix()] = outcome
        if WRITTEN not in outcomes.values():
            shutil.rmtree(copies)
            first = next(iter(outcomes.items()), ("no file", "the folder is empty"))
            raise ValueError(f"nothing in {raw} could be de-identified; {first[0]}: {first[1]}")
        publish(copies, out, staging)
    write_json(list_path(out), outcomes)
    return outcomes


def list_path(out: Path) -> Path:
    """The list of what became of each file."""
    return out.with_name(f"{out.name}.files.json")


def _copy_without_names(path: Path, copies: Path, pseudonyms: Pseudonyms, keep_burnt_in: bool) -> None:
    if not is_dicom(path):
        raise UnusableImageError("no DICOM file")
    with _whole_dataset(path) as dataset:
        cleaned = deidentify_dicom(dataset, pseudonyms)
        if left := identifying_elements(cleaned):
            raise UnusableImageError(f"elements that may name someone remain: {', '.join(left[:10])}")
        if not keep_burnt_in:
            _check_letters(path, dataset)
        target = copies.joinpath(*_new_name(cleaned, path, pseudonyms))
        if target.exists():
            raise UnusableImageError("another file has the same SOP instance UID")
        target.parent.mkdir(parents=True, exist_ok=True)
        cleaned.save_as(target)


@contextmanager
def _whole_dataset(path: Path) -> Iterator[Dataset]:
    """Read a file with its pixels, within the bounds of `dicom_reading`; what goes wrong is an `UnusableImageError`."""
    with open_dicom(path), path.open("rb") as file:
        yield pydicom.dcmread(BoundedReader(file, path.name), force=True)


def _check_letters(path: Path, dataset: Dataset) -> None:
    way_out = "look at it, and give --keep_burnt_in if it names no one"
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise UnusableImageError(f"text is burnt into the pixels, says the header; {way_out}")
    for frame in range(num_frames(dataset)):
        if has_burnt_in_text(read_slice(path, frame)):
            raise UnusableImageError(f"text may be burnt into the pixels of frame {frame}; {way_out}")


def _new_name(cleaned: Dataset, path: Path, pseudonyms: Pseudonyms) -> tuple[str, str, str, str]:
    """Patient, study, series and file, of the new ids; files without an id keep apart by their old place."""

    def of_folder(prefix: str) -> str:
        return pseudonyms.of(str(path.parent), prefix=prefix)

    patient = str(cleaned.get("PatientID") or of_folder("unknown"))
    study = str(cleaned.get("StudyInstanceUID") or of_folder("study"))
    series = str(cleaned.get("SeriesInstanceUID") or of_folder("series"))
    instance = str(cleaned.get("SOPInstanceUID") or pseudonyms.of(str(path), prefix="slice"))
    return patient, study, series, f"{instance}.dcm"
