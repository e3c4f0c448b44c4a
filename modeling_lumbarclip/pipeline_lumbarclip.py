"""LumbarCLIP's pipelines, which `transformers.pipeline` uses instead of its own for our checkpoints.

They fix what transformers' pipelines silently get wrong on medical images: 16-bit slices keep their depth, prompts use
the words of reports, long reports are truncated, and an untrained head is an error. They take PIL images, arrays,
files, URLs and base64, singly or in lists, generators and datasets.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.pipelines.feature_extraction import FeatureExtractionPipeline
from transformers.pipelines.image_classification import ImageClassificationPipeline
from transformers.pipelines.image_feature_extraction import ImageFeatureExtractionPipeline
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline
from transformers.utils import ModelOutput, logging

from .calibration_lumbarclip import (
    IN_EVERY_SET,
    calibrated_probabilities,
    calibration_problem,
    lumbarclip_in,
    prediction_sets,
    prompt_texts,
    without_promises,
    zero_shot_logits,
)
from .configuration_lumbarclip import PIPELINES, CalibratedQuestion, ZeroShotCalibration
from .image_processing_lumbarclip import read_image, to_eight_bits
from .scope_lumbarclip import joined_reasons

logger = logging.get_logger(__name__)

# Handed on by `transformers.pipeline`, which has used it.
NOT_FOR_PIPELINES = ("local_files_only",)


def _check_known(pipeline: Pipeline, unknown: Iterable[str], known: str) -> None:
    """Raise `TypeError` for arguments that no part of a pipeline takes."""
    if names := sorted(set(unknown) - set(NOT_FOR_PIPELINES)):
        raise TypeError(
            f"{type(pipeline).__name__} takes no {', '.join(names)}; it takes {known}, batch_size and num_workers."
        )


def _check_top_k(top_k: Any) -> None:
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k is how many entries to return, 1 or more; got {top_k!r}.")


class _ReadsImages:
    """Opens images of any depth."""

    image_processor: Any
    model: Any

    def check_model_type(self, _supported: Any) -> None:
        """Accept models that peft or `torch.compile` wraps, too."""

    def preprocess(self, image: Any, timeout: float | None = None, **image_processor_kwargs: Any) -> Any:
        """Make `pixel_values`."""
        return self.image_processor(read_image(image, timeout), return_tensors="pt", **image_processor_kwargs)

    def _outside(self, features: Tensor, header: Mapping[str, str] | None) -> str | None:
        """Say why an image with features z_I (1, d_I) is outside the scope of the checkpoint; None if it is inside."""
        return self.model.scope_reasons(features, [header] * len(features))[0]


class LumbarCLIPZeroShotPipeline(_ReadsImages, ZeroShotImageClassificationPipeline):  # type: ignore[misc]
    """Classify images by prompts, with the words and the calibration of the checkpoint.

    Without candidates it answers the questions that the checkpoint was calibrated for: the choice among exclusive
    classes, or one question for each finding. With candidates it chooses among them by the processor's
    `class_prompt_texts`; the answers are calibrated only if the candidates are all the classes of the calibration.

    Example (not run):
        >>> classify(image)  # doctest: +SKIP
        [{'score': 0.91, 'label': 'LBP', 'answer': True}, {'score': 0.09, 'label': 'No Finding', 'answer': False}]
    """

    _load_processor = True
    _load_image_processor = False  # the processor has both
    _load_tokenizer = False
    processor: Any

    def __init__(
        self, candidate_labels: list[str] | None = None, hypothesis_template: str | None = None, **kwargs: Any
    ) -> None:
        self.candidate_labels, self.hypothesis_template = candidate_labels, hypothesis_template
        super().__init__(**kwargs)

    def __call__(  # type: ignore[override]  # transformers' own needs candidates
        self,
        image: Any = None,
        candidate_labels: list[str] | None = None,
        hypothesis_template: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Classify one image or several.

        Args:
            image: An image, or a list of images.
            candidate_labels: Names of exclusive classes, at least two; None: the questions of the checkpoint.
            hypothesis_template: Sentence with `{}` for the name, in place of the processor's prompts.
            **kwargs: `top_k`, how many entries to return; `header`, what is known of the images: `plane`, `sequence`,
                `anatomy`, as in `model.config.scope`; `score_outside_scope`, whether to score images unlike those
                that the model was trained on, too; `batch_size`; `num_workers`; `timeout` of URLs; `images`, an alias
                of `image`.

        Returns:
            For each image a list of dicts, the highest score first: `label`; `score`, its probability among the
            candidates, or of each finding on its own; if calibrated, `answer`: True or False if the prediction set
            leaves one choice, None where the model abstains; and `reason`, why no answer may be given, such as a
            calibration fitted on other weights, else None. An image outside the scope of the checkpoint gets a single
            entry, whose `reason` says why, and whose `label`, `score` and `answer` are None. For research use only.

        Raises:
            TypeError: If an argument is unknown.
            ValueError: If there are no candidates and no calibration, fewer than two candidates, no `{}` in the
                template, or a `top_k` below 1.
        """
        image = kwargs.pop("images", image)
        if image is None:
            raise ValueError("Cannot classify without an image: pass one, or a list.")
        image = list(image) if isinstance(image, tuple) else image
        asked, is_calibrated = self._questions(
            self.candidate_labels if candidate_labels is None else candidate_labels,
            self.hypothesis_template if hypothesis_template is None else hypothesis_template,
        )
        reason = calibration_problem(self.model) if is_calibrated else None
        if reason is not None:
            logger.warning_once(reason)
            asked = without_promises(asked)
        with torch.no_grad():
            texts = self.processor(text=prompt_texts(asked), return_tensors="pt").to(self.device)
            text_embeds = self.model.get_text_features(**texts).pooler_output
        return Pipeline.__call__(
            self, image, asked=asked, is_calibrated=is_calibrated, reason=reason, text_embeds=text_embeds, **kwargs
        )

    def _questions(
        self, candidate_labels: list[str] | None, hypothesis_template: str | None
    ) -> tuple[ZeroShotCalibration, bool]:
        """Return the questions, and whether they are calibrated."""
        fitted = self.model.config.calibration
        if candidate_labels is None:
            if fitted is None:
                raise ValueError(
                    "This checkpoint has no calibration, and so no questions of its own: pass candidate_labels, such "
                    'as ["disc bulge", "normal disc"].'
                )
            return ZeroShotCalibration.from_dict(fitted), True
        if isinstance(candidate_labels, str) or len(set(candidate_labels)) < 2:
            raise ValueError(
                f"candidate_labels must be a list of at least two names; got {candidate_labels!r}. For one finding, "
                "pass its presence and its absence."
            )
        if hypothesis_template is not None:
            if "{}" not in hypothesis_template:
                raise ValueError(
                    f"hypothesis_template needs {{}} for the name of a candidate, such as 'There is {{}}.'; got "
                    f"{hypothesis_template!r}."
                )
            prompts = [[hypothesis_template.replace("{}", label)] for label in candidate_labels]
        else:
            if fitted is not None:
                calibration = ZeroShotCalibration.from_dict(fitted)
                first = calibration.questions[0]
                if first.label is None and set(first.choices) == set(candidate_labels):
                    return calibration, True
            prompts = [self.processor.class_prompt_texts(label) for label in candidate_labels]
        question = CalibratedQuestion(None, list(candidate_labels), prompts, 1.0, [IN_EVERY_SET] * len(prompts))
        return ZeroShotCalibration([question], target_coverage=0.5, fitted_on={}), False

    def _sanitize_parameters(  # type: ignore[override]
        self,
        timeout: float | None = None,
        top_k: int | None = None,
        asked: ZeroShotCalibration | None = None,
        is_calibrated: bool = False,
        reason: str | None = None,
        text_embeds: Tensor | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool | None = None,
        **unknown: Any,
    ) -> Any:
        _check_known(
            self, unknown, "candidate_labels, hypothesis_template, top_k, header, score_outside_scope, timeout"
        )
        _check_top_k(top_k)
        preprocess = {} if timeout is None else {"timeout": timeout}
        options = {"top_k": top_k, "header": header, "score_outside_scope": score_outside_scope}
        postprocess: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if asked is None:  # when the pipeline is made
            return preprocess, {}, postprocess
        forward = {"asked": asked, "text_embeds": text_embeds}
        return preprocess, forward, {**postprocess, "asked": asked, "is_calibrated": is_calibrated, "reason": reason}

    def _forward(  # type: ignore[override]
        self, model_inputs: Any, asked: ZeroShotCalibration, text_embeds: Tensor
    ) -> dict[str, Tensor]:
        output = self.model(**model_inputs)
        logits = zero_shot_logits(output.image_embeds, text_embeds, self.model.inverse_temperature, asked)
        return {"logits": logits, "features": output.image_features}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Tensor],
        asked: ZeroShotCalibration,
        is_calibrated: bool,
        reason: str | None = None,
        top_k: int | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool = False,
    ) -> list[dict[str, Any]]:
        """Turn logits into answer entries, or into the reason why there are none."""
        outside = self._outside(model_outputs["features"], header)
        if outside and not score_outside_scope:
            return [no_answer(joined_reasons(outside, reason))]
        # float64, as the thresholds were fitted: float32 has no number between 1 - 6e-8 and 1.
        probabilities = calibrated_probabilities(model_outputs["logits"].double(), asked)
        sets = prediction_sets(probabilities, asked)
        entries = []
        for question, scores, held in zip(asked.questions, probabilities[0].tolist(), sets[0].tolist(), strict=True):
            entries += _entries(question, scores, held if is_calibrated else None, reason)
        if outside:
            entries = [{**entry, "answer": None, "reason": joined_reasons(outside, reason)} for entry in entries]
        return sorted(entries, key=lambda entry: -entry["score"])[:top_k]


