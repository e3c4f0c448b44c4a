"""CLIP: each image has one right report in the batch, and each report one right image."""

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import info_nce_loss
from train.objectives.objective import Gather, Objective, gather_pairs
from train.training.distributed import gather_with_gradient


class CLIPObjective(Objective):
    """Symmetric InfoNCE on all pairs, whatever their classes.

    Source:
        CLIP, Radford et al. 2021, figure 3; see `info_nce_loss`.

    Relations:
        Half of the LumbarCLIP loss without labels and without rephrasings. ConVIRT weighs its two directions.
    """

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        """See `Objective.forward`."""
        return info_nce_loss(*gather_pairs(output, gather))
