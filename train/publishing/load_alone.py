"""Load a checkpoint as its users do: its own code, an empty folder, nothing of this project to import.

    python -P load_alone.py CHECKPOINT GOLDEN ANSWERS

Run by `clean_process`. Loads model and processor, or an adapter on its base, and writes to ANSWERS their outputs for
the recorded inputs in GOLDEN. The code of the checkpoint runs: its caller has checked that it is the installed
package's.
"""

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

PROJECT = ("modeling_lumbarclip", "data_scripts", "train")


class HiddenProject:
    """Hides our packages, although they are installed here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise for our packages; leave all others to the next finder."""
        if name.partition(".")[0] in PROJECT:
            raise ModuleNotFoundError(f"No module named {name!r}: users of the checkpoint do not have it", name=name)


def main(checkpoint: Path, golden: Path, answers: Path) -> None:
    """Load the model, and compute its outputs for the golden inputs."""
    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import AutoImageProcessor, AutoProcessor

    is_adapter = (checkpoint / "adapter_config.json").exists()
    model = (load_adapter if is_adapter else load_checkpoint)(checkpoint)
    auto_processor = AutoProcessor if (checkpoint / "processor_config.json").exists() else AutoImageProcessor
    auto_processor.from_pretrained(checkpoint, trust_remote_code=True)
    # The recorded tensors, not newly processed images: older CPUs resize slightly differently.
    recorded = load_file(golden)
    inputs = {name.removeprefix("input."): value for name, value in recorded.items() if name.startswith("input.")}
    named = inspect.signature(model.forward).parameters
    with torch.inference_mode():
        outputs = model.eval()(**{name: torch.tensor(value) for name, value in inputs.items() if name in named})
    tensors = {name: value.numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, answers)


def load_adapter(folder: Path) -> Any:
    """Load an adapter on its base from the Hub; return the model with the adapters in it."""
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModel

    adapter = PeftConfig.from_pretrained(str(folder))
    base = AutoModel.from_pretrained(
        adapter.base_model_name_or_path,
        revision=adapter.revision,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=True,
    )
    return PeftModel.from_pretrained(base, str(folder)).get_base_model()  # whose forward names its inputs


def load_checkpoint(folder: Path) -> Any:
    """Load the model of a checkpoint; exit if weights are missing, left over or of another shape."""
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (architecture,) = config["architectures"]
    model_class = next(
        (name for name, code in config["auto_map"].items() if code.rpartition(".")[2] == architecture), "AutoModel"
    )
    model, loading = getattr(transformers, model_class).from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, use_safetensors=True, trust_remote_code=True
    )
    if problems := {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}:
        sys.exit(f"the weights do not fit the code: {problems}")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, content in (
        ("checkpoint", "folder of the model"),
        ("golden", "recorded inputs"),
        ("answers", "file to write"),
    ):
        parser.add_argument(name, type=Path, help=content)
    args = parser.parse_args()
    sys.meta_path.insert(0, HiddenProject())
    main(args.checkpoint, args.golden, args.answers)
