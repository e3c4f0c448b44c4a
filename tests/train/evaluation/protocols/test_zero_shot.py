import math

import numpy as np
import pytest

from train.evaluation.protocols.zero_shot import (
    first_prompt_predictions,
    prompt_ensemble,
    prompts_asked,
    zero_shot_margins,
    zero_shot_measures,
    zero_shot_predictions,
)

EAST, NORTH = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])


def test_ensemble_averages_directions_not_lengths():
    np.testing.assert_allclose(prompt_ensemble(np.array([[10.0, 0.0], [0.0, 1.0]])), [0.5**0.5] * 2)


@pytest.mark.parametrize("prompts", [np.zeros((0, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])])
def test_ensemble_of_nothing_is_refused(prompts):
    with pytest.raises(ValueError, match="prompt"):
        prompt_ensemble(prompts)


def values(images, stated, denied, factor, targets, which="zero_shot"):
    predict = zero_shot_predictions if which == "zero_shot" else first_prompt_predictions
    predictions = predict(images, stated, denied, factor, targets)
    return {name: measure.value() for name, measure in zero_shot_measures(predictions, targets, which).items()}


def test_probabilities_by_hand(make_targets):
    # Similarities 0.6 and 0.8, times 10: odds e^2.
    targets = make_targets({"test": np.eye(2)[[0]]}, ["east", "north"])["test"]
    prompts = {"east": EAST, "north": NORTH}
    found = zero_shot_predictions(np.array([[0.6, 0.8]]), prompts, prompts, 10.0, targets)["zero_shot"]
    np.testing.assert_allclose(found, [[1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)]])


def test_margins_by_hand(make_targets):
    targets = make_targets({"test": np.ones((1, 1))}, ["bulge"])["test"]
    margins = zero_shot_margins(np.array([[0.6, 0.8]]), {"bulge": EAST}, {"bulge": NORTH}, targets)
    np.testing.assert_allclose(margins, [[-0.2]])


def test_exclusive_classes_take_the_nearest_prompt(make_targets):
    angles = np.deg2rad([10, 20, 80, 30])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    targets = make_targets({"test": np.eye(2)[[0, 0, 1, 1]]}, ["LBP", "No Finding"])["test"]
    prompts = {"LBP": EAST, "No Finding": NORTH}
    probabilities = zero_shot_predictions(images, prompts, prompts, 5.0, targets)["zero_shot"]
    assert probabilities.argmax(1).tolist() == [0, 0, 1, 0]
    measured = values(images, prompts, prompts, 5.0, targets)
    assert measured["balanced_accuracy"] == 0.75
    assert measured["auroc"] == 1.0


def test_findings_are_present_where_the_stating_prompts_are_nearer(make_targets):
    angles = np.deg2rad([10, 40, 50, 80])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    targets = make_targets({"test": labels}, ["bulge", "stenosis"])["test"]
    stating, denying = {"bulge": EAST, "stenosis": EAST}, {"bulge": NORTH, "stenosis": NORTH}
    predictions = zero_shot_predictions(images, stating, denying, 5.0, targets)
    present = [[True, True], [True, True], [False, False], [False, False]]
    assert (predictions["zero_shot_margins"] > 0).tolist() == (predictions["zero_shot"] > 0.5).tolist() == present
    measured = values(images, stating, denying, 5.0, targets)
    assert measured["auroc/stenosis"] == 1.0
    assert measured["auroc/bulge"] == 0.75  # ranks 1 and 3 of 4
    assert measured["macro_auroc"] == 0.875
    assert measured["balanced_accuracy"] == (0.5 + 1.0) / 2


def test_the_temperature_moves_no_answer(make_targets):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 4))
    targets = make_targets({"test": np.eye(2)[rng.integers(0, 2, 20)]}, ["LBP", "No Finding"])["test"]
    prompts = {"LBP": rng.normal(size=(3, 4)), "No Finding": rng.normal(size=(2, 4))}
    cold, warm = (values(images, prompts, prompts, factor, targets) for factor in (1.0, 50.0))
    assert cold["balanced_accuracy"] == warm["balanced_accuracy"]
    assert cold["expected_calibration_error"] != warm["expected_calibration_error"]


def test_the_ensemble_is_compared_with_the_first_wording(make_targets):
    """The first wording of `LBP` leads astray, the second mends it: only the ensemble tells the classes apart."""
    images = np.eye(3)[[0, 0, 1, 1]]
    targets = make_targets({"test": np.eye(2)[[0, 0, 1, 1]]}, ["LBP", "No Finding"])["test"]
    prompts = {"LBP": np.array([[0.0, 0.8, 0.6], [1.0, 0.0, 0.0]]), "No Finding": np.array([[0.0, 0.6, 0.8]])}
    ensemble, single = (
        values(images, prompts, prompts, 5.0, targets, which) for which in ("zero_shot", "zero_shot_first")
    )
    assert ensemble["auroc"] == 1.0
    assert single["auroc"] == 0.0
    assert prompts["LBP"].shape == (2, 3)


def test_the_record_lists_the_prompts_that_are_used(make_targets, tiny_processor):
    exclusive = make_targets({"test": np.eye(2)}, ["LBP", "No Finding"])["test"]
    asked = prompts_asked(tiny_processor, exclusive)
    assert asked["No Finding"] == {"present": tiny_processor.class_prompt_texts("No Finding")}
    findings = make_targets({"test": np.ones((2, 2))}, ["disc bulge", "stenosis"])["test"]
    assert prompts_asked(tiny_processor, findings)["stenosis"] == {
        "present": ["Stenosis.", "There is stenosis.", "MRI of the lumbar spine shows stenosis."],
        "absent": ["No stenosis.", "There is no stenosis.", "No evidence of stenosis."],
    }
