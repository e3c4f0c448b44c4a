"""Calibrated zero-shot answers: from the embeddings of images and prompts to probabilities, sets and abstention.

The checkpoint stores the numbers (`LumbarCLIPConfig.calibration`): for each question, a temperature and the thresholds
of its prediction sets, fitted on patients that the model was not trained on. They are valid for the stored prompts, for
patients like those they were fitted on, and for the weights they were fitted on: those are recorded as digests, and a
model with other weights gives scores without answers.

Shapes: B images, U texts, D width of the shared space, Q questions, C choices.
"""

import hashlib
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_lumbarclip import CalibratedQuestion, LumbarCLIPConfig, ZeroShotCalibration

IN_EVERY_SET = 1.0  # threshold of a choice that nothing rules out
DIGESTS = "weights"  # in `fitted_on`
# Casts that do not make other weights: to half precision, also of weights that were saved in the other one.
BF16, FP16 = torch.bfloat16, torch.float16
CASTS: tuple[tuple[torch.dtype, ...], ...] = ((), (BF16,), (FP16,), (BF16, FP16), (FP16, BF16))
NOT_FITTED = ("scope.",)  # statistics that no answer is computed from
WRAPPERS = re.compile(r"(_orig_mod|_checkpoint_wrapped_module)\.")  # torch.compile, activation checkpointing
SAMPLED = 256  # values of each tensor that are compared before its digest is computed again
FIT_AGAIN = (
    "Fit it again on validation patients with train.evaluation.checkpoint_calibration.fit_checkpoint_calibration."
)
FINE_TUNE_AGAIN = "Fine-tune again with train/finetune_classification.py."  # which fits the temperatures

_digests: "weakref.WeakKeyDictionary[nn.Module, tuple[bytes, str]]" = weakref.WeakKeyDictionary()


def prompt_texts(calibration: ZeroShotCalibration) -> list[str]:
    """List the sentences of all questions and choices, in the order that `zero_shot_logits` expects."""
    return [text for question in calibration.questions for texts in question.prompts for text in texts]


def zero_shot_logits(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, calibration: ZeroShotCalibration
) -> Tensor:
    """Compare images with the choices of each question.

    Embeddings have unit length; those of texts (U, D) belong to `prompt_texts`.

    Returns:
        Similarities to the mean prompt of each choice, times 1/τ; not calibrated yet. Shape (B, Q, C), float32.

    Raises:
        ValueError: If there is not one embedding for each prompt.

    Source:
        CLIP, Radford et al. 2021, section 3.1.4: ensembles are built over embeddings.
    """
    sizes = [len(texts) for question in calibration.questions for texts in question.prompts]
    if len(text_embeds) != sum(sizes):
        raise ValueError(
            f"The calibration has {sum(sizes)} prompts and there are {len(text_embeds)} text embeddings; encode "
            "all texts of `processor.zero_shot_texts(model.config.calibration)`, in their order."
        )
    ensembles = torch.stack([embeds.mean(dim=0) for embeds in text_embeds.float().split(sizes)])  # (Q C, D)
    similarities = image_embeds.float() @ F.normalize(ensembles, dim=-1).T
    return (inverse_temperature * similarities).unflatten(1, (len(calibration.questions), -1))


