"""Answers of the app are those of the checkpoint, and what is not calibrated says so."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from transformers import BertTokenizer, PreTrainedTokenizerFast

from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPProcessor
from tests.conftest import WORDS
from train.evaluation.questions import bank_prompts
from train.web_app.answers import (
    calibrated_answers,
    embed_slices,
    own_answer,
    own_finding,
    pixel_values,
    question_prompts,
    seen_slice,
    study_answer,
    unknown_words,
)
from train.web_app.uploads import Slice


def embed(reader, images):
    embeds, outside = embed_slices(reader, [Slice(name="", image=i, seen=seen_slice(reader, i)) for i in images])
    assert outside == [None] * len(images)  # the checkpoint has no scope
    return embeds


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 40 + 7 * i), dtype=np.uint8)) for i in range(3)]


def test_calibrated_answers_are_those_that_a_user_of_the_checkpoint_gets(reader, images):
    model, processor = reader.model, reader.processor
    texts = processor.zero_shot_texts(model.config.calibration)
    with torch.no_grad():
        output = model(**processor(images=images, text=texts, return_tensors="pt"))
    expected = processor.post_process_zero_shot(output, model.config.calibration)
    answered = calibrated_answers(reader, embed(reader, images))
    for of_slice, of_user in zip(answered, expected, strict=True):
        for answer, other in zip(of_slice, of_user, strict=True):
            assert answer["answer"] == other["answer"]
            assert answer["prediction_set"] == other["prediction_set"]
            assert answer["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_slices_are_embedded_alike_in_batches_and_alone(reader, images, monkeypatch):
    together = embed(reader, images)
    monkeypatch.setattr("train.web_app.answers.BATCH_SIZE", 2)
    assert torch.allclose(together, embed(reader, images), atol=1e-6)
    assert torch.allclose(together[2:], embed(reader, images[2:]), atol=1e-6)


def test_an_own_finding_is_the_softmax_of_its_statement_against_its_denial(reader, images):
    model, processor = reader.model, reader.processor
    asked = own_answer(reader, embed(reader, images[:1]), "disc bulge")
    stated, denied = bank_prompts(["disc bulge"], "lumbar spine")
    assert (asked.statements, asked.denials) == (stated["disc bulge"], denied["disc bulge"])
    assert asked.statements[0] == "Disc bulge present." and len(asked.statements) == len(asked.denials) == 10
    with torch.no_grad():
        output = model(**processor(images=images[:1], text=asked.statements + asked.denials, return_tensors="pt"))
    means = output.text_embeds.view(2, 10, -1).mean(dim=1)
    cosines = torch.cosine_similarity(output.image_embeds, means)
    expected = torch.sigmoid(output.inverse_temperature * (cosines[0] - cosines[1]))
    assert asked.probability == pytest.approx(expected.item(), abs=1e-6)


def test_a_finding_is_asked_by_the_words_of_the_checkpoint_or_of_its_bank(tiny_processor):
    tiny_processor.class_prompts["slip"] = ["One vertebra lies before the other."]
    stated, denied = question_prompts(tiny_processor, "slip")
    assert stated == ["One vertebra lies before the other."] and denied[0] == "No slip."
    stated, denied = question_prompts(tiny_processor, "left disc bulge at L4/L5")
    assert all("left" in text.lower() and "L4/L5" in text for text in (*stated, *denied)) and len({*stated}) == 10
    stated, _ = question_prompts(tiny_processor, "bulges at L3, grade 2")  # of which the bank knows only the bulge
    assert stated[1] == "There is bulges at L3, grade 2."
    assert question_prompts(tiny_processor, "?!")[0][0] == "?!."  # no bank: the templates


def test_a_study_answers_with_the_mean_over_its_slices(reader, images):
    study = study_answer(reader, embed(reader, images))
    assert len(study.of_slices) == 3
    for question, pooled in enumerate(study.pooled):
        of_slices = [answers[question]["probabilities"]["present"] for answers in study.of_slices]
        assert pooled["present"] == pytest.approx(np.mean(of_slices))
        assert sum(pooled.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "few words"),
        (" . ", "few words"),
        ("No disc bulge", "denies a finding"),
        ("bulge " * 20, "at most 80"),
        ("左椎间盘", "knows no word of “左椎间盘”"),
        ("stenosis - osteophyte", "knows no word of “stenosis - osteophyte”"),
        ("!?", "knows no word of “!\\?”"),
    ],
)
def test_what_is_no_finding_is_refused(tiny_processor, text, words):
    with pytest.raises(ValueError, match=words):
        own_finding(tiny_processor, text)


def test_a_finding_is_taken_without_blanks_and_a_full_stop_around_it(tiny_processor):
    assert own_finding(tiny_processor, " left  disc bulge. ") == "left disc bulge"
    assert own_finding(tiny_processor, "foraminal disc bulge") == "foraminal disc bulge"  # a word of three is enough
    assert own_finding(tiny_processor, "LBP") == "LBP"  # asked for in other words


def test_a_grade_is_asked_for_in_words_of_reports(tiny_processor):
    parts = tiny_processor.image_processor, tiny_processor.tokenizer
    knee = LumbarCLIPProcessor(*parts, max_length=32, anatomy="knee")
    assert own_finding(knee, "KL 2") == "KL 2" and unknown_words(knee, "KL 2") == []
    assert unknown_words(knee, "effusion") == ["effusion"]
    with pytest.raises(ValueError, match="knows no word of “KL 2”"):
        own_finding(tiny_processor, "KL 2")  # no grade of the spine


@pytest.mark.parametrize(
    ("finding", "unknown"),
    [
        ("left disc bulge at L4/L5", []),
        ("Disc qwerty, QWERTY and stenosis", ["qwerty", "QWERTY", "and", "stenosis"]),
        ("bulges at L3, grade 2", ["grade"]),  # digits are spelled by good right
        ("e disc", []),
        ("左 disc", ["左"]),
        ("LBP", []),  # asked for in other words
    ],
)
def test_words_that_are_spelled_or_lost_are_unknown(reader, finding, unknown):
    letters = [*"qwertyladgl23", *(f"##{piece}" for piece in ["w", "e", "r", "t", "y", "r", "a", "d", "s", "2", "3"])]
    reader.processor.tokenizer = BertTokenizer(
        vocab={word: index for index, word in enumerate(dict.fromkeys([*WORDS, *letters]))}
    )
    assert unknown_words(reader.processor, finding) == unknown


def with_tokenizer(processor, model, **special):
    """The processor, with a tokenizer that is no WordPiece."""
    tokenizer = Tokenizer(model)
    if isinstance(model, Unigram):
        tokenizer.pre_tokenizer = Metaspace()
    processor.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    return processor


@pytest.fixture
def unigram(tiny_processor):
    """Pieces as SentencePiece has them: words, a few letters, and one Chinese word of two letters."""
    known = ["▁disc", "▁bulge", "▁", *"bdegilnstu", "正常", "膨", "出"]
    pieces = [("<unk>", -9.0), *((piece, -float(rank)) for rank, piece in enumerate(known, start=1))]
    return with_tokenizer(tiny_processor, Unigram(pieces, unk_id=0), unk_token="<unk>")


@pytest.mark.parametrize(
    ("finding", "unknown"),
    [
        ("disc bulge", []),
        ("e disc", []),  # of two pieces, the blank before it and the letter
        ("disc stenting", ["stenting"]),  # spelled
        ("disc 椎间盘", ["椎间盘"]),
        ("正常 膨出", []),  # a word, and two letters that mean something each
        ("disc at", ["at"]),  # a part of it is lost
    ],
)
def test_words_that_pieces_of_sentences_spell_or_lose_are_unknown(unigram, finding, unknown):
    assert unknown_words(unigram, finding) == unknown


def test_a_finding_of_which_sentencepiece_knows_no_word_is_refused(unigram):
    with pytest.raises(ValueError, match="knows no word of “椎间盘”"):
        own_finding(unigram, "椎间盘")
    assert own_finding(unigram, "disc 椎间盘") == "disc 椎间盘"


def test_words_that_a_tokenizer_without_an_unknown_token_drops_are_unknown(tiny_processor):
    pairs = [("d", "i"), ("di", "sc"), ("s", "c")]
    letters = {piece: index for index, piece in enumerate(["d", "i", "s", "c", "di", "sc", "disc"])}
    processor = with_tokenizer(tiny_processor, BPE(letters, pairs))
    assert processor.tokenizer.tokenize("椎间盘") == []
    assert unknown_words(processor, "disc 椎间盘") == ["椎间盘"]
    with pytest.raises(ValueError, match="knows no word of “椎间盘”"):
        own_finding(processor, "椎间盘")


def test_chinese_letters_are_words_of_a_vocabulary_and_their_bytes_are_not(tiny_processor):
    tiny_processor.tokenizer = BertTokenizer(
        vocab={word: index for index, word in enumerate([*WORDS, "椎", "间", "盘"])}
    )
    assert unknown_words(tiny_processor, "椎间盘") == []
    letters = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    processor = with_tokenizer(tiny_processor, BPE(letters, []))
    processor.tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    assert len(processor.tokenizer.tokenize("盘")) == 4
    assert unknown_words(processor, "e 椎间 盘") == ["椎间", "盘"]


def test_an_own_answer_carries_the_words_that_the_model_does_not_know(reader, images):
    asked = own_answer(reader, embed(reader, images[:1]), "foraminal disc bulge")
    assert asked.unknown_words == ["foraminal"]


def test_a_checkpoint_without_calibration_answers_in_own_words_only(uncalibrated, images):
    embeds = embed(uncalibrated, images[:1])
    assert 0 < own_answer(uncalibrated, embeds, "disc bulge").probability < 1
    with pytest.raises(ValueError, match="no calibration"):
        calibrated_answers(uncalibrated, embeds)


@pytest.mark.parametrize("options", [{}, {"do_window_eight_bit": True}, {"size": {"height": 32, "width": 24}}])
def test_the_model_gets_of_a_small_copy_what_the_processor_makes_of_the_slice(reader, options):
    reader.processor.image_processor = LumbarCLIPImageProcessor(**{"size": {"height": 32, "width": 32}, **options})
    for shape in ((700, 300), (33, 900), (16, 16), (32, 32)):
        image = Image.fromarray(np.random.default_rng(0).integers(40, 190, shape, dtype=np.uint8))
        seen = seen_slice(reader, image)
        assert seen.mode == "L" and seen.width * seen.height <= 32 * 32
        expected = reader.processor(images=image, return_tensors="pt").pixel_values
        assert torch.equal(pixel_values(reader, [seen]), expected)
