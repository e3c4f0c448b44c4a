"""Write golden outputs: a checkpoint's outputs on a few small inputs, kept with its weights.

`python train/verify.py FOLDER_OR_ID` compares with them later, on another machine or with other library versions.
`golden_outputs.safetensors` contains the images as given, the tensors that the processor made of images and texts, and
the outputs of the model; `golden_outputs.json` the texts, a record of every file, and the library versions.
"""

import copy
import inspect
import platform
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel
from transformers.utils import PROCESSOR_NAME

import modeling_lumbarclip
from data_scripts.system.whole_files import write_bytes, write_json
from train.checkpoints.loading import check_files, load_parts, read_config, read_settings
from train.checkpoints.manifest import check_records, compare_files, record_file, record_files

GOLDEN = "golden_outputs.json"
GOLDEN_TENSORS = "golden_outputs.safetensors"
PACKAGES = ("lumbarclip", "torch", "torchvision", "timm", "transformers", "tokenizers", "numpy", "pillow")
# How far an output may move, relative to the length of its vector. Other numbers of threads and other instruction sets
# move it by about 1e-6, weights rounded to float16 by 7e-4.
TOLERANCE = 1e-4
# The same for the pixels of an image. Processors without AVX2 round a resized 8-bit image differently, by a grey level
# here and there, which moves it by 0.009; nearest-neighbour interpolation moves it by 0.12, a mean of 0.5 by 0.27.
PIXEL_TOLERANCE = 0.02
PIXELS_OF_A_CELL = 8  # along a side, of the maps of a segmentation model
# Sides and negations, which no drift may blur.
SENTENCES = (
    "Left paracentral disc protrusion at L4/L5 with compression of the left L5 nerve root.",
    "Right paracentral disc protrusion at L4/L5 with compression of the right L5 nerve root.",
    "Disc bulge at L5/S1.",
    "No disc bulge at L5/S1.",
)

Arrays = dict[str, NDArray[Any]]


def write_golden_outputs(folder: Path, saved: PreTrainedModel | None = None) -> None:
    """Write golden outputs into a checkpoint. Write them last: they record every other file.

    They come from the folder, loaded as users will load it, on the CPU in float32.

    Args:
        folder: A checkpoint with its processor.
        saved: The model that was saved there, whose outputs must be the same; None to skip this check.

    Raises:
        ValueError: If the files have changed since earlier golden outputs; if outputs contain NaN or Inf; or if the
            reloaded model's outputs differ from those of `saved`.
    """
    if (folder / GOLDEN).exists():
        check_drift(folder)
    model, processor = load_for_golden_outputs(folder, trust_remote_code=False)
    texts = golden_texts(processor)
    images = golden_images()
    inputs = processed(processor, images, texts)
    outputs = model_outputs(model, inputs)
    original = model if saved is None else _copy_on_cpu(saved)
    expected = outputs if saved is None else model_outputs(original, inputs)
    if names := [name for name, value in expected.items() if not np.isfinite(value).all()]:
        raise ValueError(
            f"The model's outputs contain NaN or Inf: {', '.join(names)}. Its weights are damaged, or training "
            "diverged: resume from an earlier state with a lower learning rate."
        )
    for name, value in outputs.items():
        if not (distance := deviation(expected[name], value)) <= TOLERANCE:
            if (change := deviation(expected[name], model_outputs(original, inputs)[name])) > TOLERANCE:
                raise ValueError(
                    f"The model gives another {name} each time: on the same input it moves by {change:.2g} of its "
                    "length. A part of it is random in evaluation mode, too, such as the masking of an autoencoder: "
                    "choose another tower."
                )
            raise ValueError(
                f"The model loaded from {folder} is not the saved one: {name} differs by {distance:.2g} of its length. "
                "A part of it was not saved, such as a non-persistent buffer or a setting."
            )
    tensors = {f"image.{index}": image for index, image in enumerate(images)}
    tensors |= {f"input.{name}": value for name, value in inputs.items()}
    tensors |= {f"output.{name}": value for name, value in outputs.items()}
    write_bytes(folder / GOLDEN_TENSORS, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))
    golden = {
        "about": f"This checkpoint's outputs for the inputs in {GOLDEN_TENSORS}, to detect later changes: "
        "python train/verify.py FOLDER_OR_ID",
        "texts": texts,
        "python": platform.python_version(),
        "packages": package_versions(),
        "files": record_files(folder, left_out=(GOLDEN,)),
    }
    write_json(folder / GOLDEN, golden)  # last: if it exists, so do the tensors


