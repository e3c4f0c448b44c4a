"""LumbarCLIP's pipelines, which `transformers.pipeline` uses instead of its own for our checkpoints.

They fix what transformers' pipelines silently get wrong on medical images: 16-bit slices keep their depth, prompts use
the words of reports, long reports are truncated, and an untrained head is an error. They take PIL images, arrays,
files, URLs and base64, singly or in lists, generators and datasets.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.pipelines.base import Pipeline
from transformers.pipelines.feature_extraction import FeatureExtractionPipeline
from transformers.pipelines.image_classification import ImageClassificationPipeline
from transformers.pipelines.image_feature_extraction import ImageFeatureExtractionPipeline
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline
from transformers.utils import ModelOutput

from .calibration_lumbarclip import calibrated_probabilities, prediction_sets, prompt_texts, zero_shot_logits
from .configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from .image_processing_lumbarclip import read_image

IN_EVERY_SET = 1.0


class _ReadsImages:
    """Opens images of any depth."""

    image_processor: Any
    model: Any

    def preprocess(self, image: Any, timeout: float | None = None, **image_processor_kwargs: Any) -> Any:
        """Make `pixel_values`."""
        return self.image_processor(read_image(image, timeout), return_tensors="pt", **image_processor_kwargs)


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
            **kwargs: `batch_size`, `num_workers`, `timeout` of URLs; `images`, an alias of `image`.

        Returns:
            For each image a list of dicts, the highest score first: `label`; `score`, its probability among the
            candidates, or of each finding on its own; if calibrated, `answer`: True or False if the prediction set
            leaves one choice, None where the model abstains. For research use only.

        Raises:
            ValueError: If there are no candidates and no calibration, fewer than two candidates, or no `{}` in the
                template.
        """
        image = kwargs.pop("images", image)
        if image is None:
            raise ValueError("Cannot classify without an image: pass one, or a list.")
        asked, is_calibrated = self._questions(candidate_labels, hypothesis_template)
        with torch.no_grad():
            texts = self.processor(text=prompt_texts(asked), return_tensors="pt").to(self.device)
            text_embeds = self.model.get_text_features(**texts).pooler_output
        return Pipeline.__call__(
            self, image, asked=asked, is_calibrated=is_calibrated, text_embeds=text_embeds, **kwargs
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
        asked: ZeroShotCalibration | None = None,
        is_calibrated: bool = False,
        text_embeds: Tensor | None = None,
    ) -> Any:
        preprocess = {} if timeout is None else {"timeout": timeout}
        if asked is None:  # when the pipeline is made
            return preprocess, {}, {}
        forward = {"asked": asked, "text_embeds": text_embeds}
        return preprocess, forward, {"asked": asked, "is_calibrated": is_calibrated}

    def _forward(  # type: ignore[override]
        self, model_inputs: Any, asked: ZeroShotCalibration, text_embeds: Tensor
    ) -> dict[str, Tensor]:
        image_embeds = self.model.get_image_features(**model_inputs).pooler_output
        return {"logits": zero_shot_logits(image_embeds, text_embeds, self.model.inverse_temperature, asked)}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Tensor], asked: ZeroShotCalibration, is_calibrated: bool
    ) -> list[dict[str, Any]]:
        """Turn logits into answer entries."""
        # float64, as the thresholds were fitted: float32 has no number between 1 - 6e-8 and 1.
        probabilities = calibrated_probabilities(model_outputs["logits"].double(), asked)
        sets = prediction_sets(probabilities, asked)
        entries = []
        for question, scores, held in zip(asked.questions, probabilities[0].tolist(), sets[0].tolist(), strict=True):
            entries += _entries(question, scores, held if is_calibrated else None)
        return sorted(entries, key=lambda entry: -entry["score"])


def _entries(question: CalibratedQuestion, scores: list[float], held: list[bool] | None) -> list[dict[str, Any]]:
    """List an entry for each exclusive class; for a finding, only that of its second choice, presence."""
    entries: list[dict[str, Any]] = [
        {"score": score, "label": choice} for score, choice in zip(scores, question.choices, strict=True)
    ]
    if held is not None:
        for entry, is_held in zip(entries, held, strict=True):
            entry["answer"] = is_held if sum(held) == 1 else None
    return entries if question.label is None else [{**entries[1], "label": question.label}]


class LumbarCLIPImageFeaturePipeline(_ReadsImages, ImageFeatureExtractionPipeline):  # type: ignore[misc]
    """Embed an image: unit-length `image_embeds` (1, D), or with `pool=True` the tower's pooled output (1, d_I)."""

    def _forward(self, model_inputs: Any) -> ModelOutput:  # type: ignore[override]
        output = self.model(**model_inputs)
        return ModelOutput(image_embeds=output.image_embeds, pooler_output=output.image_features)


class LumbarCLIPTextFeaturePipeline(FeatureExtractionPipeline):
    """Embed each text, truncated to the processor's `max_length`, as unit-length `text_embeds` (1, D)."""

    _load_processor = True
    _load_tokenizer = False  # the processor has it
    model: Any
    processor: Any

    def preprocess(self, inputs: Any, **tokenize_kwargs: Any) -> Any:  # type: ignore[override]
        """Make `input_ids` and `attention_mask`."""
        return self.processor(text=inputs, return_tensors="pt", **tokenize_kwargs)

    def _forward(self, model_inputs: Any) -> ModelOutput:  # type: ignore[override]
        return ModelOutput(text_embeds=self.model.get_text_features(**model_inputs).pooler_output)


class LumbarCLIPImageClassificationPipeline(_ReadsImages, ImageClassificationPipeline):  # type: ignore[misc]
    """Score every class or finding with a fine-tuned `LumbarCLIPForImageClassification`; refuse other models."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.model.config.is_classifier:
            raise ValueError(
                "This checkpoint has no classification head, and a new one would answer at random: fine-tune it with "
                'train/finetune_classification.py, or use pipeline("zero-shot-image-classification").'
            )

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, function_to_apply: Any = None, top_k: int | None = None
    ) -> Any:
        """Turn logits into answer entries: all of them (transformers: five), or the `top_k` highest."""
        top_k = self.model.config.num_labels if top_k is None else top_k
        return super().postprocess(model_outputs, function_to_apply, top_k)
