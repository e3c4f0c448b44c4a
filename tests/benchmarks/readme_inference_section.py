"""The README's section on the speed of inference, as Markdown."""

import statistics
from typing import Any

from train.reporting.tables import format_entry, markdown_table, readable

MEGABYTE = 1e6


def inference_section(content: dict[str, Any]) -> str:
    """What the benchmark of inference measured."""
    towers = content["towers"]
    header = ["ratio of images a second", *(f"{name}, {tower['image_size']} px" for name, tower in towers.items())]
    ratios = next(iter(towers.values()))["ratios"]
    rows = [[name, *(_median_and_range(tower["ratios"][name]) for tower in towers.values())] for name in ratios]
    sizes = [f"{name} {_megabytes(tower, '')} ({_megabytes(tower, '_int8')})" for name, tower in towers.items()]
    metric = next(iter(content["int8_probe"]["difference"]))
    probe = {name: format_entry(entries[metric]) for name, entries in content["int8_probe"].items()}
    return (
        "### Inference\n\n`encode` is the bulk encoder from PNG files to Parquet, decoding included; `pipeline` is "
        f'`pipeline("image-feature-extraction")` on the same files; {content["num_threads"]} threads. Every system in '
        f"turn, {content['arguments']['turns']} turns: median of the ratio within a turn, with the smallest and the "
        "largest. On a CPU nearly all of a large tower's time is its forward pass, of which batching saves little.\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"Vision tower and head as ONNX, and in int8: {', '.join(sizes)}. Linear probe on the test split, "
        f"{readable(metric)}: {probe['float32']} in float32, {probe['int8']} in int8, difference "
        f"{probe['difference']}.\n\n"
        f"`{content['command'].partition(' --out')[0]}`, {content['date']}, `tests/benchmarks/results/inference.json`."
    )


def _median_and_range(turns: list[float]) -> str:
    return f"{statistics.median(turns):.2f} ({min(turns):.2f}-{max(turns):.2f})"


def _megabytes(tower: dict[str, Any], suffix: str) -> str:
    return f"{tower['file_bytes'][f'vision_model{suffix}.onnx'] / MEGABYTE:.1f} MB"
