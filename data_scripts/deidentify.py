"""Copy a folder of DICOM files so that the copies name no one.

    python -m data_scripts.deidentify --raw hospital_export --out deidentified --key_file study.key

Headers are cleaned by the basic profile of the standard (`dicom_profile`), folders and files get new names, and what
may hold text in its pixels is left out. Slices of a series stay together. With the same key file the same patient gets
the same pseudonym another time; keep that file where only you can read it, or give none and no one can go back.

A list of what was done with each file lies beside the output, not in it: it holds the old names.
"""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from data_scripts.system.command_line import parse_arguments
from data_scripts.system.staging import publish, staging_folder

WRITTEN = "written"
_NUM_PRINTED = 10


@dataclass(kw_only=True)
class DeidentifyArguments:
    """What to copy, and where to."""

    raw: Path = field(metadata={"help": "Folder of DICOM files, with all folders in it."})
    out: Path = field(metadata={"help": "Folder to make. It must not exist."})
    key_file: Path | None = field(
        default=None,
        metadata={"help": "File of the secret key, made if it is not there. Without one the key is forgotten."},
    )
    keep_burnt_in: bool = field(
        default=False, metadata={"help": "Copy files that may hold text in their pixels, too; look at them yourself."}
    )


def deidentify_folder(args: DeidentifyArguments) -> dict[str, str]:
    """Copy every DICOM file below a folder, without what names anyone.

    Args:
        args: What to copy, and where to.

    Returns:
        What became of each file, by its path within `args.raw`: `written`, or why it was left out. Also in the list
        beside the output.

    Raises:
        ValueError: If the folders cannot be used, or no file could be written; nothing is left at `args.out` then.
    """
    if not args.raw.is_dir():
        raise ValueError(f"--raw {args.raw} is no folder")
    if args.out.exists():
        raise ValueError(f"--out {args.out} exists; choose another folder")
    if args.raw.resolve() in args.out.resolve().parents:
        raise ValueError(
            f"--out {args.out} lies within --raw, whose names must not be published; choose another folder"
        )
    pseudonyms = Pseudonyms.from_file(args.key_file) if args.key_file else Pseudonyms.random()
    paths = sorted(path for path in args.raw.rglob("*") if path.is_file())
    outcomes: dict[str, str] = {}
    with staging_folder(args.out) as staging:
        copies = staging / "copies"
        shutil.rmtree(copies, ignore_errors=True)  # of a run that was killed; its key may be lost
        copies.mkdir()
        for path in tqdm(paths, desc="de-identifying", unit=" files"):
            try:
                _copy_without_names(path, copies, pseudonyms, args.keep_burnt_in)
                outcome = WRITTEN
            except UnusableImageError as error:
                outcome = f"left out: {error}"
            outcomes[path.relative_to(args.raw).as_posix()] = outcome
        if WRITTEN not in outcomes.values():
            shutil.rmtree(copies)
            first = next(iter(outcomes.items()), ("no file", "the folder is empty"))
            raise ValueError(f"nothing in {args.raw} could be de-identified; {first[0]}: {first[1]}")
        publish(copies, args.out, staging)
    _list_path(args.out).write_text(json.dumps(outcomes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return outcomes


def _list_path(out: Path) -> Path:
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


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, copy, and say what was left out."""
    try:
        args = parse_arguments(DeidentifyArguments, argv)
        outcomes = deidentify_folder(args)
    except ValueError as error:
        sys.exit(f"error: {error}")
    left_out = {name: outcome for name, outcome in outcomes.items() if outcome != WRITTEN}
    print(f"{len(outcomes) - len(left_out)} of {len(outcomes)} files written to {args.out}")
    for outcome, count in Counter(left_out.values()).most_common(_NUM_PRINTED):
        print(f"{count} {outcome}")
    print(f"Every file is listed in {_list_path(args.out)}, by its old name: keep that list to yourself.")


if __name__ == "__main__":
    main()
