"""Apply a function to every image of a built dataset, in several processes and in bounded memory."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import datasets
from PIL import Image
from tqdm.auto import tqdm

from data_scripts.imaging.images import IMAGE_FORMATS, grey_8bit
from data_scripts.system.worker_pool import Crash, Workers

Result = TypeVar("Result")

_ROWS_AT_ONCE = 32


def scan_images(
    split: datasets.Dataset,
    function: Callable[[bytes], Result],
    *,
    description: str,
    num_proc: int = 1,
    show_progress: bool = True,
) -> list[Result]:
    """Call an importable function with the stored file of each image; return its results in the order of the rows.

    Raises:
        ValueError: If the image of a row cannot be read.
    """
    results: list[Result] = []
    with tqdm(total=len(split), desc=description, unit=" images", disable=not show_progress) as bar:
        try:
            if num_proc == 1:
                for file in _image_files(split):
                    results.append(function(file))
                    bar.update()
                return results
            with Workers(num_proc, preload=(function.__module__,)) as workers:
                for result in workers.map(function, _image_files(split), bar.update):
                    if isinstance(result, Crash):
                        raise ValueError(result.reason)
                    results.append(result)
                return results
        except Exception as error:  # decoders raise anything
            raise ValueError(f"{description}: the image of row {len(results)} cannot be read: {error}") from error


def grey_image(file: bytes) -> Image.Image:
    """Decode an image file to grey (mode `L`), windowed if it has more than 8 bits."""
    with Image.open(io.BytesIO(file), formats=IMAGE_FORMATS) as image:
        return grey_8bit(image)


def _image_files(split: datasets.Dataset) -> Iterator[bytes]:
    stored = split.select_columns("image").cast_column("image", datasets.Image(decode=False))
    for batch in stored.iter(batch_size=_ROWS_AT_ONCE):
        for image in batch["image"]:
            if image is None or (image["bytes"] is None and not image["path"]):
                raise ValueError("a row has no image; build the dataset with data_scripts")
            # `load_dataset("imagefolder")` stores paths only.
            yield Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
