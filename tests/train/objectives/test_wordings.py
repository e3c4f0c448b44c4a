"""A step shows some wordings of each statement: all in turn, the same for a seed and step, others for another."""

import pytest
import torch
from transformers import BertTokenizer

from tests.conftest import WORDS
from train.objectives.wordings import WORDINGS_OF_VALIDATION, StepWordings

TEXTS = [["disc", "bulge", "no bulge", "left disc", "right"], ["normal"], ["no", "no disc bulge at l4"], WORDS[5:9]]


@pytest.fixture
def tokenizer():
    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})


def shown(wordings, tokenizer, step):
    input_ids, mask = wordings.draw(torch.tensor(7 if step is None else step), is_training=step is not None)
    assert input_ids.shape == mask.shape and input_ids.shape[:2] == (2, 2)
    assert (mask == (input_ids != tokenizer.pad_token_id)).all()
    return [tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in input_ids.flatten(0, 1)]


def test_all_wordings_of_a_statement_come_before_any_comes_again(tokenizer):
    wordings = StepWordings(TEXTS, (2, 2), tokenizer, 12, seed=3)
    steps = [shown(wordings, tokenizer, step) for step in range(10)]
    for statement, texts in enumerate(TEXTS):
        in_turn = [text for step in steps for text in step[statement]]
        for start in range(0, len(in_turn) - len(texts) + 1, len(texts)):
            assert sorted(in_turn[start : start + len(texts)]) == sorted(texts)
    assert len({tuple(map(tuple, step)) for step in steps}) > 5  # they meet in many ways


def test_the_seed_and_the_step_decide(tokenizer):
    first, again, other = (StepWordings(TEXTS, (2, 2), tokenizer, 12, seed) for seed in (0, 0, 1))
    steps = [[shown(wordings, tokenizer, step) for step in range(6)] for wordings in (first, again, other)]
    assert steps[0] == steps[1] != steps[2]
    assert shown(first, tokenizer, 10**6) == shown(again, tokenizer, 10**6)


def test_a_validation_always_shows_the_same(tokenizer):
    wordings = StepWordings(TEXTS, (2, 2), tokenizer, 12, seed=0)
    validated = shown(wordings, tokenizer, None)
    shown(wordings, tokenizer, 3)
    assert shown(wordings, tokenizer, None) == validated
    assert {len(texts) for texts in validated} == {WORDINGS_OF_VALIDATION}
    assert all(set(texts) == set(given) for texts, given in zip(validated, TEXTS, strict=True))


@pytest.mark.parametrize("is_training", [True, False])
def test_wordings_go_where_the_step_is(tokenizer, is_training):
    """The average of the weights validates on a GPU with a copy that no step of training has moved there."""
    wordings = StepWordings(TEXTS, (2, 2), tokenizer, 12, seed=0)
    drawn = wordings.draw(torch.zeros((), dtype=torch.long, device="meta"), is_training)
    assert {tensor.device.type for tensor in drawn} == {"meta"}


def test_wordings_are_padded_to_their_own_length_and_cut_at_the_models(tokenizer):
    assert StepWordings(TEXTS, (2, 2), tokenizer, 128, seed=0).input_ids.shape == (4, 5, 7)
    assert StepWordings(TEXTS, (2, 2), tokenizer, 5, seed=0).input_ids.shape == (4, 5, 5)


def test_wordings_that_the_tokens_do_not_tell_apart_are_found(tokenizer):
    assert not StepWordings(TEXTS, (2, 2), tokenizer, 12, seed=0).confused
    cut = [["left disc bulge", "disc"], ["left disc", "no"]]
    assert not StepWordings(cut, (2,), tokenizer, 5, seed=0).confused
    assert StepWordings(cut, (2,), tokenizer, 4, seed=0).confused == [("left disc bulge", "left disc")]
    unknown = [["hernia", "no", "hernia seen"], ["tumour", "no"], ["no"]]
    assert StepWordings(unknown, (3,), tokenizer, 12, seed=0).confused == [("hernia", "tumour")]


def test_copies_have_stray_tokens_that_are_of_no_wording(tokenizer):
    texts = [["disc bulge", "bulge of a disc"], ["no disc bulge"]]
    wordings = StepWordings(texts, (2,), tokenizer, 12, seed=0, stray_copies=3)
    said = {token for of in texts for text in of for token in tokenizer(text)["input_ids"]}
    lengths = set()
    for of_statement, ids in zip(texts, wordings.input_ids.tolist(), strict=True):
        shown = [[token for token in row if token != tokenizer.pad_token_id] for row in ids]
        cleaned = [tuple(token for token in row if token in said) for row in shown]
        given = [tuple(tokenizer(text)["input_ids"]) for text in of_statement]
        assert len(shown) == 8 and {*cleaned} == {*given}  # nothing is lost or moved
        assert [cleaned[: len(given) * 4].count(tokens) for tokens in given] == [4] * len(given)
        assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in shown)
        lengths |= {len(row) - len(rest) for row, rest in zip(shown, cleaned, strict=True)}
    assert lengths == {0, 1, 2, 3}
    assert wordings.counts.tolist() == [8, 4] and not wordings.confused


def test_copies_are_no_longer_than_the_model_reads_and_none_is_made_of_a_full_vocabulary(tokenizer):
    cut = StepWordings([["disc bulge"]], (1,), tokenizer, 4, seed=0, stray_copies=3)
    assert cut.input_ids.tolist() == [[tokenizer("disc bulge")["input_ids"]] * 4]
    everything = StepWordings([WORDS[5:]], (1,), tokenizer, 4, seed=0, stray_copies=3)
    assert everything.counts.tolist() == [len(WORDS[5:])]