def no_answer(reason: str | None) -> dict[str, Any]:
    """Make the only entry of an image that is not scored."""
    return {"score": None, "label": None, "answer": None, "reason": reason}


def _entries(
    question: CalibratedQuestion, scores: list[float], held: list[bool] | None, reason: str | None
) -> list[dict[str, Any]]:
    """List an entry for each exclusive class; for a finding, only that of its second choice, presence."""
    entries: list[dict[str, Any]] = [
        {"score": score, "label": choice} for score, choice in zip(scores, question.choices, strict=True)
    ]
    if held is not None:
        for entry, is_held in zip(entries, held, strict=True):
            entry |= {"answer": is_held if sum(held) == 1 and reason is None else None, "reason": reason}
    return entries if question.label is None else [{**entries[1], "label": question.label}]


class LumbarCLIPImageFeaturePipeline(_ReadsImages, ImageFeatureExtractionPipeline):  # type: ignore[misc]
    """Embed an image: unit-length `image_embeds` (1, D), or with `pool=True` the tower's pooled output (1, d_I)."""

    def _sanitize_parameters(
        self, image_processor_kwargs: Any = None, return_tensors: Any = None, pool: Any = None, **kwargs: Any
    ) -> Any:
        _check_known(self, kwargs.keys() - {"timeout"}, "image_processor_kwargs, return_tensors, pool, timeout")
        return super()._sanitize_parameters(image_processor_kwargs, return_tensors, pool, **kwargs)

    def _forward(self, model_inputs: Any) -> ModelOutput:  # type: ignore[override]
        output = self.model(**model_inputs)
        return ModelOutput(image_embeds=output.image_embeds, pooler_output=output.image_features)