def golden_images() -> list[NDArray[Any]]:
    """Draw images of many kinds: wide and tall, grey and colour, 8 and 16 bits, smaller and larger than the model's."""
    generator = np.random.default_rng(0)

    def smooth(height: int, width: int, largest: int) -> NDArray[Any]:
        walk = generator.normal(size=(height, width)).cumsum(axis=0).cumsum(axis=1)
        return (walk - walk.min()) / np.ptp(walk) * largest

    wide = smooth(48, 80, 255).astype(np.uint8)
    tall = smooth(300, 210, 3000).astype(np.uint16)
    tall[10:14, 20:24] = 60_000  # a few bright pixels, like metal: without a window the rest would be black
    colour = np.stack([smooth(64, 64, 255) for _ in range(3)], axis=-1).astype(np.uint8)
    return [wide, tall, colour]


def golden_texts(processor: Any) -> list[str]:
    """List texts that test sides, negations and truncation at `max_length` tokens; none without a tokenizer."""
    if getattr(processor, "tokenizer", None) is None:
        return []
    words = " ".join(SENTENCES).split()
    rounds = processor.max_length // len(words) + 1  # a word is at least one token
    return [*SENTENCES, " ".join(words * rounds)]


def processed(processor: Any, images: list[NDArray[Any]], texts: list[str]) -> Arrays:
    """Turn images, and texts if any, into the model's inputs."""
    text = {"text": texts} if texts else {}
    # As a picture, a colour image is no stack of slices, of which the processor would warn.
    pictures = [Image.fromarray(image) if image.ndim == 3 else image for image in images]
    return {name: value.numpy() for name, value in processor(images=pictures, return_tensors="pt", **text).items()}


