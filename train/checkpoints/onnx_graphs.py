"""Write ONNX graphs of a model, quantise them, and compare them with PyTorch.

Shapes: B images, H × W pixels, U texts, T tokens, D width of the shared space, d_I and d_T widths of the towers,
K classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from train.checkpoints.golden_outputs import deviation
from train.checkpoints.manifest import compare_files, record_file

VISION_MODEL = "vision_model.onnx"
TEXT_MODEL = "text_model.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 5)
CALIBRATION_BATCH = 8
WEIGHTED = ("MatMul", "Gemm", "Conv")
MAX_SINGLE_FILE_BYTES = 2**30  # ONNX cannot read a file of more than 2 GiB; the rest of the graph needs room, too


class Graph(nn.Module):
    """A part of a model that becomes one ONNX file: its outputs of these names, for inputs with these dynamic axes."""

    def __init__(
        self, file: str, model: nn.Module, dynamic: dict[str, dict[int, str]], outputs: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.file, self.model, self.dynamic, self.outputs = file, model, dynamic, outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for the inputs, both in their order."""
        output = self.model(**dict(zip(self.dynamic, inputs, strict=True)))
        return tuple(output[name] for name in self.outputs)


def graphs_of(model: PreTrainedModel) -> list[Graph]:
    """List the graphs of a model: its two towers with their heads, or the one of a classifier or segmentation model.

    `pixel_values` (B, 3, H, W) become `image_embeds` (B, D) and `image_features` (B, d_I), or `logits`: (B, K) of a
    classifier, (B, K, H, W) of a segmentation model, by the prompts of its classes; `input_ids` and `attention_mask`
    (U, T) become `text_embeds` (U, D) and `text_features` (U, d_T).
    """
    images, texts = {"pixel_values": {0: "images"}}, {0: "texts", 1: "tokens"}
    if model.config.is_classifier or model.config.is_segmenter:
        return [Graph(VISION_MODEL, model, images, ("logits",))]
    tokens = {"input_ids": texts, "attention_mask": texts}
    return [
        Graph(VISION_MODEL, model, images, ("image_embeds", "image_features")),
        Graph(TEXT_MODEL, model, tokens, ("text_embeds", "text_features")),
    ]


def write_onnx(graph: Graph, sample: dict[str, Tensor], path: Path) -> None:
    """Trace a graph with sample inputs, and write it."""
    num_bytes = sum(parameter.nbytes for parameter in graph.parameters())
    torch.onnx.export(
        graph.eval(),
        tuple(sample.values()),
        path,
        input_names=list(sample),
        output_names=list(graph.outputs),
        dynamic_shapes=(tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in graph.dynamic.values()),),
        dynamo=True,
        external_data=num_bytes > MAX_SINGLE_FILE_BYTES,
        verbose=False,
    )


@torch.inference_mode()
def deviations(graph: Graph, samples: Sequence[dict[str, Tensor]], path: Path) -> dict[str, float]:
    """Measure for each output the largest distance of an ONNX row from PyTorch's, relative to the row's length."""
    session = open_session(path)
    moved = dict.fromkeys(graph.outputs, 0.0)
    for sample in samples:
        expected = [output.numpy() for output in graph(*sample.values())]
        given = session.run(list(graph.outputs), {name: value.numpy() for name, value in sample.items()})
        for name, before, after in zip(graph.outputs, expected, given, strict=True):
            moved[name] = max(moved[name], deviation(before, after))
    return moved


def check_deviation(file: str, moved: dict[str, float]) -> None:
    """Raise if an output differs from PyTorch's by more than `TOLERANCE`."""
    for name, distance in moved.items():
        if not distance <= TOLERANCE:
            raise ValueError(
                f"{file} does not match the model: {name} differs by {distance:.2g} of its length, "
                f"{TOLERANCE:g} allowed. Nothing was written. Try other versions of torch or onnxscript."
            )


def describe_file(path: Path, moved: dict[str, float]) -> dict[str, Any]:
    """Describe an ONNX file with its `deviations`, for `export.json`.

    Returns:
        `bytes`; `parts`, the records of the file and of its weights file, if any, by name; the `deviation` from the
        model; and the number of `operations` that have weights, by kind.
    """
    import onnx

    kinds = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    operations = {kind: kinds.count(kind) for kind in (*WEIGHTED, "QuantizeLinear") if kind in kinds}
    parts = {part.name: record_file(part) for part in sorted(path.parent.glob(f"{path.name}*"))}
    return {"bytes": _num_bytes(path), "parts": parts, "deviation": moved, "operations": operations}


