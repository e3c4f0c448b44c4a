"""Processor of LumbarCLIP: image processor, tokenizer, and zero-shot prompts."""

from typing import Any

from transformers import AutoProcessor
from transformers.processing_utils import ProcessorMixin

from .calibration_lumbarclip import (
    calibrated_probabilities,
    fitted_on_problem,
    origin_of,
    prediction_sets,
    prompt_texts,
    readable_answers,
    without_promises,
    zero_shot_logits,
)
from .configuration_lumbarclip import LumbarCLIPConfig, ZeroShotCalibration

# Our wording; the paper has no zero-shot prompts.
DEFAULT_PROMPT_TEMPLATES = ("{}.", "There is {}.", "MRI of the lumbar spine shows {}.")
DEFAULT_ABSENT_PROMPT_TEMPLATES = ("No {}.", "There is no {}.", "No evidence of {}.")
# Classes whose names no report uses.
ABNORMAL = ("There is a disc bulge.", "There is a disc protrusion.", "There is spinal canal stenosis.")
NORMAL = (
    "The disc is normal.",
    "No disc bulge or protrusion.",
    "The spinal canal is patent. No nerve root compression.",
)
DEFAULT_CLASS_PROMPTS = {
    "LBP": [*ABNORMAL, "The disc is dehydrated."],
    "No Finding": [*NORMAL],
    "Pfirrmann >= 4": ["Pfirrmann grade 4.", "Pfirrmann grade 5.", "A dark disc with advanced degeneration."],
}
DEFAULT_ABSENT_CLASS_PROMPTS = {
    "LBP": [*NORMAL],
    "No Finding": [*ABNORMAL, "The disc is dehydrated."],
    "Pfirrmann >= 4": ["Pfirrmann grade 1.", "Pfirrmann grade 2.", "Pfirrmann grade 3."],
}


class LumbarCLIPProcessor(ProcessorMixin):
    """Turn slices and reports into the tensors of the model.

    Casing, padding, maximum length and prompts are saved with a checkpoint, so that it is prompted as it was trained.

    Args:
        image_processor: Makes `pixel_values`.
        tokenizer: Makes `input_ids` and `attention_mask`.
        max_length: Tokens after which a text is truncated.
        prompt_templates: Sentences that state a class, with `{}` for its name.
        absent_prompt_templates: Sentences that deny it.
        class_prompts: Sentences that state a class whose name no report uses, in place of the templates. Merged with
            those of `LBP`, `No Finding` and `Pfirrmann >= 4`.
        absent_class_prompts: Sentences that deny such a class.

    Raises:
        ValueError: If a template lacks its `{}`, the prompts of a class are not sentences, or `max_length` leaves no
            room for a word.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        max_length: int = 128,
        prompt_templates: list[str] | tuple[str, ...] = DEFAULT_PROMPT_TEMPLATES,
        absent_prompt_templates: list[str] | tuple[str, ...] = DEFAULT_ABSENT_PROMPT_TEMPLATES,
        class_prompts: dict[str, list[str]] | None = None,
        absent_class_prompts: dict[str, list[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        for template in (*prompt_templates, *absent_prompt_templates):
            if "{}" not in template:
                raise ValueError(f"A prompt template needs '{{}}' where the class name goes; got {template!r}.")
        for prompts in (class_prompts or {}, absent_class_prompts or {}):
            for label, sentences in prompts.items():
                if not isinstance(sentences, list | tuple) or not all(
                    isinstance(sentence, str) for sentence in sentences
                ):
                    raise ValueError(f"The prompts of class {label!r} must be a list of sentences; got {sentences!r}.")
        if max_length < 3:
            raise ValueError(f"max_length must leave room for [CLS], a word and [SEP]; got {max_length}.")
        self.max_length = max_length
        self.prompt_templates = list(prompt_templates)
        self.absent_prompt_templates = list(absent_prompt_templates)
        self.class_prompts = DEFAULT_CLASS_PROMPTS | (class_prompts or {})
        self.absent_class_prompts = DEFAULT_ABSENT_CLASS_PROMPTS | (absent_class_prompts or {})
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """Prepare images, texts or both.

        Args:
            images: An image or a list of images, of any size and depth: PIL, array, tensor, file, URL or base64.
            text: A text or a list of texts. Padded to the longest and truncated to `max_length` tokens, unless
                `padding`, `truncation` or `max_length` say otherwise.
            **kwargs: For the image processor and the tokenizer; `return_tensors="pt"` for tensors.

        Returns:
            A batch with `pixel_values` (B, 3, H, W), and `input_ids` and `attention_mask` (B, T), if given.

        Raises:
            ValueError: If a list is empty, or the image processor refuses an image.
        """
        if isinstance(text, list | tuple) and not text:
            raise ValueError("The list of texts is empty. Pass a text, or a list of at least one.")
        if text is not None:
            kwargs = {"padding": True, "truncation": True, "max_length": self.max_length, **kwargs}
        return super().__call__(images=images, text=text, **kwargs)

    def class_prompt_texts(self, label: str) -> list[str]:
        """List sentences that state a class; their mean embedding is its zero-shot classifier."""
        return self.class_prompts.get(label, _filled(self.prompt_templates, label))

    def absent_class_prompt_texts(self, label: str) -> list[str]:
        """List sentences that deny a class."""
        return self.absent_class_prompts.get(label, _filled(self.absent_prompt_templates, label))

    def zero_shot_texts(self, calibration: dict[str, Any] | None) -> list[str]:
        """List the prompts of `model.config.calibration`, to pass as `text` before `post_process_zero_shot`.

        Raises:
            ValueError: If the checkpoint has no calibration.
        """
        return prompt_texts(ZeroShotCalibration.from_dict(calibration))

    def post_process_zero_shot(
        self, output: Any, calibration: dict[str, Any] | None, model: Any = None
    ) -> list[list[dict[str, Any]]]:
        """Turn the model's output for images and `zero_shot_texts` into calibrated answers. For research use only.

        Args:
            output: What the model returned, with `image_embeds`, `text_embeds` and `inverse_temperature`.
            calibration: `model.config.calibration`.
            model: The model, for an output that it did not make itself.

        Returns:
            For each image and question, `readable_answers`: `label`, `probabilities`, `prediction_set`, `answer` and
            `reason`. If the calibration was not fitted on the model's weights, no answers, but the reason.

        Raises:
            ValueError: If the checkpoint has no calibration, or the texts are not those of `zero_shot_texts`.
        """
        fitted = ZeroShotCalibration.from_dict(calibration)
        problem = fitted_on_problem(fitted.fitted_on, origin_of(output) if model is None else model)
        fitted = fitted if problem is None else without_promises(fitted)
        logits = zero_shot_logits(output.image_embeds, output.text_embeds, output.inverse_temperature, fitted)
        # float64, as the thresholds were fitted: float32 has no number between 1 - 6e-8 and 1. Some GPUs lack float64.
        probabilities = calibrated_probabilities(logits.cpu().double(), fitted)
        sets = prediction_sets(probabilities, fitted)
        return readable_answers(probabilities, sets, fitted, [problem] * len(probabilities))


def _filled(templates: list[str], label: str) -> list[str]:
    texts = [template.replace("{}", label) for template in templates]
    return [text[0].upper() + text[1:] for text in texts]


LumbarCLIPProcessor.register_for_auto_class()
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoProcessor.register(LumbarCLIPConfig, LumbarCLIPProcessor)

__all__ = ["LumbarCLIPProcessor"]
