"""CLIP: contrastive learning in which an image matches only its own report."""

from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import info_nce_loss
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient


class CLIPObjective(Objective):
    """Symmetric InfoNCE on all pairs, whatever their classes.

    Source:
        CLIP, Radford et al. 2021, figure 3; see `info_nce_loss`.
    """

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        return info_nce_loss(*gather_pairs(pairs.output, gather))
