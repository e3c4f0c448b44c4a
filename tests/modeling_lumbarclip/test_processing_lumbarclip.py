"""The processor pads, cuts, and carries its prompts."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPProcessor


def test_texts_are_padded_to_the_longest_and_cut(tiny_processor):
    batch = tiny_processor(text=["disc", "no disc bulge ."], return_tensors="pt")
    assert batch.input_ids.shape == (2, 6)
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 6]
    assert tiny_processor(text=["disc " * 100], return_tensors="pt").input_ids.shape == (1, 32)


def test_files_are_opened_beside_texts(tiny_processor, tmp_path):
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    deep.save(tmp_path / "deep.tif")
    deep.convert("L").save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("L", (30, 20))])
    given = tiny_processor(images=str(tmp_path / "deep.tif"), text="disc", return_tensors="pt")
    torch.testing.assert_close(given.pixel_values, tiny_processor(images=deep, return_tensors="pt").pixel_values)
    with pytest.raises(ValueError, match="has 2 frames"):
        tiny_processor(images=str(tmp_path / "moving.gif"), text="disc")


@pytest.mark.parametrize("nothing", [{"images": []}, {"text": []}, {"images": [], "text": ["disc"]}])
def test_empty_lists_are_refused(tiny_processor, nothing):
    with pytest.raises(ValueError, match="is empty"):
        tiny_processor(**nothing, return_tensors="pt")


def test_prompts_travel_with_the_saved_processor(tiny_processor, tmp_path):
    processor = LumbarCLIPProcessor(
        tiny_processor.image_processor,
        tiny_processor.tokenizer,
        max_length=20,
        prompt_templates=["Signs of {}."],
        class_prompts={"LBP": ["There is a disc bulge.", "Stenosis."]},
        absent_class_prompts={"LBP": ["Normal."]},
    )
    processor.save_pretrained(tmp_path)
    loaded = LumbarCLIPProcessor.from_pretrained(tmp_path)
    assert loaded.max_length == 20
    assert loaded.class_prompt_texts("LBP") == ["There is a disc bulge.", "Stenosis."]
    assert loaded.absent_class_prompt_texts("LBP") == ["Normal."]
    assert loaded.class_prompt_texts("disc bulging") == ["Signs of disc bulging."]
    assert loaded.absent_class_prompt_texts("Modic change")[0] == "No Modic change."


def asks_about(processor, anatomy):
    return LumbarCLIPProcessor(processor.image_processor, processor.tokenizer, anatomy=anatomy)


def test_knees_are_asked_about_the_knee(tiny_processor, tmp_path):
    asks_about(tiny_processor, "knee").save_pretrained(tmp_path)
    knee = LumbarCLIPProcessor.from_pretrained(tmp_path)
    assert knee.anatomy == "knee"
    for label in ("No Finding", "osteoarthritis", "KL 2", "Kellgren-Lawrence >= 2", "LBP", "joint effusion"):
        for texts in (knee.class_prompt_texts(label), knee.absent_class_prompt_texts(label)):
            assert texts and not re.search(r"\b(disc|spine|spinal|lumbar|MRI)\b", " ".join(texts)), (label, texts)
    assert knee.class_prompt_texts("No Finding")[0] == "The knee is normal."
    assert knee.absent_class_prompt_texts("No Finding")[0] == "There is osteoarthritis."
    assert knee.class_prompt_texts("osteoarthritis")[2] == "The knee shows osteoarthritis."


@pytest.mark.parametrize(
    ("label", "stated"),
    [
        *((label, "2") for label in ("KL 2", "KL2", "kl-2", "KL: 2", "KL = 2", "KL grade 2", "K&L 2", "KL II")),
        *((f"Kellgren{word}Lawrence 2", "2") for word in ("-", " ", "–", " and ", " & ")),
        ("Kellgren-Lawrence grade 0", "0"),
        *((label, "234") for label in ("KL >= 2", "KL≥2", "KL grade >= 2", "KL > 1", "KL 2-4", "KL 2 to 4")),
        *((label, "01") for label in ("KL < 2", "KL <= 1", "KL ≤ 1", "KL 0 or 1")),
    ],
)
def test_a_class_that_names_grades_of_the_knee_is_asked_for_in_words_of_reports(tiny_processor, label, stated):
    knee = asks_about(tiny_processor, "knee")
    named, others = (
        {text.removeprefix("Kellgren-Lawrence grade ") for text in texts if text.startswith("Kellgren")}
        for texts in (knee.class_prompt_texts(label), knee.absent_class_prompt_texts(label))
    )
    assert named == {f"{grade}." for grade in stated}
    assert others == {f"{grade}." for grade in "01234" if grade not in stated}
    assert len(knee.class_prompt_texts(label)) == 2 * len(stated)  # each with its definition


@pytest.mark.parametrize("label", ["KL", "KL 7", "KL >= 0", "KL > 4", "Kellgren-Lawrence", "KL 2 osteoarthritis", "2"])
def test_what_names_no_grade_is_asked_for_by_its_name(tiny_processor, label):
    knee = asks_about(tiny_processor, "knee")
    assert knee.class_prompt_texts(label) == [f"{label}.", f"There is {label}.", f"The knee shows {label}."]
    assert knee.absent_class_prompt_texts(label)[0] == f"No {label}."


def test_spines_are_asked_as_before(tiny_processor):
    assert tiny_processor.anatomy == "lumbar spine"
    assert tiny_processor.class_prompt_texts("No Finding")[0] == "The disc is normal."
    assert tiny_processor.class_prompt_texts("Pfirrmann >= 4")[2] == "A dark disc with advanced degeneration."
    assert tiny_processor.class_prompt_texts("Pfirrmann 4") == ["Pfirrmann grade 4."]
    assert tiny_processor.class_prompt_texts("KL 2")[0] == "KL 2."  # no grade of the spine
    assert tiny_processor.class_prompt_texts("disc bulge")[2] == "MRI of the lumbar spine shows disc bulge."


def test_of_other_anatomies_only_names_are_known(tiny_processor):
    shoulder = asks_about(tiny_processor, "shoulder")
    assert shoulder.class_prompts == {"No Finding": ["The shoulder is normal."]}
    assert shoulder.absent_class_prompt_texts("No Finding") == ["The shoulder is abnormal."]
    assert shoulder.class_prompt_texts("LBP") == ["LBP.", "There is LBP.", "The shoulder shows LBP."]


def test_a_processor_saved_before_there_were_anatomies_is_of_the_lumbar_spine(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    settings = json.loads(path.read_text())
    assert settings.pop("anatomy") == "lumbar spine"
    path.write_text(json.dumps(settings))
    loaded = LumbarCLIPProcessor.from_pretrained(tmp_path)
    assert loaded.anatomy == "lumbar spine" and loaded.class_prompts == tiny_processor.class_prompts


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt_templates": ["There is a disc."]}, "got 'There is a disc.'"),
        ({"max_length": 2}, "got 2"),
        ({"anatomy": " "}, "anatomy names what the images show, such as 'lumbar spine'; got ' '"),
        ({"anatomy": None}, "anatomy .*got None"),
        ({"class_prompts": {"LBP": "A bulge."}}, "class 'LBP' must be a list of sentences; got 'A bulge.'"),
        ({"absent_class_prompts": {"LBP": ["Normal.", 5]}}, "class 'LBP' must be a list"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_processor, options, message):
    with pytest.raises(ValueError, match=message):
        LumbarCLIPProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, **options)
