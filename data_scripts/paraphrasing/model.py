"""Rephrasings from an image-text-to-text model of transformers."""

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from data_scripts.paraphrasing.answers import Decoding, prompt_for

# Where a processor brings no chat template: the instruction format of Mistral, on which LLaVA-Med v1.5 rests.
INSTRUCTION = "[INST] {prompt}{image_token} [/INST]"


class ImageTextModel:
    """Any image-text-to-text model of transformers.

    Args:
        name: Hub id or folder.
        decoding: How to draw answers.
        num_rephrasings: To ask for.

    Raises:
        ValueError: If transformers cannot load it, or it has neither a chat template nor an image token.
    """

    def __init__(self, name: str, decoding: Decoding, num_rephrasings: int) -> None:
        self.decoding, self.num_rephrasings = decoding, num_rephrasings
        try:
            self.processor = AutoProcessor.from_pretrained(name)
            self.model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto").eval()
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

    @torch.inference_mode()
    def answers(self, reports: Sequence[str], images: Sequence[Image.Image], attempt: int) -> list[str]:
        """One answer for each report; the same for the same reports, attempt and seed."""
        conversations = [self._conversation(report) for report in reports]
        begins = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=conversations,
            images=[[image.convert("RGB")] for image in images],
            # Some templates begin the text themselves; twice would be a prompt the model never saw.
            add_special_tokens=not (begins and conversations[0].startswith(begins)),
            padding=True,
            return_tensors="pt",
        ).to(self.model.device, dtype=self.model.dtype)
        sampling = {"temperature": self.decoding.temperature, "top_p": self.decoding.top_p, "top_k": 0}
        torch.manual_seed(_number_of(f"{self.decoding.seed}\0{attempt}\0" + "\0".join(reports)))
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


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