class LumbarCLIPTextFeaturePipeline(FeatureExtractionPipeline):
    """Embed each text, truncated to the processor's `max_length`, as unit-length `text_embeds` (1, D)."""

    _load_processor = True
    _load_tokenizer = False  # the processor has it
    model: Any
    processor: Any

    def _sanitize_parameters(
        self, truncation: Any = None, tokenize_kwargs: Any = None, return_tensors: Any = None, **unknown: Any
    ) -> Any:
        _check_known(self, unknown, "truncation, tokenize_kwargs, return_tensors")
        return super()._sanitize_parameters(truncation, tokenize_kwargs, return_tensors)

    def preprocess(self, inputs: Any, **tokenize_kwargs: Any) -> Any:  # type: ignore[override]
        """Make `input_ids` and `attention_mask`."""
        return self.processor(text=inputs, return_tensors="pt", **tokenize_kwargs)

    def _forward(self, model_inputs: Any) -> ModelOutput:  # type: ignore[override]
        return ModelOutput(text_embeds=self.model.get_text_features(**model_inputs).pooler_output)


class LumbarCLIPImageClassificationPipeline(_ReadsImages, ImageClassificationPipeline):  # type: ignore[misc]
    """Score every class or finding with a fine-tuned `LumbarCLIPForImageClassification`; refuse other models.

    `header` and `score_outside_scope` work as in `LumbarCLIPZeroShotPipeline`; an image outside the scope gets the same
    single entry.
    """

    def __init__(self, *, model: Any, **kwargs: Any) -> None:
        if not model.config.is_classifier:
            raise ValueError(
                "This checkpoint has no classification head, and a new one would answer at random: fine-tune it with "
                'train/finetune_classification.py, or use pipeline("zero-shot-image-classification"). If you have '
                "trained the head in this process, save the model first."
            )
        super().__init__(model=model, **kwargs)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        function_to_apply: Any = None,
        timeout: float | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool | None = None,
        **unknown: Any,
    ) -> Any:
        _check_known(self, unknown, "top_k, function_to_apply, header, score_outside_scope, timeout")
        _check_top_k(top_k)
        preprocess, forward, postprocess = super()._sanitize_parameters(top_k, function_to_apply, timeout)
        options = {"header": header, "score_outside_scope": score_outside_scope}
        postprocess |= {name: value for name, value in options.items() if value is not None}
        return preprocess, forward, {**postprocess, "reason": calibration_problem(self.model)}

    def _forward(self, model_inputs: Any) -> ModelOutput:  # type: ignore[override]
        output = super()._forward(model_inputs)
        return ModelOutput(logits=output.logits, features=output.image_features)

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: Any,
        function_to_apply: Any = None,
        top_k: int | None = None,
        reason: str | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool = False,
    ) -> Any:
        """Turn logits into answer entries: all of them (transformers: five), or the `top_k` highest.

        Each has a `reason` if the temperatures were fitted on other weights, so that the scores are not calibrated.
        """
        outside = self._outside(model_outputs["features"], header)
        if outside and not score_outside_scope:
            return [no_answer(joined_reasons(outside, reason))]
        top_k = self.model.config.num_labels if top_k is None else top_k
        entries = super().postprocess(model_outputs, function_to_apply, top_k)
        reason = joined_reasons(outside, reason)
        return entries if reason is None else [{**entry, "reason": reason} for entry in entries]


