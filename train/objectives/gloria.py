"""GLoRIA: contrast of whole images with whole reports, and of image regions with words.

Shapes: N images, M texts, D width of the local embeddings, P regions of an image, T words of a text.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.losses_lumbarclip import contrast_both_ways, info_nce_loss
from modeling_lumbarclip.towers_lumbarclip import hidden_width
from modeling_lumbarclip.vision_tower_lumbarclip import patch_width
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs, in_full_precision
from train.training.distributed import gather_with_gradient

# τ1, τ2 and τ3 of the paper, factors as in its authors' code.
ATTENTION_SHARPNESS = 4.0
WORD_SHARPNESS = 5.0
SCORE_SHARPNESS = 10.0
# Numbers in the attention of a block of texts, its largest tensor: 64 MiB.
MAX_BLOCK_NUMBERS = 16_777_216


def word_region_scores(
    regions: Tensor, words: Tensor, word_mask: Tensor, max_block_numbers: int = MAX_BLOCK_NUMBERS
) -> Tensor:
    r"""Score every text against every image: how well do the regions match each word?

    A word w attends to the regions r of an image, their weighted sum is its context c, and the cosines of the words
    with their contexts are pooled by a soft maximum:

    $$a_{tp} = \mathrm{softmax}_p(\tau_1\, w_t \cdot r_p), \qquad c_t = \sum_p a_{tp} r_p, \qquad
      Z = \log \sum_t e^{\tau_2 \cos(c_t, w_t)}$$

    The N × M × T × P attention is never held in memory: texts come in blocks, which backward recomputes.

    Args:
        regions: Unit-length embeddings of image regions. Shape (N, P, D), float.
        words: Unit-length embeddings of words. Shape (M, T, D), float.
        word_mask: True for words, False for padding and special tokens. Shape (M, T), bool or integer.
        max_block_numbers: Largest attention of a block of texts; a block has at least one text.

    Returns:
        The scores Z. Shape (N, M), float32 (float64 for float64 inputs).

    Raises:
        ValueError: If the shapes do not fit, or a text has no word.

    Source:
        GLoRIA, Huang et al. ICCV 2021, equations 3 to 6. Deviations: the local embeddings have unit length, which
        bounds $\tau_1\, w \cdot r$, where the authors' code takes a softmax over the words before that over the
        regions; word pieces count as words. As in the paper a sum over words: longer texts score higher.

    Example:
        >>> regions, words = torch.eye(2)[None], torch.tensor([[[1.0, 0.0]]])
        >>> word_region_scores(regions, words, torch.tensor([[True]]))
        tensor([[4.9992]])
    """
    word_mask = word_mask.bool()
    if regions.ndim != 3 or words.ndim != 3 or regions.shape[2] != words.shape[2] or word_mask.shape != words.shape[:2]:
        raise ValueError(
            "regions, words and word_mask must have shapes (images, regions, width), (texts, words, width) and "
            f"(texts, words); got {tuple(regions.shape)}, {tuple(words.shape)} and {tuple(word_mask.shape)}."
        )
    if not word_mask.any(dim=1).all():
        text = int((~word_mask.any(dim=1)).nonzero()[0])
        raise ValueError(f"Text {text} has no word: its word_mask is all False. Leave out empty reports.")
    regions, words = in_full_precision(regions), in_full_precision(words)
    (num_images, num_regions, _), num_words = regions.shape, words.shape[1]
    texts_at_once = max(1, max_block_numbers // (num_images * num_words * num_regions))
    with torch.autocast(regions.device.type, enabled=False):
        blocks = [
            checkpoint(_scores_of_block, regions, *block, use_reentrant=False, preserve_rng_state=False)
            for block in zip(words.split(texts_at_once), word_mask.split(texts_at_once), strict=True)
        ]
        return torch.cat(blocks, dim=1)


def _scores_of_block(regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    similarity = torch.einsum("npd,mtd->nmtp", regions, words)
    attention = (ATTENTION_SHARPNESS * similarity).softmax(dim=3)
    # The cosine of context and word without the contexts, whose D is usually larger than P: c·w = Σ_p a_p (r_p·w) and
    # |c|² = Σ_pq a_p a_q (r_p·r_q).
    context_dot_word = (attention * similarity).sum(dim=3)  # (N, M, T)
    region_products = regions @ regions.mT  # (N, P, P)
    squared_length = (torch.einsum("nmtp,npq->nmtq", attention, region_products) * attention).sum(dim=3)
    tiny = torch.finfo(regions.dtype).tiny  # padding may be zeros
    lengths = squared_length.clamp_min(tiny).sqrt() * words.norm(dim=2)
    agreement = context_dot_word / lengths.clamp_min(tiny)
    return (WORD_SHARPNESS * agreement).masked_fill(~word_mask, -torch.inf).logsumexp(dim=2)


def gloria_loss(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, local_scores: Tensor
) -> Tensor:
    r"""Compute global plus local contrast, each in both directions.

    $$\mathcal L = \mathcal L_g^{v|t} + \mathcal L_g^{t|v} + \mathcal L_l^{v|t} + \mathcal L_l^{t|v}, \qquad
      \mathcal L_l^{t|v} = -\frac1N \sum_i \log \frac{e^{\tau_3 Z_{ii}}}{\sum_j e^{\tau_3 Z_{ij}}}$$

    and $\mathcal L_g$ is InfoNCE on the pooled embeddings.

    Embeddings have unit length, (N, D); GLoRIA's s is 10. `local_scores` are Z of image i and text j, (N, N), from
    `word_region_scores`.

    Returns:
        The loss in nats. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape, or the scores are not those of N images and N texts.

    Source:
        GLoRIA, Huang et al. ICCV 2021, equations 1, 2 and 7; the four terms have equal weight.

    Example:
        >>> gloria_loss(torch.eye(2), torch.eye(2), 1.0, torch.tensor([[0.1, 0.0], [0.0, 0.1]]))
        tensor(1.2530)
    """
    num_pairs = len(image_embeds)
    if local_scores.shape != (num_pairs, num_pairs):
        raise ValueError(f"local_scores must be ({num_pairs}, {num_pairs}), got {tuple(local_scores.shape)}.")
    global_loss = 2 * info_nce_loss(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(local_scores.device.type, enabled=False):
        logits = SCORE_SHARPNESS * in_full_precision(local_scores)
        image_to_text, text_to_image = contrast_both_ways(logits)
        return global_loss + image_to_text + text_to_image


class GLoRIAObjective(Objective):
    """GLoRIA on all pairs, with a linear head for the regions and one for the words.

    Source:
        GLoRIA, section 3. Deviations: regions are the last feature map of the tower, not a middle one; words are the
        last layer of the text tower, not the sum of four; the global temperature is the model's, learned unless the
        run fixes it.
    """

    inputs = frozenset({"local_features"})

    def __init__(self, model: LumbarCLIPModel, *settings: Any) -> None:
        super().__init__(model, *settings)
        width = model.config.projection_dim
        self.region_projection = nn.Linear(patch_width(model.vision_model), width, bias=False)
        self.word_projection = nn.Linear(hidden_width(model.text_model), width, bias=False)

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        output = pairs.output
        # Each process scores its own texts, whose lengths may differ.
        assert output.patch_features is not None and output.token_features is not None
        assert output.token_mask is not None
        regions = F.normalize(self.region_projection(output.patch_features), dim=2)
        words = F.normalize(self.word_projection(output.token_features), dim=2)
        scores = gather(word_region_scores(gather(regions), words, output.token_mask).T.contiguous()).T  # (N, N)
        return gloria_loss(*gather_pairs(output, gather), scores)
