"""Training objectives, one file each, all with the signature of `Objective`."""

from collections.abc import Callable

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPOutput
from train.objectives.lumbarclip import lumbarclip_objective

Objective = Callable[[LumbarCLIPOutput, Tensor | None, LumbarCLIPConfig], Tensor]

OBJECTIVES: dict[str, Objective] = {"lumbarclip": lumbarclip_objective}

__all__ = ["OBJECTIVES", "Objective"]
