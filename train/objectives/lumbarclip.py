"""LumbarCLIP: contrastive learning with soft targets from the labels."""

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import lumbarclip_loss
from train.objectives.objective import Gather, Objective, gather_pairs
from train.training.distributed import gather_with_gradient


class LumbarCLIPObjective(Objective):
    """The soft contrastive loss on all pairs; a pair without classes matches only itself.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 7; see `lumbarclip_loss`.
    """

    inputs = frozenset({"augmented_texts", "labels_if_any", "label_temperature"})

    def target_temperature(self, inverse_temperature: float) -> float:
        return self.label_temperature or 1 / inverse_temperature

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        image_embeds, text_embeds, inverse_temperature = gather_pairs(output, gather)
        augmented = None if output.augmented_text_embeds is None else gather(output.augmented_text_embeds)
        labels = None if labels is None else gather(labels)
        return lumbarclip_loss(
            image_embeds, text_embeds, augmented, inverse_temperature, labels, self.label_temperature, self.alpha
        )
