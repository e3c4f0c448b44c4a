"""Save and load checkpoints and training states, each complete or absent."""

import json
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import BaseImageProcessor, PreTrainedModel, ProcessorMixin

from data_scripts.system.whole_files import follow_umask, write_folder, write_json
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.golden_outputs import write_golden_outputs
from train.checkpoints.loading import find_checkpoint, load_parts

CHECKPOINT = "checkpoint"
STATES = "states"


def save_checkpoint(model: PreTrainedModel, processor: ProcessorMixin | BaseImageProcessor, folder: Path) -> None:
    """Save model, code, processor and golden outputs: all or nothing.

    `AutoModel.from_pretrained(folder, trust_remote_code=True)` reads it.

    Raises:
        ValueError: If the reloaded model's outputs differ from those of the saved one.
    """

    def fill(unfinished: Path) -> None:
        model.save_pretrained(unfinished)
        save_processor(processor, unfinished)
        write_golden_outputs(unfinished, saved=model)  # last: they record the files

    write_folder(folder, fill)


def save_processor(processor: ProcessorMixin | BaseImageProcessor, folder: Path) -> None:
    """Save a processor, its tokenizer if any, and their code."""
    processor.save_pretrained(folder)
    tokenizer_file = folder / "tokenizer_config.json"
    if tokenizer_file.exists():
        settings = json.loads(tokenizer_file.read_text())
        for stray in ("is_local", "local_files_only"):  # how it was loaded, not what it is
            settings.pop(stray, None)
        write_json(tokenizer_file, settings)


def load_checkpoint(
    name: str | Path, revision: str | None = None, dtype: torch.dtype | None = None
) -> tuple[LumbarCLIPModel, LumbarCLIPProcessor]:
    """Load model and processor from a folder or the Hub, with the installed classes; code in the checkpoint never runs.

    Args:
        name: Checkpoint folder, or Hub id.
        revision: Branch, tag or commit of a Hub id; None: the newest.
        dtype: Of the weights; None: as they were saved.

    Raises:
        ValueError: If there is no such checkpoint, it is a classifier, or a file of it is damaged or may not be read.
    """
    model, processor = load_parts(find_checkpoint(name, revision), LumbarCLIPModel, LumbarCLIPProcessor, dtype=dtype)
    model.name_or_path = model.config.name_or_path = str(name)  # by which adapters name their base
    return model, processor


def save_state(accelerator: Accelerator, output_dir: Path, update: int) -> None:
    """Save everything a run needs to resume after `update` optimizer updates, then delete the previous state."""
    folder = output_dir / STATES / f"update-{update:08d}"
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))
    except Exception:
        shutil.rmtree(unfinished, ignore_errors=True)  # it takes up disk space
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        follow_umask(unfinished)
        unfinished.rename(folder)
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, output_dir: Path) -> int:
    """Load the newest complete state; return its optimizer updates, 0 without a state.

    Raises:
        ValueError: If a file of the state is damaged or missing.
    """
    folders = sorted((output_dir / STATES).glob("update-*"))
    if not folders:
        return 0
    try:
        for path in folders[-1].glob("custom_checkpoint_*.pkl"):
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)  # accelerate would run any code in it
        accelerator.load_state(str(folders[-1]))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # safetensors, torch and pickle each have their own
        raise ValueError(
            f"The state {folders[-1]} cannot be read ({_first_line(error)}): it is damaged or incomplete. Delete "
            f"{folders[-1].parent} and rerun with --resume to train from the start."
        ) from error
    return int(folders[-1].name.removeprefix("update-"))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
