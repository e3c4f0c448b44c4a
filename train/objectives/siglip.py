"""SigLIP: every pair is judged on its own, as a match or not."""

from typing import Any

import torch
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.losses_lumbarclip import sigmoid_loss
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient

# Nearly all of the N² pairs are wrong ones: the first step would only correct that.
INITIAL_BIAS = -10.0


class SigLIPObjective(Objective):
    """The sigmoid loss on all pairs, with a learned bias on the logits.

    Source:
        SigLIP, Zhai et al. 2023 (arXiv 2303.15343), equation 1; see `sigmoid_loss`. Its initial temperature of 0.1 is
        a setting of the run (`initial_temperature`). The bias, initially -10, belongs to the objective, not to the
        model: rankings do not depend on it.
    """

    def __init__(self, model: LumbarCLIPModel, *settings: Any) -> None:
        super().__init__(model, *settings)
        self.bias = nn.Parameter(torch.tensor(INITIAL_BIAS))

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        return sigmoid_loss(*gather_pairs(pairs.output, gather), self.bias)
