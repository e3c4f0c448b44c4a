"""Processor of LumbarCLIP: image processor, tokenizer, and zero-shot prompts."""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from operator import ge, gt, le, lt
from typing import Any, cast

from transformers import AutoProcessor
from transformers.processing_utils import ProcessorMixin, TextKwargs

from .calibration_lumbarclip import (
    calibrated_probabilities,
    fitted_on_problem,
    lumbarclip_in,
    origin_of,
    prediction_sets,
    prompt_texts,
    readable_answers,
    without_promises,
    zero_shot_logits,
)
from .configuration_lumbarclip import LumbarCLIPConfig, ZeroShotCalibration
from .scope_lumbarclip import joined_reasons

# Our wording; the paper has no zero-shot prompts. By what the images show, as dataset cards and checkpoints spell it.
LUMBAR_SPINE, KNEE = "lumbar spine", "knee"
DEFAULT_PROMPT_TEMPLATES = {LUMBAR_SPINE: ("{}.", "There is {}.", "MRI of the lumbar spine shows {}.")}
DEFAULT_ABSENT_PROMPT_TEMPLATES = ("No {}.", "There is no {}.", "No evidence of {}.")
# Classes whose names no report uses.
NO_FINDING = "No Finding"
ABNORMAL = ("There is a disc bulge.", "There is a disc protrusion.", "There is spinal canal stenosis.")
NORMAL = (
    "The disc is normal.",
    "No disc bulge or protrusion.",
    "The spinal canal is patent. No nerve root compression.",
)
NORMAL_KNEE = (
    "The knee is normal.",
    "No osteophytes and no joint space narrowing.",
    "No radiographic features of osteoarthritis.",
)
ABNORMAL_KNEE = ("There is osteoarthritis.", "There are definite osteophytes.", "There is joint space narrowing.")
DEFAULT_CLASS_PROMPTS = {
    LUMBAR_SPINE: {
        "LBP": [*ABNORMAL, "The disc is dehydrated."],
        NO_FINDING: [*NORMAL],
        "Pfirrmann >= 4": ["Pfirrmann grade 4.", "Pfirrmann grade 5.", "A dark disc with advanced degeneration."],
    },
    KNEE: {NO_FINDING: [*NORMAL_KNEE]},
}
DEFAULT_ABSENT_CLASS_PROMPTS = {
    LUMBAR_SPINE: {
        "LBP": [*NORMAL],
        NO_FINDING: [*ABNORMAL, "The disc is dehydrated."],
        "Pfirrmann >= 4": ["Pfirrmann grade 1.", "Pfirrmann grade 2.", "Pfirrmann grade 3."],
    },
    KNEE: {NO_FINDING: [*ABNORMAL_KNEE]},
}
# Classes that are grades of a scale, "KL 2" or "KL >= 2": the scale's name in a report, its grades, and how else a
# class may spell it.
GRADE_SCALES = {
    KNEE: ("Kellgren-Lawrence", "01234", r"KL|K&L|K/L|Kellgren(?:\W+| and )Lawrence"),
    LUMBAR_SPINE: ("Pfirrmann", "12345", r"Pfirrmann"),
}
COMPARISONS = {">=": ge, "≥": ge, "<=": le, "≤": le, ">": gt, "<": lt}
ROMAN = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5"}
# How a report words a grade of the knee. Kellgren and Lawrence 1957.
GRADE_SENTENCES = {
    "Kellgren-Lawrence": {
        "0": "No radiographic features of osteoarthritis.",
        "1": "Doubtful joint space narrowing with possible osteophytic lipping.",
        "2": "Definite osteophytes with possible joint space narrowing.",
        "3": "Multiple osteophytes, definite joint space narrowing and some sclerosis.",
        "4": "Large osteophytes, marked joint space narrowing and severe sclerosis.",
    }
}


