"""What is fitted for a checkpoint comes out of it again, also where this package is not installed."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from modeling_lumbarclip import LumbarCLIPModel
from tests.without_package import last_line
from train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from train.checkpoints.verification import check_checkpoint
from train.data.loaders import open_dataset
from train.evaluation.checkpoint_calibration import fit_checkpoint_calibration, write_calibration
from train.evaluation.protocols.calibration import fit_temperature
from train.evaluation.protocols.conformal import class_conditional_thresholds
from train.evaluation.targets import read_rows


@pytest.fixture
def tiny_model(tiny_config):
    """Tells images apart, although its features hardly differ: 1/τ is large."""
    torch.manual_seed(0)
    tiny_config.max_inverse_temperature = 1e6
    model = LumbarCLIPModel(tiny_config).eval()
    torch.nn.init.constant_(model.log_inverse_temperature, math.log(1e5))
    return model


@pytest.fixture
def validation(tiny_dataset_folder):
    rows = open_dataset(str(tiny_dataset_folder))["validation"]
    return rows, read_rows(rows, "validation")


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def fit(folder, rows, targets, coverage=0.6):
    return fit_checkpoint_calibration(
        folder, rows, targets, dataset_name="tiny", batch_size=5, target_coverage=coverage
    )


def test_the_configuration_and_its_record_alone_change(checkpoint, validation):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    written = fit(checkpoint, *validation)
    after = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"config.json", "golden_outputs.json"}
    assert check_checkpoint(checkpoint) == []
    settings = json.loads(after["config.json"])
    assert settings.pop("calibration") == asdict(written)
    assert settings == {k: v for k, v in json.loads(before["config.json"]).items() if k != "calibration"}
    assert written.fitted_on["dataset"] == "tiny"
    assert (written.fitted_on["split"], written.fitted_on["num_rows"], written.fitted_on["num_patients"]) == (
        "validation",
        12,
        3,
    )


def test_the_fitted_numbers_are_those_of_the_logits(checkpoint, tiny_dataset_folder, tiny_model, tiny_processor):
    rows = open_dataset(str(tiny_dataset_folder))["train"]
    targets = read_rows(rows, "train")
    prompts = [tiny_processor.class_prompt_texts(name) for name in ("LBP", "No Finding")]
    images = tiny_processor(images=rows.with_format(None)["image"][:], return_tensors="pt")
    with torch.no_grad():
        ensembles = [
            tiny_model.get_text_features(**tiny_processor(text=texts, return_tensors="pt")).pooler_output.mean(0)
            for texts in prompts
        ]
        classes = torch.nn.functional.normalize(torch.stack(ensembles), dim=-1)
        similarities = tiny_model.get_image_features(**images).pooler_output @ classes.T
        logits = (tiny_model.inverse_temperature * similarities).double().numpy()
    # The likelier class is true, but in every fifth row: the logits tell something, not everything.
    truth = (logits[:, 1] > logits[:, 0]) ^ (np.arange(len(rows)) % 5 == 0)
    targets = replace(targets, labels=np.stack([~truth, truth], axis=1))

    question = fit(checkpoint, rows, targets).questions[0]
    assert (question.choices, question.prompts) == (["LBP", "No Finding"], prompts)
    temperature, reason = fit_temperature(logits, targets.classes)
    assert reason is None
    assert question.temperature == pytest.approx(temperature, rel=1e-3)
    scaled = softmax(logits / temperature, axis=1)[:, None]
    thresholds = class_conditional_thresholds(scaled, targets.classes[:, None], targets.patient_ids, 0.6)
    np.testing.assert_allclose(question.score_thresholds, thresholds[0], atol=1e-4)
    assert max(question.score_thresholds) < 1


def test_a_checkpoint_without_the_code_is_refused(checkpoint, validation):
    written = fit(checkpoint, *validation)
    (checkpoint / "calibration_lumbarclip.py").unlink()
    for attempt in (lambda: fit(checkpoint, *validation), lambda: write_calibration(checkpoint, written)):
        with pytest.raises(ValueError, match="saved before checkpoints could be calibrated.*Save it again"):
            attempt()
    save_checkpoint(*load_checkpoint(checkpoint), checkpoint)  # the way out
    fit(checkpoint, *validation)


def test_drifted_weights_are_not_calibrated_and_stay_drifted(checkpoint, validation):
    written = fit(checkpoint, *validation)
    weights = load_file(checkpoint / "model.safetensors")
    weights["text_projection.bias"][0] += 1e-2
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    before = (checkpoint / "config.json").read_text()
    for attempt in (lambda: fit(checkpoint, *validation), lambda: write_calibration(checkpoint, written)):
        with pytest.raises(ValueError, match="is not what was saved.*tensor text_projection.bias"):
            attempt()
    assert (checkpoint / "config.json").read_text() == before
    assert "tensor text_projection.bias" in {drift.what for drift in check_checkpoint(checkpoint)}


def test_a_kill_while_writing_leaves_the_old_configuration(checkpoint, validation, monkeypatch):
    written = fit(checkpoint, *validation)
    before = (checkpoint / "config.json").read_text()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_calibration(checkpoint, replace(written, target_coverage=0.5))
    assert (checkpoint / "config.json").read_text() == before


FRESH_PROCESS = """
import json, sys
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from transformers import AutoModel, AutoProcessor
try:
    import modeling_lumbarclip
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    trust = {"trust_remote_code": True}
found = []
for folder in sys.argv[1:]:
    model = AutoModel.from_pretrained(folder, **trust).eval()
    processor = AutoProcessor.from_pretrained(folder, **trust)
    images = [Image.linear_gradient("L").resize((40, 24)), Image.new("L", (24, 24), 200)]
    texts = processor.zero_shot_texts(model.config.calibration)
    with torch.no_grad():
        output = model(**processor(images=images, text=texts, return_tensors="pt"))
    found.append(processor.post_process_zero_shot(output, model.config.calibration))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_fresh_process_without_our_package_gives_the_same_answers(
    checkpoint, validation, tiny_model, tiny_processor, tmp_path
):
    rows, targets = validation
    of_findings = tmp_path / "findings"
    save_checkpoint(tiny_model, tiny_processor, of_findings)
    calibrations = [fit(checkpoint, rows, targets), fit(of_findings, rows, replace(targets, exclusive=False))]
    answered = json.loads(last_line(FRESH_PROCESS, checkpoint, of_findings, folder=tmp_path))
    images = [Image.linear_gradient("L").resize((40, 24)), Image.new("L", (24, 24), 200)]
    for calibration, found in zip(calibrations, answered, strict=True):
        texts = tiny_processor.zero_shot_texts(asdict(calibration))
        with torch.no_grad():
            output = tiny_model(**tiny_processor(images=images, text=texts, return_tensors="pt"))
        expected = tiny_processor.post_process_zero_shot(output, asdict(calibration))
        assert [[entry["label"] for entry in answers] for answers in found] == [
            [question.label for question in calibration.questions]
        ] * 2
        for of_image, of_image_here in zip(found, expected, strict=True):
            for entry, here in zip(of_image, of_image_here, strict=True):
                assert entry["probabilities"] == pytest.approx(here["probabilities"], abs=1e-5)
                assert entry["prediction_set"] == here["prediction_set"]
                assert entry["answer"] == here["answer"]
