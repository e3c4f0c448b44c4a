"""Copy a folder of DICOM files so that the copies name no one.

    python -m data_scripts.deidentify --raw hospital_export --out deidentified --key_file study.key

Headers are cleaned by the basic profile of the standard, folders and files get new names, and files that may have text
in their pixels are left out. Slices of a series stay together. With the same key file a patient gets the same pseudonym
next time; keep that file where only you can read it. Without a key file, no one can trace the copies back. Files
without a PatientID are taken for the patient of the same PatientName.

`OUT.files.json` next to the output lists what was done with each file. It contains the old names: keep it to yourself.
"""

import io
import logging
import sys
from collections import Counter
from dataclasses import MISSING, dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from tqdm.auto import tqdm

from data_scripts.imaging.dicom import is_dicom, read_slice
from data_scripts.imaging.dicom_reading import BoundedReader, num_frames, open_dicom
from data_scripts.imaging.images import UnusableImageError
from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.privacy.dicom_profile import deidentify_dicom, identifying_elements
from data_scripts.privacy.patient_identity import Patients
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.system.command_line import run, setting
from data_scripts.system.staging import publish, staging_folder
from data_scripts.system.whole_files import write_bytes, write_folder, write_private_json

logger = logging.getLogger(__name__)

WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says
WRITTEN = "written"
_NUM_PRINTED = 10


@dataclass(kw_only=True)
class DeidentifyArguments:
    """Copy DICOM files without anything that identifies patients."""

    raw: Path = setting(MISSING, "Folder of DICOM files; its subfolders are copied, too.")
    out: Path = setting(MISSING, "Folder to make. It must not exist.")
    key_file: Path | None = setting(None, "File of the secret key, made if missing. Without one the key is discarded.")
    keep_burnt_in: bool = setting(False, "Also copy files that may have text in their pixels; check them yourself.")


def main(args: DeidentifyArguments) -> None:
    """Copy, and print what was left out."""
    check_folders(args.raw, args.out)  # before a key is made
    pseudonyms = Pseudonyms.from_file(args.key_file) if args.key_file else Pseudonyms.random()
    outcomes = deidentify_folder(args.raw, args.out, pseudonyms, keep_burnt_in=args.keep_burnt_in)
    counts = Counter(outcomes.values())
    print(f"{counts.pop(WRITTEN)} of {len(outcomes)} files written to {args.out}")
    for outcome, count in counts.most_common(_NUM_PRINTED):
        print(f"{count} {outcome}")
    print(f"{_list_path(args.out)} lists every file by its old name: keep that list to yourself.")


def check_folders(raw: Path, out: Path) -> None:
    """Raise a ValueError if files cannot be copied from one folder to the other."""
    if not raw.is_dir():
        raise ValueError(f"--raw {raw} is not a folder")
    if out.exists():
        raise ValueError(f"--out {out} exists; choose another folder")
    if raw.resolve() in out.resolve().parents:
        raise ValueError(f"--out {out} lies within --raw, whose names must not be published; choose another folder")


def deidentify_folder(raw: Path, out: Path, pseudonyms: Pseudonyms, *, keep_burnt_in: bool = False) -> dict[str, str]:
    """Copy every DICOM file below a folder, without anything that names a person.

    Returns:
        The outcome of each file by its path within `raw`, `written` or the reason it was left out, as in the list
        next to the output.

    Raises:
        ValueError: If the folders cannot be used, or no file could be written; `out` does not exist then.
    """
    check_folders(raw, out)
    paths = sorted(path for path in raw.rglob("*") if path.is_file())
    outcomes: dict[str, str] = {}
    num_named_only = 0
    patients = Patients(path for path in paths if is_dicom(path))

    def fill(copies: Path) -> None:
        nonlocal num_named_only
        for path in tqdm(paths, desc="de-identifying", unit=" files"):
            try:
                num_named_only += _copy_without_names(path, copies, patients, pseudonyms, keep_burnt_in)
                outcome = WRITTEN
            except UnusableImageError as error:
                outcome = f"left out: {error}"
            outcomes[path.relative_to(raw).as_posix()] = outcome
        if WRITTEN not in outcomes.values():
            name, outcome = next(iter(outcomes.items()), ("no file", "the folder is empty"))
            raise ValueError(f"nothing in {raw} could be de-identified; {name}: {outcome}")

    with staging_folder(out) as staging:
        write_folder(staging / "copies", fill)
        write_private_json(_list_path(out), outcomes)  # first: no copy is ever without its entry
        publish(staging / "copies", out, staging)
    if num_named_only:
        logger.warning(
            "%d files have no PatientID; those of one PatientName were taken for one patient. Check that no two "
            "patients share a name.",
            num_named_only,
        )
    return outcomes


def _list_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.files.json")


def _copy_without_names(
    path: Path, copies: Path, patients: Patients, pseudonyms: Pseudonyms, keep_burnt_in: bool
) -> bool:
    """Write the copy of a file; return whether only its name says whose it is."""
    if not is_dicom(path):
        raise UnusableImageError("not a DICOM file")
    content = io.BytesIO()
    with open_dicom(path), path.open("rb") as file:  # errors inside become `UnusableImageError`
        dataset = pydicom.dcmread(BoundedReader(file, path.name), force=True)
        identity, has_name_only = patients.identity_of(dataset)
        cleaned = deidentify_dicom(_with_identity(dataset, identity), pseudonyms)
        if left := identifying_elements(cleaned):
            raise UnusableImageError(f"elements that may name someone remain: {', '.join(left[:10])}")
        if not keep_burnt_in:
            _check_letters(path, dataset)
        target = copies.joinpath(*_new_name(cleaned, path, pseudonyms))
        if target.exists():
            raise UnusableImageError("another file has the same SOP instance UID")
        cleaned.save_as(content)
    # Outside the block above: a failed write ends the command, and says nothing about the file that was read.
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content.getvalue())
    return has_name_only


def _with_identity(dataset: Dataset, identity: str) -> Dataset:
    """Give the header what identifies its patient as the ID, or no name if nothing does."""
    if identity:
        dataset.PatientID = identity
    else:
        dataset.PatientID = dataset.PatientName = ""
    return dataset


def _check_letters(path: Path, dataset: Dataset) -> None:
    way_out = "check it, and add --keep_burnt_in if it names no one"
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise UnusableImageError(f"the header says that text is burnt into the pixels; {way_out}")
    for frame in range(num_frames(dataset)):
        if has_burnt_in_text(read_slice(path, frame)):
            raise UnusableImageError(f"text may be burnt into the pixels of frame {frame}; {way_out}")


def _new_name(cleaned: Dataset, path: Path, pseudonyms: Pseudonyms) -> tuple[str, str, str, str]:
    """Return patient, study, series and file from the new ids; without an id, from the old place."""
    folder = str(path.parent)
    patient = str(cleaned.get("PatientID") or pseudonyms.of(folder, prefix="unknown"))
    study = str(cleaned.get("StudyInstanceUID") or pseudonyms.of(folder, prefix="study"))
    series = str(cleaned.get("SeriesInstanceUID") or pseudonyms.of(folder, prefix="series"))
    instance = str(cleaned.get("SOPInstanceUID") or pseudonyms.of(str(path), prefix="slice"))
    return patient, study, series, f"{instance}.dcm"


if __name__ == "__main__":
    sys.exit(run(main))
