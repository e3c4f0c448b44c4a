"""The wordings of statements that a step of training shows.

Shapes: S statements, V most wordings of a statement, W wordings of a step, T tokens.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

WORDINGS_OF_STEP = 2  # of each statement; with eight findings, a tenth of a step's time
WORDINGS_OF_VALIDATION = 8  # of each statement, always the same
MOST_STRAY_TOKENS = 3


class StepWordings:
    """Token ids of several wordings of each statement, of which each step shows a few.

    A statement shows all of its wordings, in a random order, before any a second time. What a step shows depends only
    on the seed and the step, and is found on the step's device: nothing waits for it.

    A text tower with random weights cannot know which words of a sentence it has never seen do not matter: on the drawn
    dataset, single unseen wordings took findings for their denials (an AUROC of 0.01 to 0.99, mean 0.60, seed 2). So it
    is also shown copies with one to three stray tokens, which are of no wording and so state nothing: 0.99 to 1.00.

    Args:
        texts: Wordings of each of the S statements, at least one.
        shape: How the statements are arranged, such as (findings, 2); its product is S.
        tokenizer: The model's.
        max_length: Tokens after which a wording is truncated.
        seed: Seed of the order.
        stray_copies: Copies of each wording with stray tokens, each with others.
        wordings_of_step: W.

    Attributes:
        input_ids: All wordings and copies, each row filled up with its own. Shape (S, V, T).
        attention_mask: 1 for tokens, 0 for padding. Shape (S, V, T).
        confused: Pairs of wordings, of two statements, that differ but not in their tokens: these were cut, or are of
            unknown words.

    Example:
        >>> from transformers import BertTokenizer
        >>> words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "bulge", "no"])}
        >>> texts = ["bulge"], ["no bulge", "no"]
        >>> wordings = StepWordings(texts, (1, 2), BertTokenizer(vocab=words), 8, seed=0, wordings_of_step=1)
        >>> [wordings.draw(torch.tensor(step))[0].tolist() for step in range(2)]
        [[[[[2, 4, 3, 0]], [[2, 5, 4, 3]]]], [[[[2, 4, 3]], [[2, 5, 3]]]]]
    """

    def __init__(
        self,
        texts: Sequence[Sequence[str]],
        shape: tuple[int, ...],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        seed: int,
        stray_copies: int = 0,
        wordings_of_step: int = WORDINGS_OF_STEP,
    ) -> None:
        self.shape, self.wordings_of_step = shape, wordings_of_step
        random = np.random.default_rng([seed, len(texts)])
        options = {"truncation": True, "max_length": max_length}
        tokenised = [tokenizer(list(of_statement), **options)["input_ids"] for of_statement in texts]
        self.confused = _confused(texts, tokenised)
        said = {*tokenizer.all_special_ids, *(token for of in tokenised for tokens in of for token in tokens)}
        stray = [token for token in range(len(tokenizer)) if token not in said]
        if stray:
            tokenised = [
                [*of, *(_with_stray(tokens, stray, max_length, random) for _ in range(stray_copies) for tokens in of)]
                for of in tokenised
            ]
        self.counts = torch.tensor([len(of_statement) for of_statement in tokenised])
        most = int(self.counts.max())
        shuffled = [
            [of_statement[place] for place in random.permutation(len(of_statement))] for of_statement in tokenised
        ]
        filled = [tokens for of_statement in shuffled for tokens in islice(cycle(of_statement), most)]
        padded = tokenizer.pad({"input_ids": filled}, return_tensors="pt")
        self.input_ids = padded["input_ids"].unflatten(0, (-1, most))
        self.attention_mask = padded["attention_mask"].unflatten(0, (-1, most))
        # Each time round, the order begins elsewhere: other wordings meet.
        self.strides = torch.tensor([int(random.integers(1, max(count, 2))) for count in self.counts.tolist()])

    def draw(self, step: Tensor, is_training: bool = True) -> tuple[Tensor, Tensor]:
        """Choose the wordings of a step, counted from 0; of a validation, the same after any step.

        Returns:
            `input_ids` and `attention_mask`, both of shape (*shape, W, T), on the device of the step.
        """
        if self.input_ids.device != step.device:
            for name in ("input_ids", "attention_mask", "counts", "strides"):
                setattr(self, name, getattr(self, name).to(step.device))
        shown = self.wordings_of_step if is_training else WORDINGS_OF_VALIDATION
        places = torch.arange(shown, device=step.device) + (step * shown if is_training else 0)
        rounds = places // self.counts[:, None]
        chosen = (places + rounds * self.strides[:, None]) % self.counts[:, None]  # (S, W)
        statements = torch.arange(len(self.counts), device=chosen.device)[:, None]
        input_ids, attention_mask = self.input_ids[statements, chosen], self.attention_mask[statements, chosen]
        if input_ids.device.type == "cpu":  # elsewhere, the longest wording could not be read without waiting
            longest = int(attention_mask.sum(dim=-1).max())
            input_ids, attention_mask = input_ids[..., :longest], attention_mask[..., :longest]
        return input_ids.unflatten(0, self.shape), attention_mask.unflatten(0, self.shape)


def _with_stray(tokens: Sequence[int], stray: Sequence[int], max_length: int, random: np.random.Generator) -> list[int]:
    """Insert one to three stray tokens between the first and the last, as many as fit."""
    longer = list(tokens)
    for _ in range(min(int(random.integers(1, MOST_STRAY_TOKENS + 1)), max_length - len(tokens))):
        longer.insert(int(random.integers(1, max(len(longer), 2))), int(random.choice(stray)))
    return longer


def _confused(texts: Sequence[Sequence[str]], tokenised: Sequence[Sequence[Sequence[int]]]) -> list[tuple[str, str]]:
    """Find pairs of wordings, of two statements, that have the same tokens."""
    confused = []
    first_with: dict[tuple[int, ...], tuple[int, str]] = {}
    for statement, (of_statement, of_tokens) in enumerate(zip(texts, tokenised, strict=True)):
        for text, tokens in zip(of_statement, of_tokens, strict=True):
            first, other = first_with.setdefault(tuple(tokens), (statement, text))
            if first != statement and other != text:
                confused.append((other, text))
    return confused