class LumbarCLIPProcessor(ProcessorMixin):
    """Turn slices and reports into the tensors of the model.

    Casing, padding, maximum length and prompts are saved with a checkpoint, so that it is prompted as it was trained.

    Args:
        image_processor: Makes `pixel_values`.
        tokenizer: Makes `input_ids` and `attention_mask`.
        prompt_templates: Sentences that state a class, with `{}` for its name. None: those of the anatomy.
        absent_prompt_templates: Sentences that deny it.
        class_prompts: Sentences that state a class, in place of the templates. Merged with those of the anatomy, such
            as `LBP` of the lumbar spine, and `No Finding` of any.
        absent_class_prompts: Sentences that deny such a class.
        anatomy: What the images show: `lumbar spine`, `knee`, or another noun, whose classes are built from their names
            alone. Checkpoints without it are of the lumbar spine.
        **kwargs: `text_kwargs`, settings of the tokenizer in place of those below or of its own; `max_length` alone
            sets the tokens after which a text is truncated.

    Raises:
        ValueError: If a template lacks its `{}`, the prompts of a class are not sentences, `max_length` leaves no
            room for a word, the tokenizer has no such setting, or the anatomy is empty.
    """

    text_kwargs = {"padding": True, "truncation": True, "max_length": 128}  # noqa: RUF012 - copied for each instance

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        prompt_templates: list[str] | tuple[str, ...] | None = None,
        absent_prompt_templates: list[str] | tuple[str, ...] = DEFAULT_ABSENT_PROMPT_TEMPLATES,
        class_prompts: dict[str, list[str]] | None = None,
        absent_class_prompts: dict[str, list[str]] | None = None,
        anatomy: str = LUMBAR_SPINE,
        **kwargs: Any,
    ) -> None:
        if not isinstance(anatomy, str) or not anatomy.strip():
            raise ValueError(f"anatomy names what the images show, such as {LUMBAR_SPINE!r}; got {anatomy!r}.")
        if prompt_templates is None:
            prompt_templates = DEFAULT_PROMPT_TEMPLATES.get(
                anatomy, ("{}.", "There is {}.", f"The {anatomy} shows {{}}.")
            )
        for template in (*prompt_templates, *absent_prompt_templates):
            if "{}" not in template:
                raise ValueError(f"A prompt template needs '{{}}' where the class name goes; got {template!r}.")
        for prompts in (class_prompts or {}, absent_class_prompts or {}):
            for label, sentences in prompts.items():
                if not isinstance(sentences, list | tuple) or not all(
                    isinstance(sentence, str) for sentence in sentences
                ):
                    raise ValueError(f"The prompts of class {label!r} must be a list of sentences; got {sentences!r}.")
        given = {name: kwargs.pop(name) for name in ("text_kwargs", "max_length") if name in kwargs}
        self.text_kwargs = _text_kwargs(tokenizer, **given)
        self.prompt_templates = list(prompt_templates)
        self.absent_prompt_templates = list(absent_prompt_templates)
        self.anatomy = anatomy
        normal, abnormal = [f"The {anatomy} is normal."], [f"The {anatomy} is abnormal."]
        default_prompts = DEFAULT_CLASS_PROMPTS.get(anatomy, {NO_FINDING: normal})
        default_denials = DEFAULT_ABSENT_CLASS_PROMPTS.get(anatomy, {NO_FINDING: abnormal})
        self.class_prompts = default_prompts | (class_prompts or {})
        self.absent_class_prompts = default_denials | (absent_class_prompts or {})
        super().__init__(image_processor, tokenizer, **kwargs)

    @property
    def max_length(self) -> int:
        """Tokens after which a text is truncated."""
        return cast(int, self.text_kwargs["max_length"])

    @max_length.setter
    def max_length(self, max_length: int) -> None:
        self.text_kwargs = _text_kwargs(None, self.text_kwargs, max_length)

    def __call__(self, images: Any = None, text: str | Iterable[str] | None = None, **kwargs: Any) -> Any:
        """Prepare images, texts or both.

        Args:
            images: An image or a list of images, of any size and depth: PIL, array, tensor, file, URL or base64.
            text: A text, or texts in a list, tuple, array or column of a dataset. Padded to the longest and truncated
                to `max_length` tokens, unless `text_kwargs` or these arguments say otherwise.
            **kwargs: For the image processor and the tokenizer; `return_tensors="pt"` for tensors.

        Returns:
            A batch with `pixel_values` (B, 3, H, W), and `input_ids` and `attention_mask` (B, T), if given.

        Raises:
            ValueError: If a list is empty, something in it is not a text, or the image processor refuses an image.
        """
        return super().__call__(images=images, text=_texts(text), **kwargs)

    def _merge_kwargs(self, *args: Any, tokenizer_init_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        # transformers would put settings that the tokenizer was made with before those saved with this processor.
        own = {name: value for name, value in (tokenizer_init_kwargs or {}).items() if name not in self.text_kwargs}
        return super()._merge_kwargs(*args, tokenizer_init_kwargs=own, **kwargs)  # type: ignore[misc]

    @staticmethod
    def validate_init_kwargs(processor_config: dict[str, Any], valid_kwargs: Iterable[str]) -> Any:
        """Take `text_kwargs` from a saved processor, or the `max_length` of an older one."""
        return ProcessorMixin.validate_init_kwargs(processor_config, [*valid_kwargs, "text_kwargs", "max_length"])

    def to_dict(self) -> dict[str, Any]:
        """List what is saved."""
        auto_map = {"AutoProcessor": f"{__name__.rpartition('.')[2]}.{type(self).__name__}"}
        return {**super().to_dict(), "text_kwargs": dict(self.text_kwargs), "auto_map": auto_map}

    def class_prompt_texts(self, label: str) -> list[str]:
        """List sentences that state a class; their mean embedding is its zero-shot classifier."""
        if label in self.class_prompts:
            return self.class_prompts[label]
        stated, _ = _of_grades(label, self.anatomy)
        return stated or _filled(self.prompt_templates, label)

    def absent_class_prompt_texts(self, label: str) -> list[str]:
        """List sentences that deny a class."""
        if label in self.absent_class_prompts:
            return self.absent_class_prompts[label]
        _, denied = _of_grades(label, self.anatomy)
        return denied or _filled(self.absent_prompt_templates, label)

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
            `reason`. If the calibration was not fitted on the model's weights, or the image is unlike those that the
            model was trained on, no answers, but the reason.

        Raises:
            ValueError: If the checkpoint has no calibration, or the texts are not those of `zero_shot_texts`.
        """
        fitted = ZeroShotCalibration.from_dict(calibration)
        model = origin_of(output) if model is None else model
        problem = fitted_on_problem(fitted.fitted_on, model)
        fitted = fitted if problem is None else without_promises(fitted)
        logits = zero_shot_logits(output.image_embeds, output.text_embeds, output.inverse_temperature, fitted)
        # float64, as the thresholds were fitted: float32 has no number between 1 - 6e-8 and 1. Some GPUs lack float64.
        probabilities = calibrated_probabilities(logits.cpu().double(), fitted)
        sets = prediction_sets(probabilities, fitted)
        return readable_answers(probabilities, sets, fitted, _reasons(model, output, problem))

    def segmentation_prompts(
        self, class_names: Iterable[str], texts: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Word a prompt for each class of a segmentation model, as fields of its configuration.

        Args:
            class_names: Classes but the background, such as `vertebra`, in the order of `id2label`.
            texts: Wordings in place of "The {name}.".

        Returns:
            `segmentation_prompts` and `segmentation_prompt_ids`.

        Raises:
            ValueError: If there is no class, two have the same prompt, or a wording is of no class.
        """
        names, texts = list(class_names), dict(texts or {})
        if unknown := sorted(texts.keys() - set(names)):
            raise ValueError(f"{', '.join(unknown)}: not among the classes {', '.join(names)}.")
        prompts = [texts.get(name, f"The {name.replace('_', ' ')}.") for name in names]
        if not prompts or len(set(prompts)) != len(prompts):
            raise ValueError(f"Each class needs a prompt of its own; got {prompts} for {names}.")
        ids = self(text=prompts, padding=False)["input_ids"]
        return {"segmentation_prompts": prompts, "segmentation_prompt_ids": ids}

    def post_process_semantic_segmentation(self, outputs: Any, target_sizes: Sequence[Any] | None = None) -> list[Any]:
        """Turn a segmentation model's output into masks: see `image_processor.post_process_semantic_segmentation`."""
        return self.image_processor.post_process_semantic_segmentation(outputs, target_sizes)


def _reasons(model: Any, output: Any, problem: str | None) -> list[str | None]:
    """Say for each image why it gets no answer: its features, and the problem of the calibration."""
    features = getattr(output, "image_features", None)
    outside: list[str | None] = [None] * len(output.image_embeds)
    if model is not None and features is not None and (scoped := lumbarclip_in(model)) is not None:
        outside = scoped.scope_reasons(features)
    return [joined_reasons(reason, problem) for reason in outside]


def _text_kwargs(tokenizer: Any, text_kwargs: Any = None, max_length: Any = None) -> Any:
    """Settle how texts are tokenized: as given, else as the tokenizer was made, else by default."""
    if not isinstance(text_kwargs, Mapping | None):
        raise ValueError(
            f"text_kwargs are settings of the tokenizer, such as {{'max_length': 64}}; got {text_kwargs!r}."
        )
    given = dict(text_kwargs or {}) | ({} if max_length is None else {"max_length": max_length})
    if unknown := sorted(given.keys() - TextKwargs.__annotations__.keys()):
        known = ", ".join(sorted(TextKwargs.__annotations__))
        raise ValueError(f"text_kwargs has no setting {', '.join(unknown)}; a tokenizer has: {known}.")
    defaults = LumbarCLIPProcessor.text_kwargs
    made = {name: value for name, value in getattr(tokenizer, "init_kwargs", {}).items() if name in defaults}
    settled = {**defaults, **{name: value for name, value in made.items() if value is not None}, **given}
    limit = settled["max_length"]
    if not isinstance(limit, int) or limit < 3:
        raise ValueError(f"max_length must be a number that leaves room for [CLS], a word and [SEP]; got {limit!r}.")
    return settled


def _texts(text: Any) -> str | list[str] | None:
    """Make a list of what holds texts in an order; transformers takes only lists."""
    if text is None or isinstance(text, str):
        return text
    if isinstance(text, bytes | Mapping | Set) or not isinstance(text, Iterable):
        raise ValueError(f"text is a text or a list of texts; got {type(text).__name__}.")
    texts = list(text)
    if not texts:
        raise ValueError("The list of texts is empty. Pass a text, or a list of at least one.")
    for index, one in enumerate(texts):
        if not isinstance(one, str):
            raise ValueError(
                f"Text {index} of {len(texts)} is {one!r:.80}, not a text. Leave it out, or pass '' for none."
            )
    return [str(one) for one in texts]


def _of_grades(label: str, anatomy: str) -> tuple[list[str], list[str]]:
    """List sentences of the grades that a class names, "KL 2", "KL >= 2" or "KL 3-4", and of the others; or none."""
    texts: tuple[list[str], list[str]] = ([], [])
    scale, *groups = grades_named(label, anatomy) or ("", (), ())
    for sentences, grades in zip(texts, groups, strict=True):
        for grade in grades:
            described = GRADE_SENTENCES.get(scale, {}).get(grade)
            sentences.extend([f"{scale} grade {grade}.", *([described] if described else [])])
    return texts


def grades_named(label: str, anatomy: str) -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
    """Read a class that names grades of the anatomy's scale: the scale, these grades, and the others, if there are any.

    Example:
        >>> grades_named("KL >= 3", "knee"), grades_named("disc bulge", "lumbar spine")
        (('Kellgren-Lawrence', ('3', '4'), ('0', '1', '2')), None)
    """
    if anatomy not in GRADE_SCALES:
        return None
    scale, grades, spelling = GRADE_SCALES[anatomy]
    signs = "|".join(COMPARISONS)
    pattern = rf"(?:{spelling})(?:\W*grades?)?\W*?({signs})?[\s:=-]*(\d|[IV]+)(?:\s*(?:-|–|to|or|and)\s*(\d|[IV]+))?"
    if (named := re.fullmatch(pattern, label.strip(), re.IGNORECASE)) is None:
        return None
    first, last = (ROMAN.get(found.upper(), found) for found in (named[2], named[3] or named[2]))
    if first not in grades or last not in grades:
        return None
    compare = COMPARISONS.get(named[1])
    held = tuple(grade for grade in grades if (compare(grade, first) if compare else first <= grade <= last))
    others = tuple(grade for grade in grades if grade not in held)
    return (scale, held, others) if held and others else None


def _filled(templates: list[str], label: str) -> list[str]:
    texts = [template.replace("{}", label) for template in templates]
    return [text[0].upper() + text[1:] for text in texts]


LumbarCLIPProcessor.register_for_auto_class()
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoProcessor.register(LumbarCLIPConfig, LumbarCLIPProcessor)

__all__ = ["LumbarCLIPProcessor"]