def calibrated_probabilities(logits: Tensor, calibration: ZeroShotCalibration) -> Tensor:
    """Divide `zero_shot_logits` (B, Q, C) by the temperature of their question, and take the softmax over its choices.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    temperatures = logits.new_tensor([question.temperature for question in calibration.questions])
    return (logits / temperatures[:, None]).softmax(dim=-1)


def prediction_sets(probabilities: Tensor, calibration: ZeroShotCalibration) -> Tensor:
    """Mark the choices that cannot be ruled out, from `calibrated_probabilities` (B, Q, C).

    Each true choice is in the set with probability `calibration.target_coverage` or more, on a random image of a new
    patient like those of the calibration. A set without exactly one choice gives no answer.

    Returns:
        Whether the set contains the choice. Shape (B, Q, C), bool.

    Source:
        Angelopoulos & Bates, A Gentle Introduction to Conformal Prediction, 2021, sections 1 and 4.2.
    """
    thresholds = probabilities.new_tensor([question.score_thresholds for question in calibration.questions])
    return 1 - probabilities <= thresholds


def readable_answers(
    probabilities: Tensor, sets: Tensor, calibration: ZeroShotCalibration, reasons: Sequence[str | None] | None = None
) -> list[list[dict[str, Any]]]:
    """Turn `calibrated_probabilities` and `prediction_sets`, both (B, Q, C), into answers.

    Args:
        probabilities: Shape (B, Q, C).
        sets: Shape (B, Q, C), bool.
        calibration: The questions.
        reasons: For each image, why it gets no answer; None: it gets one.

    Returns:
        For each image and question: `label`, the finding, or None where the choices are exclusive classes;
        `probabilities` by choice; `prediction_set`, the choices that remain; `answer`, the only one that remains, or
        None where the model abstains; `reason`, why no answer may be given, else None.
    """
    reasons = [None] * len(probabilities) if reasons is None else reasons

    def readable(
        question: CalibratedQuestion, probabilities: list[float], held: list[bool], reason: str | None
    ) -> dict[str, Any]:
        remaining = [choice for choice, is_held in zip(question.choices, held, strict=True) if is_held]
        return {
            "label": question.label,
            "probabilities": dict(zip(question.choices, probabilities, strict=True)),
            "prediction_set": remaining,
            "answer": remaining[0] if len(remaining) == 1 and reason is None else None,
            "reason": reason,
        }

    return [
        [readable(*of_question, reason) for of_question in zip(calibration.questions, scores, held, strict=True)]
        for scores, held, reason in zip(probabilities.tolist(), sets.tolist(), reasons, strict=True)
    ]


def without_promises(calibration: ZeroShotCalibration) -> ZeroShotCalibration:
    """Keep the questions, with the raw logits' probabilities, and every choice in each prediction set."""
    questions = [
        replace(question, temperature=1.0, score_thresholds=[IN_EVERY_SET] * len(question.choices))
        for question in calibration.questions
    ]
    return replace(calibration, questions=questions)


def calibration_problem(model: nn.Module) -> str | None:
    """Say why the calibration in a model's configuration does not hold for its weights.

    That of a classifier is its `class_temperatures`. Adapters, merged or not, are part of the weights; a cast to half
    precision, a device and `torch.compile` do not matter. Takes about 10 ms for 135 million parameters, and 0.4 s when
    they have changed since the last call.

    Args:
        model: A LumbarCLIP model, also wrapped by peft, `torch.compile` or a parallel module.

    Returns:
        A reason for people; None if it holds, or if there is no calibration.
    """
    ours = lumbarclip_in(model)
    if hasattr(ours, "text_model"):
        return None if ours.config.calibration is None else fitted_on_problem(_fitted_on(ours.config), ours)
    if ours.config.class_temperatures is None:
        return None
    return fitted_on_problem(ours.config.class_temperatures_fitted_on, ours, FINE_TUNE_AGAIN)


def fitted_on_problem(
    fitted_on: Mapping[str, Any] | None, model: nn.Module | None, way_out: str = FIT_AGAIN
) -> str | None:
    """Compare the digests in `fitted_on` with a model's weights, as `calibration_problem` does."""
    digests = (fitted_on or {}).get(DIGESTS)
    if not digests:
        return (
            "The calibration does not record which weights it was fitted on, as those of earlier versions, so nothing "
            f"shows that it holds for these. {way_out}"
        )
    if model is None:
        return (
            "The output does not tell which model made it, so the calibration cannot be checked. Pass the model: "
            "post_process_zero_shot(output, calibration, model=model)."
        )
    ours = lumbarclip_in(model)
    try:
        digest = current_digest(ours, ours.config)
    except UnreadableWeightsError as error:
        return f"Whether the calibration was fitted on these weights cannot be checked: {error}."
    if digest in digests:
        return None
    return (
        "The calibration was fitted on other weights. These were trained further, have adapters, or were merged, "
        f"quantised or exchanged. {way_out}"
    )


def weights_digests(model: nn.Module) -> list[str]:
    """Digest the weights that a calibration is being fitted on, to keep as `weights` in its `fitted_on`.

    Returns:
        Digests of the weights as they are, and rounded to bfloat16 and float16: models cast later have one of them.

    Raises:
        UnreadableWeightsError: If the weights are elsewhere: sharded, offloaded or packed.
    """
    ours = lumbarclip_in(model)
    return module_digests(ours, ours.config)


def module_digests(module: nn.Module, config: Any) -> list[str]:
    """Digest the weights of a module of a model with this configuration, as `weights_digests` does."""
    weights = _weights(module)
    return [_digest(weights, config, cast) for cast in CASTS]