def _num_bytes(path: Path) -> int:
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))  # with a file of weights


def sample_inputs(model: PreTrainedModel, processor: Any, graph: Graph) -> Iterator[dict[str, Tensor]]:
    """Draw inputs of several sizes: normalised images, and texts with padding."""
    generator = torch.Generator().manual_seed(0)
    if graph.file == VISION_MODEL:
        size = getattr(processor, "image_processor", processor).size  # a classifier may have nothing else
        for batch_size in BATCH_SIZES:
            yield {"pixel_values": torch.randn(batch_size, 3, size["height"], size["width"], generator=generator)}
        return
    vocabulary_size = model.config.text_config.vocab_size
    for batch_size in BATCH_SIZES:
        for num_tokens in (3, max(4, processor.max_length // 2), processor.max_length):
            lengths = torch.randint(2, num_tokens + 1, (batch_size, 1), generator=generator)
            lengths[0] = num_tokens
            yield {
                "input_ids": torch.randint(vocabulary_size, (batch_size, num_tokens), generator=generator),
                "attention_mask": (torch.arange(num_tokens) < lengths).long(),
            }


def quantise(path: Path, quantised: Path, images: Tensor) -> None:
    """Write a copy of a vision tower that computes in 8 bits, in the ranges that its values take for some images.

    Activations are unsigned and weights signed, with a scale for each channel: what processors multiply fastest.

    Args:
        path: The graph.
        quantised: File to write.
        images: Normalised images like those that the copy will see. Shape (B, 3, H, W).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(images.split(CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixel_values": batch.numpy()}

    model = onnx.load(path)
    del model.graph.value_info[:]  # the quantiser infers shapes again; the old ones clash with its rewritten products
    is_large = _num_bytes(path) > MAX_SINGLE_FILE_BYTES
    with TemporaryDirectory() as folder:
        plain, fused = Path(folder) / "plain.onnx", Path(folder) / "fused.onnx"
        onnx.save(model, plain, save_as_external_data=is_large)
        # Normalisation goes into the convolution before it.
        quant_pre_process(plain, fused, skip_symbolic_shape=True, save_as_external_data=is_large)
        quantize_static(
            fused,
            quantised,
            Batches(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(WEIGHTED),  # softmax and norms of transformers lose too much in 8 bits
            use_external_data_format=is_large,
        )


def open_unchanged(path: Path, parts: dict[str, dict[str, Any]]) -> Any:
    """Open an ONNX file after checking by its `parts` that it has not changed since it was exported.

    Raises:
        ImportError: If ONNX Runtime is missing.
        ValueError: If the file or its weights file is missing or has changed, or ONNX Runtime cannot open it.
    """
    again = export_again(path.parent, parts)
    if drifts := compare_files(path.parent, parts):
        changes = ", ".join(f"{drift.file} ({drift.detail})" for drift in drifts)
        raise ValueError(f"Changed since the export: {changes}. {again}")
    try:
        return open_session(path)
    except ValueError as error:
        raise ValueError(f"{error} Or keep the packages that are installed here. {again}") from error


def export_again(folder: Path, files: Iterable[str] = ()) -> str:
    """Say how to replace an export that cannot be used; it had these `files` and those still there.

    Example:
        >>> export_again(Path("onnx"), ["vision_model_int8.onnx"])
        'Remove onnx and export again: `python train/export.py CHECKPOINT --out onnx --int8 DATASET`.'
    """
    names = [*files, *(path.name for path in folder.glob("*.onnx"))]
    int8 = " --int8 DATASET" if any(name.endswith("_int8.onnx") for name in names) else ""
    return f"Remove {folder} and export again: `python train/export.py CHECKPOINT --out {folder}{int8}`."


def open_session(path: Path) -> Any:
    """Open an ONNX file with as many threads as PyTorch uses.

    Raises:
        ImportError: If ONNX Runtime is missing.
        ValueError: If it cannot open the file.
    """
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Threads that spin while they wait slow down those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = " ".join(str(error).split())  # ends in a line break
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot open {path}: {reason}. Update it: pip install -U "
            "onnxruntime."
        ) from error


def require_packages() -> None:
    """Raise if a package of the extra `export` is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ImportError(f"ONNX needs the packages {', '.join(missing)}: pip install lumbarclip[export]")


def int8_name(file: str) -> str:
    """Name the quantised copy of an ONNX file."""
    return file.replace(".onnx", "_int8.onnx")
