"""What prompts ask about: the anatomy of the data, in words that no training used, with what a user wrote kept."""

import logging

import pytest

from modeling_lumbarclip import LumbarCLIPProcessor
from train.data.statement_banks import statement_bank
from train.evaluation.questions import asked_about, bank_prompts, own_prompts, spread_wordings, unseen_wordings


@pytest.fixture
def of_the_spine(tiny_processor):
    own = {"class_prompts": {"scoliosis": ["The spine is curved."]}, "absent_prompt_templates": ["Without {}."]}
    return LumbarCLIPProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, max_length=20, **own)


def test_prompts_of_another_anatomy_replace_the_defaults_and_nothing_else(of_the_spine, caplog):
    before = dict(vars(of_the_spine))
    with caplog.at_level(logging.WARNING):
        knee = asked_about(of_the_spine, "knee")
    assert "show the knee, and the prompts were those of the lumbar spine" in caplog.text
    assert vars(of_the_spine) == before
    assert knee.anatomy == "knee" and knee.max_length == 20
    assert knee.class_prompts.keys() == {"No Finding", "scoliosis"}
    assert knee.class_prompt_texts("No Finding")[0] == "The knee is normal."
    assert knee.class_prompt_texts("effusion")[2] == "The knee shows effusion."
    assert knee.absent_class_prompt_texts("effusion") == ["Without effusion."]
    assert asked_about(knee, "lumbar spine").class_prompts == of_the_spine.class_prompts


@pytest.mark.parametrize("anatomy", [None, "lumbar spine"])
def test_prompts_stay_if_the_anatomy_is_theirs_or_not_known(of_the_spine, anatomy, caplog):
    assert asked_about(of_the_spine, anatomy) is of_the_spine
    assert not caplog.text


def test_ten_unseen_wordings_a_polarity_from_every_template_and_word():
    names = ["disc bulge", "Pfirrmann >= 4", "No Finding", "some rare thing"]
    for name, stated, denied in ((name, *(of[name] for of in bank_prompts(names, None))) for name in names):
        bank = statement_bank(name, None, names)
        assert len({*stated}) == len({*denied}) == 10
        assert {*stated} <= {*bank.stated.unseen} and {*denied} <= {*bank.denied.unseen}
        assert not {*stated, *denied} & {*bank.stated.trained, *bank.denied.trained}


@pytest.mark.parametrize("templates, words", [(5, 2), (5, 3), (5, 4), (5, 11), (3, 5), (6, 5), (5, 1), (1, 1)])
def test_wordings_are_spread_over_templates_and_words(templates, words):
    chosen = spread_wordings([f"{template} {word}" for template in range(templates) for word in range(words)])
    assert len({*chosen}) == len(chosen) == min(10, templates * words)
    assert len({text.split()[0] for text in chosen}) >= min(templates, 4)
    assert len({text.split()[1] for text in chosen}) >= min(words, 9)


def test_a_class_whose_name_says_nothing_is_asked_by_its_prompts(tiny_processor, caplog):
    with caplog.at_level(logging.WARNING):
        stated, denied = bank_prompts(["disc bulge", "?!"], "lumbar spine")
    assert stated.keys() == denied.keys() == {"disc bulge"}
    assert "No statement can be made of the class '?!'" in caplog.text and "class_prompts" in caplog.text
    asked = unseen_wordings(tiny_processor, ["?!"])
    assert asked == {
        "?!": {
            "present": tiny_processor.class_prompt_texts("?!"),
            "absent": tiny_processor.absent_class_prompt_texts("?!"),
        }
    }


def test_prompts_of_banks_follow_the_anatomy_and_those_of_a_user_stay(tiny_processor, caplog):
    parts = tiny_processor.image_processor, tiny_processor.tokenizer
    stated, denied = bank_prompts(["disc bulge", "No Finding"], "lumbar spine")
    own = {"scoliosis": ["The spine is curved."]}
    spine = LumbarCLIPProcessor(
        *parts,
        max_length=20,
        class_prompts=stated | own,
        absent_class_prompts={name: list(texts) for name, texts in denied.items()},
    )
    assert own_prompts(spine, "class_prompts") == own and own_prompts(spine, "absent_class_prompts") == {}
    knee = asked_about(spine, "knee", ["No Finding", "osteophytes"])
    of_knee, _ = bank_prompts(["No Finding", "osteophytes"], "knee")
    assert knee.class_prompt_texts("No Finding") == of_knee["No Finding"] != stated["No Finding"]
    assert knee.class_prompt_texts("osteophytes") == of_knee["osteophytes"]
    assert knee.class_prompts.keys() == {"No Finding", "osteophytes", "scoliosis"}
    back = asked_about(knee, "lumbar spine", ["disc bulge"])
    assert back.class_prompts["disc bulge"] == bank_prompts(["disc bulge"], "lumbar spine")[0]["disc bulge"]
    assert back.class_prompts["No Finding"][0] == "The disc is normal."  # not asked: the default


def test_prompts_of_a_class_that_shares_its_words_with_another_are_those_of_its_bank(tiny_processor):
    """The bank of `compression` leaves out what `neural compression` says, and fills up with words of its own."""
    parts = tiny_processor.image_processor, tiny_processor.tokenizer
    stated, denied = bank_prompts(["compression", "neural compression"], "lumbar spine")
    spine = LumbarCLIPProcessor(*parts, class_prompts=stated, absent_class_prompts=denied)
    assert own_prompts(spine, "class_prompts") == own_prompts(spine, "absent_class_prompts") == {}
