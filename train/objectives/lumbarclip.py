"""The LumbarCLIP objective on the pairs of all processes."""

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import lumbarclip_loss
from train.gathering import gather_with_gradient


def lumbarclip_objective(output: LumbarCLIPOutput, labels: Tensor | None, config: LumbarCLIPConfig) -> Tensor:
    """Gather embeddings and labels, and compute the soft contrastive loss of the whole batch.

    Args:
        output: What the model returned for this process's pairs.
        labels: Their multi-hot classes. Shape (n, K); None: a pair matches only itself.
        config: Configuration of the model, for the label temperature and alpha.

    Returns:
        The loss in nats, equal on all processes. Scalar.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 7.
    """
    image_embeds, text_embeds, augmented = output.image_embeds, output.text_embeds, output.augmented_text_embeds
    assert image_embeds is not None and text_embeds is not None and output.inverse_temperature is not None
    return lumbarclip_loss(
        gather_with_gradient(image_embeds),
        gather_with_gradient(text_embeds),
        None if augmented is None else gather_with_gradient(augmented),
        output.inverse_temperature,
        None if labels is None else gather_with_gradient(labels),
        config.label_temperature,
        config.alpha,
    )