def fields_of_other_weights(model: nn.Module, state_dict: Mapping[str, Any] | None = None) -> list[str]:
    """List the calibrations in a model's configuration that were fitted on other weights than `state_dict`.

    Args:
        model: A LumbarCLIP model.
        state_dict: The weights to be saved; None: those of the model.
    """
    config: Any = model.config
    fitted_on = {"calibration": _fitted_on(config), "class_temperatures": config.class_temperatures_fitted_on}
    fitted = {name: of_field[DIGESTS] for name, of_field in fitted_on.items() if of_field and of_field.get(DIGESTS)}
    if not fitted:
        return []
    try:
        digest = (
            current_digest(model, config) if state_dict is None else _digest(_comparable(state_dict.items()), config)
        )
    except UnreadableWeightsError:
        return []  # whoever loads them can compare
    return [name for name, digests in fitted.items() if digest not in digests]


class UnreadableWeightsError(ValueError):
    """Weights whose values are not in this process: sharded, offloaded or packed."""


class Origin:
    """Which model made an output. Forgotten where the output is pickled or copied to another process."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self._model = None if model is None else weakref.ref(model)

    def __reduce__(self) -> tuple[type["Origin"], tuple[()]]:
        return Origin, ()

    @property
    def model(self) -> nn.Module | None:
        """The model, while it lives."""
        return None if self._model is None else self._model()


def origin_of(output: Any) -> nn.Module | None:
    """Return the model that made an output; None if that is not known."""
    # Not by its class: transformers loads the code of a checkpoint's processor and of its model as two packages.
    return getattr(getattr(output, "origin", None), "model", None)


def lumbarclip_in(model: nn.Module) -> Any:
    """Find the LumbarCLIP model in a model that peft, `torch.compile` or a parallel module wraps; None without one."""
    for module in model.modules():
        # By the class: wrappers pass on every other attribute. A checkpoint's code has a configuration of its own.
        if getattr(getattr(type(module), "config_class", None), "model_type", None) == LumbarCLIPConfig.model_type:
            return module
    return None


def _fitted_on(config: Any) -> Mapping[str, Any] | None:
    return None if config.calibration is None else config.calibration.get("fitted_on")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Collect what `state_dict` would, without its hooks, which gather the shards of all processes."""
    named = (
        (f"{prefix}.{name}" if prefix else name, values)
        for prefix, module in model.named_modules()
        for name, values in (*module._parameters.items(), *module._buffers.items())
        if values is not None and name not in module._non_persistent_buffers_set
    )
    return _comparable(named)


def _comparable(named: Iterable[tuple[str, Any]]) -> dict[str, Tensor]:
    weights = {}
    for name, values in named:
        if name.startswith(NOT_FITTED):
            continue
        if type(values) not in (Tensor, nn.Parameter) or values.is_meta or values.is_quantized:
            raise UnreadableWeightsError(f"{name} is sharded, offloaded or packed ({type(values).__name__})")
        weights[WRAPPERS.sub("", name)] = values.detach()
    return weights


@torch.no_grad()
def current_digest(module: nn.Module, config: Any) -> str:
    """Digest a module's weights as they are, or return the last digest if they are the same tensors, unchanged.

    Args:
        module: A model with this configuration, or a part of it.
        config: Of the model.

    Raises:
        UnreadableWeightsError: If the weights are elsewhere: sharded, offloaded or packed.
    """
    weights = _weights(module)
    seen = _glance(weights, config)
    known = _digests.get(module)
    if known is None or known[0] != seen:
        known = _digests[module] = seen, _digest(weights, config)
    return known[1]


def _glance(weights: Mapping[str, Tensor], config: Any) -> bytes:
    """Digest where the weights are, how often they changed, and samples of them: `p.data` changes without a count."""
    glance = hashlib.sha256(_settings(config))
    samples: dict[Any, list[Tensor]] = {}
    for name, values in weights.items():
        version = None if values.is_inference() else values._version
        glance.update(f"{name} {values.data_ptr()} {version} {values.dtype} {tuple(values.shape)}".encode())
        step = max(1, values.numel() // SAMPLED)
        samples.setdefault((values.device, values.dtype), []).append(values.reshape(-1)[::step])
    for of_kind in samples.values():
        glance.update(_bytes(torch.cat(of_kind)))
    return glance.digest()


@torch.no_grad()
def _digest(weights: Mapping[str, Tensor], config: Any, casts: Sequence[torch.dtype] = ()) -> str:
    """Digest values and shapes by name, floating-point values as after `casts`, whatever their type and device."""
    digest = hashlib.sha256(_settings(config))
    for name in sorted(weights):
        values = weights[name]
        if values.is_floating_point():
            for dtype in casts:
                values = values.to(dtype)
            values = values.float()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(_bytes(values))
    return digest.hexdigest()[:32]


def _settings(config: Any) -> bytes:
    """Encode the fields of the configuration that change outputs and no shape."""
    return repr((config.projection, config.text_pooling, float(config.max_inverse_temperature))).encode()


def _bytes(values: Tensor) -> Any:
    return values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
