"""What a model is asked for rephrasings, how it decodes, and its answers kept on disk."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

# The prompt of the LumbarCLIP paper, section 3.1, word by word for four rephrasings. The paper puts the image behind
# it; so do we.
PROMPT = (
    "Generate {total} distinct, precise, and medically accurate sentences to describe the provided lumbar MRI image. "
    'One of the sentences must be the original caption: "{report}". The other {others} sentences should rephrase or '
    "expand on the original caption, maintaining its key details (e.g., vertebrae count, disc conditions, Pfirrmann "
    "grades, narrowing, bulging, endplate changes) while varying the wording and structure. Ensure all sentences are "
    "concise and focus solely on the MRI findings. \n"
)
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are drawn; the defaults are the paper's.

    The paper calls `temperature = 0.2, num_beams = 1, max_new_tokens = 1024` deterministic; LLaVA-Med's own code
    samples at any temperature above 0, and so do we, from a seed.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability that is drawn from; 1 is all of it (the paper names none).
        num_beams: Beams of the search.
        max_new_tokens: Longest answer.
        seed: Of the sampling.
    """

    temperature: float = 0.2
    top_p: float = 1.0
    num_beams: int = 1
    max_new_tokens: int = 1024
    seed: int = 0


class Answerer(Protocol):
    """What answers prompts about reports: a model, or a stand-in."""

    def answers(self, reports: Sequence[str], images: Sequence[Image.Image], attempt: int) -> list[str]:
        """One answer for each report."""


def prompt_for(report: str, num_rephrasings: int) -> str:
    """The paper's prompt for a report.

    Example:
        >>> prompt_for("No disc bulge.", 4)[:60]
        'Generate 5 distinct, precise, and medically accurate sentenc'
    """
    others = NUMBER_WORDS[num_rephrasings] if num_rephrasings < len(NUMBER_WORDS) else str(num_rephrasings)
    return PROMPT.format(total=num_rephrasings + 1, report=report, others=others)


class KeptAnswers:
    """Answers on disk, one JSON line each, so that an interrupted run asks for none of them again.

    A line is written and synced whole after each batch; a last line that a kill cut short is dropped.

    Args:
        path: File of the answers; made when missing.
        settings: Whatever decides an answer besides report and attempt.

    Raises:
        ValueError: If the file holds something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path, self.settings = path, json.dumps(settings, sort_keys=True)
        self.answers: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = path.read_bytes() if path.exists() else b""
        whole = stored[: stored.rfind(b"\n") + 1]
        if whole != stored:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is no kept answer: move the file away") from error

    def key(self, report: str, attempt: int) -> str:
        """Of an answer."""
        return hashlib.sha256(f"{self.settings}\0{attempt}\0{report}".encode()).hexdigest()

    def of(self, reports: Sequence[str], attempt: int) -> list[str] | None:
        """The answers of a batch, if all of them are kept."""
        keys = [self.key(report, attempt) for report in reports]
        return [self.answers[key] for key in keys] if all(key in self.answers for key in keys) else None

    def keep(self, reports: Sequence[str], attempt: int, answers: Sequence[str]) -> None:
        """Write the answers of a batch."""
        entries = {self.key(report, attempt): answer for report, answer in zip(reports, answers, strict=True)}
        with self.path.open("a", encoding="utf-8") as file:
            for key, answer in entries.items():
                file.write(json.dumps({"key": key, "answer": answer}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.answers |= entries


def settings_of(model: str, decoding: Decoding, num_rephrasings: int, batch_size: int) -> dict[str, object]:
    """What decides an answer besides report and attempt; sampling in a batch depends on its size, too."""
    prompt = prompt_for("{report}", num_rephrasings)
    return {"model": model, "prompt": prompt, "batch_size": batch_size, **asdict(decoding)}
