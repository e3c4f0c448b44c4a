"""Load a checkpoint as a stranger does: its own code, an empty folder, nothing of this project to import.

    python -P load_alone.py CHECKPOINT ANSWERS

Run by `clean_process`. Loads model and processor, or an adapter on its base, and writes to ANSWERS what they make of
the golden inputs, if the checkpoint has some.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

PROJECT = ("modeling_lumbarclip", "data_scripts", "train")


class HiddenProject:
    """Finds none of our packages, though they are installed where this runs."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse our packages; leave all others to the next finder."""
        if name.partition(".")[0] in PROJECT:
            raise ModuleNotFoundError(
                f"No module named {name!r}: whoever loads the checkpoint has not got it", name=name
            )


def main(checkpoint: Path, answers: Path) -> None:
    """Load, complain of weights that do not fit, and answer the golden inputs."""
    import numpy as np
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file
    from transformers import AutoProcessor

    trust = {"trust_remote_code": True}
    if (checkpoint / "adapter_config.json").exists():
        from peft import PeftConfig, PeftModel

        adapter = PeftConfig.from_pretrained(str(checkpoint))
        base = transformers.AutoModel.from_pretrained(
            adapter.base_model_name_or_path, revision=adapter.revision, **trust
        )
        PeftModel.from_pretrained(base, str(checkpoint))
        AutoProcessor.from_pretrained(checkpoint, **trust)
        return
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (architecture,) = config["architectures"]
    model_class = next(
        (name for name, code in config["auto_map"].items() if code.rpartition(".")[2] == architecture), "AutoModel"
    )
    model, loading = getattr(transformers, model_class).from_pretrained(
        checkpoint, output_loading_info=True, dtype=torch.float32, **trust
    )
    if problems := {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}:
        sys.exit(f"the weights do not fit the code: {problems}")
    AutoProcessor.from_pretrained(checkpoint, **trust)
    golden = checkpoint / "golden_outputs.safetensors"
    if golden.exists():
        # The recorded tensors and not images processed anew: older kinds of CPU resize a little differently.
        inputs = {
            name.removeprefix("input."): value for name, value in load_file(golden).items() if name.startswith("input.")
        }
        named = inspect.signature(model.forward).parameters
        with torch.inference_mode():
            outputs = model.eval()(**{name: torch.tensor(value) for name, value in inputs.items() if name in named})
        tensors = {name: value.numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, answers)


if __name__ == "__main__":
    sys.meta_path.insert(0, HiddenProject())
    main(Path(sys.argv[1]), Path(sys.argv[2]))
