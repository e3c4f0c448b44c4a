"""Ask an image-text-to-text model for rephrasings: the prompt, the decoding, and its answers kept on disk."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

# The prompt of the LumbarCLIP paper, section 3.1, verbatim for four rephrasings; the image follows it, as in the paper.
PROMPT = (
    "Generate {total} distinct, precise, and medically accurate sentences to describe the provided lumbar MRI image. "
    'One of the sentences must be the original caption: "{report}". The other {others} sentences should rephrase or '
    "expand on the original caption, maintaining its key details (e.g., vertebrae count, disc conditions, Pfirrmann "
    "grades, narrowing, bulging, endplate changes) while varying the wording and structure. Ensure all sentences are "
    "concise and focus solely on the MRI findings. \n"
)
# For a processor without chat template: the format of Mistral, which LLaVA-Med v1.5 is based on.
INSTRUCTION = "[INST] {prompt}{image_token} [/INST]"
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are sampled; the defaults are the paper's.

    The paper calls `temperature = 0.2, num_beams = 1, max_new_tokens = 1024` deterministic; LLaVA-Med's own code
    samples at any temperature above 0, and so do we, from a seed.
    """

    temperature: float = 0.2  # 0 takes the likeliest token
    top_p: float = 1.0  # not stated in the paper
    num_beams: int = 1
    max_new_tokens: int = 1024
    seed: int = 0


class Answerer(Protocol):
    """A model that answers prompts about reports, or a stand-in."""

    def answers(self, reports: Sequence[str], images: Sequence[Image.Image], attempt: int) -> list[str]:
        """Answer each report."""


def prompt_for(report: str, num_rephrasings: int) -> str:
    """Write the paper's prompt for a report.

    Example:
        >>> prompt_for("No disc bulge.", 4)[:60]
        'Generate 5 distinct, precise, and medically accurate sentenc'
    """
    others = NUMBER_WORDS[num_rephrasings] if num_rephrasings < len(NUMBER_WORDS) else str(num_rephrasings)
    return PROMPT.format(total=num_rephrasings + 1, report=report, others=others)


class KeptAnswers:
    """Answers on disk, one JSON line each, so that a rerun asks for none of them again.

    Lines are synced after each batch; an incomplete last line is dropped. `settings` contains all that decides an
    answer besides report and attempt.

    Raises:
        ValueError: If the file contains anything else.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path, self.settings = path, json.dumps(settings, sort_keys=True)
        self.answers: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = path.read_bytes() if path.exists() else b""
        whole = stored[: stored.rfind(b"\n") + 1]
        if whole != stored:
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is not a saved answer; move the file away") from error

    def _key(self, report: str, attempt: int) -> str:
        return hashlib.sha256(f"{self.settings}\0{attempt}\0{report}".encode()).hexdigest()

    def of(self, reports: Sequence[str], attempt: int) -> list[str] | None:
        """Return the answers of a batch, or None if one is missing."""
        keys = [self._key(report, attempt) for report in reports]
        return [self.answers[key] for key in keys] if all(key in self.answers for key in keys) else None

    def keep(self, reports: Sequence[str], attempt: int, answers: Sequence[str]) -> None:
        """Append the answers of a batch."""
        entries = {self._key(report, attempt): answer for report, answer in zip(reports, answers, strict=True)}
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in entries.items())
            file.flush()
            os.fsync(file.fileno())
        self.answers |= entries


def settings_of(model: str, decoding: Decoding, num_rephrasings: int, batch_size: int) -> dict[str, object]:
    """Collect what decides an answer besides report and attempt; sampling depends on the batch size, too."""
    prompt = prompt_for("{report}", num_rephrasings)
    return {"model": model, "prompt": prompt, "batch_size": batch_size, **asdict(decoding)}


class ImageTextModel:
    """Any image-text-to-text model of transformers; `name` is its Hub id or folder.

    Raises:
        ValueError: If transformers cannot load it, or it has neither a chat template nor an image token.
    """

    def __init__(self, name: str, decoding: Decoding, num_rephrasings: int) -> None:
        import torch  # here, not above: the embedded rephraser needs neither
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.decoding, self.num_rephrasings = decoding, num_rephrasings
        try:
            # Without the first, transformers would ask at the terminal whether to run the code that comes with a model.
            safe = {"trust_remote_code": False, "use_safetensors": True}
            self.processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
            self.model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto", **safe).eval()
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f"--model {name}: transformers cannot load it as an image-text-to-text model ({error}). Give the id or "
                "folder of one in the format of transformers, or `embedded`."
            ) from error
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.has_template = bool(getattr(self.processor, "chat_template", None))
        if not self.has_template and not getattr(self.processor, "image_token", None):
            raise ValueError(f"--model {name}: its processor has no chat template and no image token; choose another")
        self.processor.tokenizer.padding_side = "left"  # answers begin where the prompts end
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token

    def answers(self, reports: Sequence[str], images: Sequence[Image.Image], attempt: int) -> list[str]:
        """Answer each report; equal reports, attempt and seed give equal answers."""
        import torch

        conversations = [self._conversation(report) for report in reports]
        begins = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=conversations,
            images=[[image.convert("RGB")] for image in images],
            # Some templates add the first token themselves; the model has never seen it twice.
            add_special_tokens=not (begins and conversations[0].startswith(begins)),
            padding=True,
            return_tensors="pt",
        ).to(self.model.device, dtype=self.model.dtype)
        sampling = {"temperature": self.decoding.temperature, "top_p": self.decoding.top_p, "top_k": 0}
        digest = hashlib.sha256("\0".join((str(self.decoding.seed), str(attempt), *reports)).encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs,
                do_sample=self.decoding.temperature > 0,
                **(sampling if self.decoding.temperature > 0 else {}),
                num_beams=self.decoding.num_beams,
                max_new_tokens=self.decoding.max_new_tokens,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        return self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _conversation(self, report: str) -> str:
        prompt = prompt_for(report, self.num_rephrasings)
        if not self.has_template:
            return INSTRUCTION.format(prompt=prompt, image_token=self.processor.image_token)
        content = [{"type": "text", "text": prompt}, {"type": "image"}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
