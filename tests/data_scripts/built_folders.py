"""What lies in and beside the folder of a built dataset."""

from pathlib import Path

import datasets

ROOT = Path(__file__).parents[2]


def rows_of(out, **options):
    loaded = datasets.load_dataset(str(out), **options)
    return {split: list(loaded[split]) for split in loaded}


def bytes_of(folder_path):
    return {path.name: path.read_bytes() for path in folder_path.iterdir()}


def leftovers(folder_path):
    """What lies beside the outputs, hidden folders too."""
    return sorted(path.name for path in folder_path.iterdir() if path.name not in ("study", "out"))
