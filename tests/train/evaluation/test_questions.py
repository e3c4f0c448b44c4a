"""What prompts ask about: the anatomy of the data, with what a user wrote kept."""

import logging

import pytest

from modeling_lumbarclip import LumbarCLIPProcessor
from train.evaluation.questions import asked_about


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
