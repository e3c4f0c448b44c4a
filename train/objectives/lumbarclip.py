"""LumbarCLIP: soft contrast of images with reports and with their rephrasings."""

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import lumbarclip_loss
from train.objectives.objective import Gather, Objective, gather_pairs
from train.training.distributed import gather_with_gradient


class LumbarCLIPObjective(Objective):
    """The soft contrastive loss on all pairs; a pair without classes matches only itself.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 7; see `lumbarclip_loss`.
    """

    inputs = frozenset({"augmented_texts", "labels_if_any"})
    has_label_temperature = True

    def __init__(
        self,
        model: LumbarCLIPModel,
        train_labels: Tensor | None = None,
        *,
        alpha: float = 0.5,
        label_temperature: float | None = None,
    ) -> None:
        super().__init__(model, train_labels)
        self.alpha, self.label_temperature = alpha, label_temperature

    def target_temperature(self, inverse_temperature: float) -> float:
        """Return the label temperature, or that of the logits where it is not set."""
        return self.label_temperature or 1 / inverse_temperature

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        """See `Objective.forward`."""
        image_embeds, text_embeds, inverse_temperature = gather_pairs(output, gather)
        augmented = output.augmented_text_embeds
        return lumbarclip_loss(
            image_embeds,
            text_embeds,
            None if augmented is None else gather(augmented),
            inverse_temperature,
            None if labels is None else gather(labels),
            self.label_temperature,
            self.alpha,
        )
