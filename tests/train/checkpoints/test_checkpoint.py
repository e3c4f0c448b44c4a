"""A checkpoint is complete or absent, and a damaged one is called so."""

import json
import re
from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import SGD

from data_scripts.system.whole_files import write_folder, write_json
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPProcessor
from tests.conftest import Marks
from train.checkpoints.checkpoint import load_checkpoint, load_state, save_checkpoint, save_processor, save_state
from train.training.loop import BestWeights


def test_round_trip(tiny_model, tiny_processor, tiny_inputs, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    model, processor = load_checkpoint(tmp_path / "checkpoint")
    torch.testing.assert_close(model(**tiny_inputs).logits_per_image, tiny_model(**tiny_inputs).logits_per_image)
    assert processor.max_length == tiny_processor.max_length
    assert not {"is_local", "local_files_only"} & set(
        json.loads((tmp_path / "checkpoint" / "tokenizer_config.json").read_text())
    )
    assert not list((tmp_path / "checkpoint").glob("*.bin"))


def test_an_image_processor_saved_alone_names_only_code_that_is_there(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path / "whole")  # whose image processor then names the whole processor, too
    save_processor(LumbarCLIPProcessor.from_pretrained(tmp_path / "whole").image_processor, tmp_path / "alone")
    named = json.loads((tmp_path / "alone" / "preprocessor_config.json").read_text())["auto_map"]
    assert named == {"AutoImageProcessor": "image_processing_lumbarclip.LumbarCLIPImageProcessor"}
    assert (tmp_path / "alone" / "image_processing_lumbarclip.py").exists()


def test_a_failing_write_leaves_the_old_folder(tmp_path):
    write_folder(tmp_path / "out", lambda folder: (folder / "a").write_text("old"))

    def fail(folder):
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_folder(tmp_path / "out", fail)
    assert (tmp_path / "out" / "a").read_text() == "old"
    write_folder(tmp_path / "out", lambda folder: (folder / "b").write_text("new"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_json_is_whole_or_old(tmp_path):
    write_json(tmp_path / "a.json", {"value": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"value": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 1}


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"])
def test_a_state_that_is_more_than_tensors_does_not_run(name, tmp_path):
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(BestWeights())
    accelerator.prepare(SGD(nn.Linear(2, 2).parameters()))
    save_state(accelerator, tmp_path, 3)
    assert load_state(accelerator, tmp_path) == 3
    torch.save({"step": Marks(tmp_path / "ran")}, tmp_path / "states" / "update-00000003" / name)
    with (
        nullcontext()
        if name.startswith("random")
        else pytest.raises(ValueError, match="update-00000003 cannot be read")
    ):
        load_state(accelerator, tmp_path)  # accelerate goes on without the random states
    assert not (tmp_path / "ran").exists()
    accelerator.free_memory()


def test_a_truncated_checkpoint_is_called_so(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="incomplete.*cut off"):
        load_checkpoint(tmp_path / "checkpoint")


def test_missing_parameters_are_not_made_up(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")
    del weights["image_projection.weight"]
    save_file(weights, tmp_path / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 parameters.*image_projection.weight"):
        load_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_checkpoint_is_called_so(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No checkpoint at"):
        load_checkpoint(tmp_path / name)


def test_of_the_folder_of_a_run_its_checkpoint_is_named(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=f"no config.json. Did you mean {re.escape(str(tmp_path / 'checkpoint'))}"):
        load_checkpoint(tmp_path)


def test_what_is_no_id_of_the_hub_is_no_checkpoint():
    with pytest.raises(ValueError, match="No checkpoint at not an id"):
        load_checkpoint("not an id")


def test_a_checkpoint_of_another_kind_is_there_and_says_itself_what_it_is(tiny_config, tiny_processor, tmp_path):
    config = LumbarCLIPConfig.from_dict({**tiny_config.to_dict(), "id2label": {0: "a", 1: "b"}})
    save_checkpoint(LumbarCLIPForImageClassification(config).eval(), tiny_processor, tmp_path / "classifier")
    with pytest.raises(ValueError, match="This checkpoint holds a classifier.*AutoModelForImageClassification"):
        load_checkpoint(tmp_path / "classifier")


def test_a_checkpoint_of_the_layout_before_is_refused_in_a_sentence(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "alpha": 0.5})
    with pytest.raises(
        ValueError, match=r"config.json: alpha: set by train/pretrain.py, .* earlier layout: train it again\.$"
    ):
        load_checkpoint(tmp_path / "checkpoint")
