"""LumbarCLIP: contrastive learning with soft targets from the labels."""

from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import lumbarclip_loss
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient


class LumbarCLIPObjective(Objective):
    """The soft contrastive loss on all pairs; a pair without classes matches only itself.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 7; see `lumbarclip_loss`.
    """

    inputs = frozenset({"augmented_texts", "labels_if_any", "label_temperature"})

    def target_temperature(self, inverse_temperature: float) -> float:
        return self.settings.label_temperature or 1 / inverse_temperature

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        image_embeds, text_embeds, inverse_temperature = gather_pairs(pairs.output, gather)
        augmented = pairs.output.augmented_text_embeds
        augmented = None if augmented is None else gather(augmented)
        labels = None if pairs.labels is None else gather(pairs.labels)
        temperature, alpha = self.settings.label_temperature, self.settings.alpha
        return lumbarclip_loss(image_embeds, text_embeds, augmented, inverse_temperature, labels, temperature, alpha)