class LumbarCLIPSegmentationPipeline(_ReadsImages, ImageSegmentationPipeline):
    """Segment an image with a fine-tuned `LumbarCLIPForSemanticSegmentation`; refuse other models.

    Returns an entry for each class, or for each of the `prompts` that are asked in their place: `label`, `mask`, a PIL
    image of the size of the original, 255 inside, `score`, the mean probability inside the mask, or None if it is
    empty, and `reason`, None. `header` and `score_outside_scope` work as in `LumbarCLIPZeroShotPipeline`; an image
    outside the scope gets a single entry with the reason, whose `label`, `mask` and `score` are None. For research use
    only.
    """

    _load_processor = cast(Any, None)  # a checkpoint without texts may have only its image processor
    processor: Any

    def __init__(self, *, model: Any, **kwargs: Any) -> None:
        if not model.config.is_segmenter:
            raise ValueError(
                "This checkpoint has no decoder for segmentation, and a new one would draw at random: fine-tune it "
                "with train/finetune_segmentation.py. If you have trained the decoder in this process, save the model "
                "first."
            )
        super().__init__(model=model, **kwargs)

    def _sanitize_parameters(
        self,
        timeout: float | None = None,
        prompts: list[str] | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool | None = None,
        **unknown: Any,
    ) -> Any:
        _check_known(self, unknown, "prompts, header, score_outside_scope, timeout")
        options = {"prompts": prompts, "header": header, "score_outside_scope": score_outside_scope}
        postprocess = {name: value for name, value in options.items() if value is not None}
        if prompts is None:
            return {} if timeout is None else {"timeout": timeout}, {}, postprocess
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError(f"prompts must be a list of texts, such as ['the spinal canal']; got {prompts!r}.")
        if getattr(self.processor, "tokenizer", None) is None:
            raise ValueError(
                "prompts need a checkpoint with a text tower, and its processor: this one segments "
                f"{', '.join(self.model.config.id2label.values())} alone, or was made without processor=."
            )
        texts = self.processor(text=list(prompts), return_tensors="pt").to(self.device)
        return {} if timeout is None else {"timeout": timeout}, dict(texts), postprocess

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
        """Make `pixel_values`, and keep the size of the image."""
        image = read_image(image, timeout)
        inputs = super().preprocess(image)
        return inputs | {"target_size": _size_of(image)}

    def _forward(self, model_inputs: Any, **texts: Tensor) -> ModelOutput:  # type: ignore[override]
        size = model_inputs.pop("target_size")
        output = self.model(**model_inputs, **texts)
        return ModelOutput(logits=output.logits, features=output.image_features, target_size=size)

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: Any,
        prompts: list[str] | None = None,
        header: Mapping[str, str] | None = None,
        score_outside_scope: bool = False,
    ) -> list[dict[str, Any]]:
        """Turn logits into masks, or into the reason why there are none."""
        outside = self._outside(model_outputs["features"], header)
        if outside and not score_outside_scope:
            return [{"score": None, "label": None, "mask": None, "reason": outside}]
        maps = self.image_processor.unpad_maps(model_outputs["logits"][0].float(), model_outputs["target_size"])
        probabilities, classes = maps.softmax(dim=0), maps.argmax(dim=0)
        names = self.model.config.id2label
        labels = [names[0], *(prompts or [names[index] for index in range(1, len(names))])]
        entries = []
        for index, label in enumerate(labels):
            inside = classes == index
            score = probabilities[index][inside].mean().item() if inside.any() else None
            mask = Image.fromarray(inside.numpy(force=True).astype(np.uint8) * 255)
            entries.append({"score": score, "label": label, "mask": mask, "reason": outside})
        return entries[1:]


