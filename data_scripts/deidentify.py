"""Copy a folder of DICOM files so that the copies name no one.

    python -m data_scripts.deidentify --raw hospital_export --out deidentified --key_file study.key

Headers are cleaned by the basic profile of the standard, folders and files get new names, and files that may have text
in their pixels are left out. Slices of a series stay together. With the same key file a patient gets the same pseudonym
another time; keep that file where only you can read it. Without a key file, no one can trace the copies back.

`OUT.files.json` beside the output lists what was done with each file. It contains the old names: keep it to yourself.
"""

import sys
from collections import Counter
from dataclasses import MISSING, dataclass
from pathlib import Path

from data_scripts.system.command_line import run, setting

_NUM_PRINTED = 10


@dataclass(kw_only=True)
class DeidentifyArguments:
    """Copy DICOM files without what identifies patients."""

    raw: Path = setting(MISSING, "Folder of DICOM files; its subfolders are copied, too.")
    out: Path = setting(MISSING, "Folder to make. It must not exist.")
    key_file: Path | None = setting(None, "File of the secret key, made if missing. Without one the key is discarded.")
    keep_burnt_in: bool = setting(False, "Also copy files that may have text in their pixels; look at them yourself.")


def main(args: DeidentifyArguments) -> None:
    """Copy, and print what was left out."""
    from data_scripts.privacy.dicom_folder import WRITTEN, deidentify_folder, list_path
    from data_scripts.privacy.pseudonyms import Pseudonyms

    pseudonyms = Pseudonyms.from_file(args.key_file) if args.key_file else Pseudonyms.random()
    outcomes = deidentify_folder(args.raw, args.out, pseudonyms, keep_burnt_in=args.keep_burnt_in)
    left_out = {name: outcome for name, outcome in outcomes.items() if outcome != WRITTEN}
    print(f"{len(outcomes) - len(left_out)} of {len(outcomes)} files written to {args.out}")
    for outcome, count in Counter(left_out.values()).most_common(_NUM_PRINTED):
        print(f"{count} {outcome}")
    print(f"{list_path(args.out)} lists every file by its old name: keep that list to yourself.")


if __name__ == "__main__":
    sys.exit(run(main))
