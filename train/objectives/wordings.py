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


class StepWordings:
    """Token ids of several wordings of each statement, of which each step shows a few.

    A statement shows all of its wordings, in a random order, before any a second time. What a step shows depends only
    on the seed and the step, and is found on the step's device: nothing waits for it.

    Args:
        texts: Wordings of each of the S statements, at least one.
        shape: How the statements are arranged, such as (findings, 2); its product is S.
        tokenizer: The model's.
        max_length: Tokens after which a wording is truncated.
        seed: Seed of the order.
        wordings_of_step: W.

    Attributes:
        input_ids: All wordings, each row filled up with its own. Shape (S, V, T).
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
        wordings_of_step: int = WORDINGS_OF_STEP,
    ) -> None:
        self.shape, self.wordings_of_step = shape, wordings_of_step
        random = np.random.default_rng([seed, len(texts)])
        shuffled = [random.permutation(list(of_statement)).tolist() for of_statement in texts]
        self.counts = torch.tensor([len(of_statement) for of_statement in shuffled])
        most = int(self.counts.max())
        filled = [text for of_statement in shuffled for text in islice(cycle(of_statement), most)]
        padded = tokenizer(filled, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        self.input_ids = padded["input_ids"].unflatten(0, (-1, most))
        self.attention_mask = padded["attention_mask"].unflatten(0, (-1, most))
        statement_of_text = {text: place // most for place, text in enumerate(filled)}
        self.confused: list[tuple[str, str]] = []
        first_with: dict[tuple[int, ...], str] = {}
        for text, tokens in dict(zip(filled, map(tuple, padded["input_ids"].tolist()), strict=True)).items():
            first = first_with.setdefault(tokens, text)
            if statement_of_text[first] != statement_of_text[text]:
                self.confused.append((first, text))
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