def _size_of(image: Any) -> tuple[int, int]:
    """Return height and width of an image that `read_image` returned."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    pixels = to_eight_bits(image)
    return pixels.shape[-2], pixels.shape[-1]


def offer_pipelines() -> None:
    """Let `transformers.pipeline` make ours of a LumbarCLIP model that is already loaded.

    With `model="folder"` it finds ours in the configuration; with a model it looks only at the task, and its own
    pipelines would show the model other pixels and ask in other words.
    """
    for task, (name, _) in PIPELINES.items():
        entry = PIPELINE_REGISTRY.supported_tasks[task]
        if not getattr(entry["impl"], "makes_lumbarclip", False):  # else another checkpoint's code did it
            PIPELINE_REGISTRY.supported_tasks[task] = {**entry, "impl": _OursOrTheirs(name, entry["impl"])}


class _OursOrTheirs:
    """Stands in for a pipeline class of transformers: makes ours of a LumbarCLIP model, and theirs of any other."""

    makes_lumbarclip = True

    def __init__(self, ours: str, theirs: Any) -> None:
        self.ours = ours
        self._theirs = theirs  # a class, or its dotted name

    @property
    def theirs(self) -> Any:
        if isinstance(self._theirs, str):
            module, _, name = self._theirs.rpartition(".")
            self._theirs = getattr(import_module(module), name)
        return self._theirs

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") or attribute == "_theirs":  # asked for by copy and pickle
            raise AttributeError(attribute)
        value = getattr(self.theirs, attribute)
        # Optional until the model is known: ours may need the processor alone.
        return None if value is True and attribute in ("_load_tokenizer", "_load_image_processor") else value

    def __call__(self, *, model: Any, **parts: Any) -> Any:
        lumbarclip = lumbarclip_in(model) if isinstance(model, nn.Module) else None
        if lumbarclip is None:
            for part, auto_class in (("tokenizer", AutoTokenizer), ("image_processor", AutoImageProcessor)):
                if getattr(self.theirs, f"_load_{part}") and parts.get(part) is None:
                    if not model.name_or_path:
                        raise ValueError(f'pipeline("{parts.get("task")}", model=model, ...) needs {part}=.')
                    parts[part] = auto_class.from_pretrained(model.name_or_path)  # or raises, as transformers would
            return self.theirs(model=model, **parts)
        # In the model's own code: this may be that of another checkpoint.
        package = type(lumbarclip).__module__.rpartition(".")[0]
        ours = getattr(import_module(f"{package}.pipeline_lumbarclip"), self.ours)
        processor = parts.get("processor")
        if ours._load_processor and not hasattr(processor, "class_prompt_texts"):
            raise ValueError(
                f'pipeline("{parts.get("task")}", model=model, ...) needs processor=, which knows the prompts and the '
                "length of texts, and is all it needs: AutoProcessor.from_pretrained(CHECKPOINT, "
                "trust_remote_code=True)."
            )
        parts.setdefault("image_processor", getattr(processor, "image_processor", None))
        if parts["image_processor"] is None:
            raise ValueError(
                f'pipeline("{parts.get("task")}", model=model, ...) needs image_processor= or processor=: '
                "AutoProcessor.from_pretrained(CHECKPOINT, trust_remote_code=True)."
            )
        return ours(model=model, **parts)
