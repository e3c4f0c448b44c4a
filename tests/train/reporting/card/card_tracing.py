"""Where the numbers of a model card come from: a file of its run, or a computation that is done here again."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from train.evaluation.statistics.bootstrap import percentile_estimate
from train.reporting.card.values import RunFiles

REPO = "someone/made-model"
NUMBER = re.compile(r"\d{4}-\d\d-\d\d|(?<![\w.-])-?\d+(?:\.\d+)*(?![\w-])")


def prose(card: str) -> str:
    """The card without metadata, blocks of code, addresses and the numbers of the paper in the arXiv."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"https?://\S+|arXiv \d+\.\d+", "", text)


def numbers_in(text: str) -> set[str]:
    return set(NUMBER.findall(text))


def numbers_of(content: Any) -> set[str]:
    """Every number of a JSON value as a card may write it; those in its strings and keys, too."""
    if isinstance(content, dict):
        keys = {number for key in content for number in re.findall(r"\d+", key)}
        return keys.union(*map(numbers_of, content.values()))
    if isinstance(content, list):
        return set().union(*map(numbers_of, content))
    if isinstance(content, str):
        return numbers_in(content)
    if isinstance(content, bool) or content is None:
        return set()
    if isinstance(content, int):
        return {str(content)}
    return {f"{content:.3f}", f"{content:g}"} | ({f"{content:.1f}"} if abs(content) >= 10 else set())


def files_of(folder: Path) -> list[Any]:
    """What a card may draw on."""
    of_classifier = "checkpoint/preprocessor_config.json"
    processor = of_classifier if (folder / of_classifier).exists() else "checkpoint/processor_config.json"
    names = ["run.json", "metrics.json", "checkpoint/config.json", processor]
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [json.loads((folder / name).read_text()) for name in names] + [json.loads(line) for line in lines]


def read_run(folder: Path) -> RunFiles:
    run, metrics, config, processor, *history = files_of(folder)
    return RunFiles(run, config, processor, history, metrics, None, None)


def computed(folder: Path) -> set[str]:
    """Numbers that a card computes: pairs of an update, time, a share in percent, the width of the intervals."""
    run, history = json.loads((folder / "run.json").read_text()), (folder / "history.jsonl").read_text().splitlines()
    arguments = run["arguments"]
    pairs = run["num_processes"] * arguments["batch_size"] * arguments.get("gradient_accumulation_steps", 1)
    lines = [json.loads(line) for line in history]
    times: set[str] = set()
    if "pairs_per_second" in lines[-1]:  # fine-tuning does not time its updates
        seconds, before = 0.0, 0
        for line in lines:
            seconds += (line["update"] - before) * pairs / line["pairs_per_second"]
            before = line["update"]
        times = {f"{seconds:.0f}", f"{seconds / 60:.1f}", f"{seconds / 3600:.1f}"}
    calibration = json.loads((folder / "checkpoint" / "config.json").read_text())["calibration"]
    percent = f"{100 * calibration['target_coverage']:g}" if calibration else ""
    interval = percentile_estimate(0.0, np.arange(101.0), num_rows=2, num_patients=2)
    width = f"{interval.high - interval.low:g}"
    return {str(pairs), percent, width} | times


def untraceable(card: str, folder: Path) -> set[str]:
    return numbers_in(prose(card)) - numbers_of(files_of(folder)) - computed(folder)