@torch.inference_mode()
def model_outputs(model: PreTrainedModel, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Compute all tensors that a model returns in evaluation mode; scalars as (1,), maps by the means of their cells.

    Full maps would take megabytes of a checkpoint.
    """
    outputs = run_model(model.eval(), inputs)
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
    tensors |= {
        name: F.avg_pool2d(maps, PIXELS_OF_A_CELL, ceil_mode=True) for name, maps in tensors.items() if maps.ndim == 4
    }
    return {name: np.atleast_1d(value.float().numpy()) for name, value in tensors.items()}


def run_model(model: PreTrainedModel, inputs: Mapping[str, NDArray[Any]]) -> Any:
    """Call a model with the inputs that its `forward` names; one of images reads the prompts that it was saved with."""
    of_images = model.main_input_name == "pixel_values"
    named: Container[str] = {"pixel_values"} if of_images else inspect.signature(model.forward).parameters
    return model(**{name: torch.from_numpy(value) for name, value in inputs.items() if name in named})


def load_for_golden_outputs(folder: Path, *, trust_remote_code: bool) -> tuple[PreTrainedModel, Any]:
    """Load model and processor in float32 on the CPU.

    `trust_remote_code` runs the code in the folder instead of the package, which must not have been imported.

    Raises:
        ValueError: If a file of the checkpoint is damaged or may not be read.
    """
    config = check_files(folder)
    # A classifier or segmentation model may have been saved with only its image processor.
    is_whole = (folder / PROCESSOR_NAME).exists()
    if not trust_remote_code:  # the classes are imported only here: they would override the code in the folder
        return load_parts(
            folder,
            model_class_of(read_config(folder)),
            modeling_lumbarclip.LumbarCLIPProcessor if is_whole else modeling_lumbarclip.LumbarCLIPImageProcessor,
            dtype=torch.float32,
        )
    (architecture,) = config["architectures"]  # several models share a configuration
    names = [name for name, code in config.get("auto_map", {}).items() if code.rpartition(".")[2] == architecture]
    auto_model = getattr(transformers, names[0] if names else "AutoModel")
    trust = {"trust_remote_code": True}
    model = auto_model.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **trust)
    return model, (AutoProcessor if is_whole else AutoImageProcessor).from_pretrained(folder, **trust)


def model_class_of(config: Any) -> Any:
    """Return the class of the model that a configuration was saved with."""
    if config.is_segmenter:
        return modeling_lumbarclip.LumbarCLIPForSemanticSegmentation
    return (
        modeling_lumbarclip.LumbarCLIPForImageClassification
        if config.is_classifier
        else modeling_lumbarclip.LumbarCLIPModel
    )


def package_versions() -> dict[str, str]:
    """List the versions of the libraries that outputs depend on."""
    versions = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def deviation(recorded: NDArray[Any], now: NDArray[Any]) -> float:
    """Measure the largest distance between a recorded row and the same row now, relative to the recorded row's length.

    The first axis counts rows. The result is infinite if shapes differ or a value is NaN or Inf.

    Example:
        >>> deviation(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[3.0, 4.5], [1.0, 0.0]]))
        0.1
    """
    if recorded.shape != now.shape or not (np.isfinite(recorded).all() and np.isfinite(now).all()):
        return float("inf")
    rows = len(recorded)
    before, after = (values.astype(np.float64).reshape(rows, -1) for values in (recorded, now))
    distances, lengths = np.linalg.norm(after - before, axis=1), np.linalg.norm(before, axis=1)
    with np.errstate(divide="ignore"):
        ratios = np.divide(distances, lengths, out=np.zeros(rows), where=distances > 0)
    return float(ratios.max())


def read_golden_outputs(folder: Path) -> dict[str, Any]:
    """Read `golden_outputs.json`; raise `ValueError` if there is none, or it cannot be read."""
    path = folder / GOLDEN
    if not path.exists():
        raise ValueError(
            f"{folder} has no {GOLDEN}: it was saved without golden outputs, so changes cannot be detected. If you "
            "trust it, write them: train.checkpoints.golden_outputs.write_golden_outputs(folder)."
        )
    try:
        golden = read_settings(path)
        known = {name: golden[name] for name in ("texts", "python", "packages", "files")}
        _check_record(known)
        return known
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): it was cut off or overwritten. Fetch it again.") from error


def _check_record(golden: Mapping[str, Any]) -> None:
    """Raise TypeError if golden outputs have another form than `write_golden_outputs` gives them."""
    if not all(isinstance(text, str) for text in golden["texts"]) or not isinstance(golden["packages"], dict):
        raise TypeError("texts or packages have another form")
    check_records(golden["files"])


def check_drift(folder: Path, may_differ: tuple[str, str] | None = None) -> None:
    """Check that the files of a checkpoint are those that its golden outputs record.

    Args:
        folder: The checkpoint.
        may_differ: A JSON file and a field of it that may have changed.

    Raises:
        ValueError: If a file has changed, or the checkpoint has no golden outputs.
    """
    file, field = may_differ or ("", "")
    drifts = compare_files(folder, read_golden_outputs(folder)["files"])
    if changed := [
        drift for drift in drifts if drift.file != file or not f"{drift.what}.".startswith(f"field {field}.")
    ]:
        shown = "; ".join(f"{drift.file}: {drift.what} {drift.detail}" for drift in changed[:5])
        raise ValueError(
            f"{folder} is not what was saved ({shown}). Fetch or save it again; if you meant the change, delete "
            f"{GOLDEN} and call write_golden_outputs(folder)."
        )


@contextmanager
def recorded_change(folder: Path, file: str, field: str) -> Iterator[None]:
    """Let the body of `with` write a field that no output depends on, and renew the record of its file.

    Does nothing for a checkpoint without golden outputs.

    Raises:
        ValueError: If anything else in the checkpoint has changed since it was saved.
    """
    has_golden = (folder / GOLDEN).exists()
    if has_golden:
        check_drift(folder, (file, field))
    yield
    if has_golden:
        golden = read_settings(folder / GOLDEN)
        golden["files"][file] = record_file(folder / file)
        write_json(folder / GOLDEN, golden)


def _copy_on_cpu(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model in float32, without a second copy on its GPU; what is on the CPU in float32 already is shared."""
    copies: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to("cpu", torch.float32), requires_grad=False)
        for weight in model.parameters()
    }
    for buffer in model.buffers():
        copies[id(buffer)] = buffer.to("cpu", torch.float32 if buffer.is_floating_point() else buffer.dtype)
    return copy.deepcopy(model, copies)
