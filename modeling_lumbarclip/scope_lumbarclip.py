"""The scope of a checkpoint: what it was trained on, and whether an image is of that kind.

An image is outside if its header names another plane, sequence or anatomy, or if its features z_I are further from
those of the training images than nearly all of validation patients were. `LumbarCLIPConfig.scope` has the words and
the threshold; the statistics of the features are buffers of the model, next to its weights.

Shapes: B images, d_I width of the vision tower, R directions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from .calibration_lumbarclip import UnreadableWeightsError, current_digest, module_digests
from .configuration_lumbarclip import Scope

logger = logging.get_logger(__name__)

SCOPE_PREFIX = "scope."  # of the buffers, which are no weights: digests of weights leave them out
BITS_OF_NAN = 0x7FC00000  # statistics that were not loaded hold every image back
UNKNOWN = "unknown"  # what a header writes if it does not say
HEADER_FACTS = ("plane", "sequence", "anatomy")


class ScopeStatistics(nn.Module):
    """Mean and covariance of the evened features of the training images, with R directions of their own variance.

    The variance across all other directions is one number, so that a tower of width 2048 needs 2 MB. The buffers hold
    the bits of float32 numbers as integers: a model in half precision keeps them exact.

    Args:
        width: d_I.
        num_directions: R, less than d_I.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor

    def __init__(self, width: int, num_directions: int) -> None:
        super().__init__()
        shapes = {
            "mean": (width,),
            "directions": (num_directions, width),  # of unit length
            "variances": (num_directions + 1,),  # the last one: across all other directions
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.full(shape, BITS_OF_NAN, dtype=torch.int32))

    def load(self, numbers: Mapping[str, Tensor]) -> None:
        """Take over `mean`, `directions` and `variances`, float32."""
        for name, buffer in self.named_buffers():
            buffer.copy_(_bits(numbers[name]))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Compute how far features z_I (B, d_I) are from the training images.

        Returns:
            Mahalanobis distance divided by the root of d_I, about 1 for a training image. Shape (B,), float32.
        """
        with torch.autocast(features.device.type, enabled=False):
            mean, directions, variances = (_numbers(value).to(features.device) for value in self.buffers())
            centred = evened(features.float()) - mean
            along = centred @ directions.T  # (B, R)
            rest = centred - along @ directions
            squares = (along.square() / variances[:-1]).sum(-1) + rest.square().sum(-1) / variances[-1]
            return (squares / features.shape[-1]).sqrt()


def evened(features: Tensor) -> Tensor:
    """Take the root of each feature and keep its sign: features after a ReLU are skewed, and a covariance is not."""
    return features.sign() * features.abs().sqrt()


class WithScope:
    """What LumbarCLIP's models share: the scope of their configuration, and the statistics that go with it.

    Attributes:
        scope: The statistics; None without a check of features.
    """

    config: Any
    vision_model: PreTrainedModel
    scope: ScopeStatistics | None

    def set_scope(self, scope: Scope | None, statistics: Mapping[str, Tensor] | None = None) -> None:
        """Replace the scope; None removes it.

        Args:
            scope: What the weights were trained on.
            statistics: `mean`, `directions` and `variances` as in `ScopeStatistics`, float32, if the scope has a check.

        Raises:
            ValueError: If only one of check and statistics is given.
        """
        if scope is not None and (scope.check is None) != (statistics is None):
            raise ValueError(
                "The check of a scope and the statistics of the features go together: pass both or neither."
            )
        if scope is not None:
            scope = replace(scope, weights=module_digests(self.vision_model, self.config))
        self.config.scope = None if scope is None else asdict(scope)
        self.scope = None if statistics is None else build_statistics(self.config, len(statistics["mean"]))
        if self.scope is not None and statistics is not None:
            self.scope.to(self.device)  # type: ignore[attr-defined]  # of the model
            self.scope.load(statistics)

    def scope_problem(self) -> str | None:
        """Say why the scope of the configuration is not that of this model's vision tower; None if it is, or unknown.

        Takes as long as `calibration_problem`, and notices the same changes.
        """
        weights = (self.config.scope or {}).get("weights")
        if not weights:
            return None
        try:
            if current_digest(self.vision_model, self.config) in weights:
                return None
        except UnreadableWeightsError:  # sharded, offloaded or packed
            return None
        return (
            "The scope of this checkpoint is that of another vision tower. This one was trained further, has adapters, "
            "or was exchanged, so nothing says what it was trained on: no image is held back."
        )

    def scope_reasons(
        self, image_features: Tensor, headers: Sequence[Mapping[str, str] | None] | None = None
    ) -> list[str | None]:
        """Say why images are outside the scope; None for an image inside, and if the checkpoint has no scope.

        Args:
            image_features: Pooled output z_I of the vision tower. Shape (B, d_I).
            headers: What the headers of the images say, see `header_reason`; None where an image has none.
        """
        if (problem := self.scope_problem()) is not None:
            logger.warning_once(problem)
        if self.config.scope is None or problem is not None:
            return [None] * len(image_features)
        scope = Scope.from_dict(self.config.scope)
        distances = [None] * len(image_features) if self.scope is None else self.scope(image_features).tolist()
        headers = [None] * len(image_features) if headers is None else headers
        return [
            header_reason(scope, header or {}) or feature_reason(scope, distance)
            for header, distance in zip(headers, distances, strict=True)
        ]


def build_statistics(config: Any, width: int) -> ScopeStatistics | None:
    """Make room for the statistics that go with a configuration, for a vision tower of this width; None without any."""
    check = None if config.scope is None else Scope.from_dict(config.scope).check
    return None if check is None else ScopeStatistics(width, check.num_directions)


def header_reason(scope: Scope, header: Mapping[str, str]) -> str | None:
    """Say why a header is outside the scope; None if it is inside or does not say.

    Args:
        scope: Of the checkpoint.
        header: `plane`, `sequence` and `anatomy` in the words of the scope; missing, empty or `unknown` if the header
            does not say.

    Raises:
        TypeError: If it is no mapping of strings, such as one header for each image.
        ValueError: If it has other fields.

    Example:
        >>> scope = Scope(planes=["axial"], sequences=["T2"], anatomy="lumbar spine", is_synthetic=True, num_patients=9)
        >>> header_reason(scope, {"plane": "sagittal", "sequence": "T2"})
        'Trained on drawn axial T2 slices of the lumbar spine (9 drawn patients); this is a sagittal T2 slice.'
    """
    if not isinstance(header, Mapping) or not all(isinstance(part, str | None) for part in (*header, *header.values())):
        raise TypeError(f"A header is a dictionary of strings, such as {{'plane': 'axial'}}; got {header!r}.")
    if unknown := sorted(set(header) - set(HEADER_FACTS)):
        raise ValueError(f"A header has the fields {', '.join(HEADER_FACTS)}; got {', '.join(unknown)}.")
    said = {name: value for name, value in header.items() if value and _key(value) != UNKNOWN}
    anatomies = [scope.anatomy] if scope.anatomy else []
    trained = {"plane": scope.planes, "sequence": scope.sequences, "anatomy": anatomies}
    if all(not trained[name] or _key(value) in map(_key, trained[name]) for name, value in said.items()):
        return None
    return f"Trained on {scope_in_words(scope)}; this is {_header_in_words(said)}."


def feature_reason(scope: Scope, distance: float | None) -> str | None:
    """Say why features at this distance from the training images are outside the scope; None if they are inside.

    Without a check, or a distance, nothing is outside.

    Example:
        >>> counts = {"num_directions": 8, "num_images": 60, "num_patients": 20}
        >>> trained = {"planes": ["axial"], "sequences": [], "anatomy": None, "is_synthetic": False, "num_patients": 9}
        >>> scope = Scope.from_dict(trained | {"check": {"threshold": 1.2, "false_alarm_rate": 0.05, **counts}})
        >>> feature_reason(scope, 3.14159)
        'Trained on axial slices (9 patients); this is an image unlike them (distance 3.14, at most 1.20 inside).'
    """
    if scope.check is None or distance is None or distance <= scope.check.threshold:
        return None
    how = f"unlike them (distance {distance:.2f}, at most {scope.check.threshold:.2f} inside)"
    if math.isnan(distance):
        how = "that cannot be compared with them: its features, or the statistics of the checkpoint, contain NaN"
    return f"Trained on {scope_in_words(scope)}; this is an image {how}."


def joined_reasons(*reasons: str | None) -> str | None:
    """Join the reasons why there is no answer; None if there are none."""
    return " ".join(filter(None, reasons)) or None


def scope_in_words(scope: Scope) -> str:
    """Say what a checkpoint was trained on.

    Example:
        >>> scope = Scope(planes=[], sequences=["other"], anatomy="knee", is_synthetic=False, num_patients=1)
        >>> scope_in_words(scope)
        'images of the knee (1 patient)'
    """
    drawn = ["drawn"] if scope.is_synthetic else []
    sequences = _listed([_sequence_in_words(name) for name in scope.sequences if name != "other"])
    are_slices = sequences or (scope.planes and not scope.sequences)  # a radiograph has a plane, and no MRI sequence
    facts = [*drawn, _listed(scope.planes), sequences, "slices" if are_slices else "images"]
    of_body = f" of the {scope.anatomy}" if scope.anatomy else ""
    patients = " ".join([str(scope.num_patients), *drawn, "patient" if scope.num_patients == 1 else "patients"])
    return f"{' '.join(filter(None, facts))}{of_body} ({patients})"


def _header_in_words(said: Mapping[str, str]) -> str:
    is_other = said.get("sequence") == "other"
    sequence = "" if is_other else _sequence_in_words(said.get("sequence", ""))
    words = " ".join(filter(None, [said.get("plane"), sequence, "slice"]))
    of_body = f" of the {said['anatomy']}" if "anatomy" in said else ""
    of_sequence = ", and no T1, T2, STIR or PD" if is_other else ""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}{of_body}{of_sequence}"


def _key(name: str) -> str:
    return name.casefold().replace(" ", "_")


def _sequence_in_words(name: str) -> str:
    return name.replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _bits(numbers: Tensor) -> Tensor:
    return numbers.to(torch.float32).contiguous().view(torch.int32)


def _numbers(bits: Tensor) -> Tensor:
    return bits.view(torch.float32)
