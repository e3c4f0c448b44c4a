import numpy as np
import pytest
import torch

from train.evaluation.protocols.grade_classifiers import (
    CLASSIFIERS,
    NUM_VIEWS,
    GradeInputs,
    fused_features,
    grade_classifier_measures,
    grade_inputs,
    grade_logits,
    grade_texts,
    predict_grades,
)

NAMES = tuple("01234")
WIDTH = 6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def graded(make_targets):
    """Grades that one direction of the shared space shows; every tenth row has no grade."""
    rng = np.random.default_rng(0)
    prompts = [np.eye(WIDTH)[[grade]] for grade in range(5)]
    grades, features, embeds, labels = {}, {}, {}, {}
    for split, size in (("train", 200), ("validation", 100), ("test", 100)):
        grades[split] = rng.choice(5, size)
        embeds[split] = unit(np.eye(WIDTH)[grades[split]] + rng.normal(0, 0.05, (size, WIDTH)))
        features[split] = 3 * embeds[split] + rng.normal(0, 0.1, (size, WIDTH))
        grades[split][::10] = -1
        labels[split] = np.ones((size, 1))
    return features, embeds, make_targets(labels, ["any"], grades, NAMES), prompts


def view_of(features, embeds, order=slice(None)):
    return {"image_features": features["test"][order], "image_embeds": embeds["test"][order]}


def test_every_classifier_reads_a_planted_grade_and_its_views(graded):
    features, embeds, targets, prompts = graded
    other = np.roll(np.arange(100), 1)  # the view of a row is the image of another
    views = [view_of(features, embeds), view_of(features, embeds), view_of(features, embeds, other)]
    predictions = predict_grades(features, embeds, targets, GradeInputs(prompts, 10.0, views))
    truth = targets["test"].grades
    for name in CLASSIFIERS:
        read = predictions[f"grade_by/{name}"]
        np.testing.assert_array_equal(read == -1, truth == -1)
        measures = grade_classifier_measures(predictions, targets["test"], name)
        least = 0.6 if name == "probe" else 0.9  # the probe's cut-points give each grade as often as it occurs
        assert measures["accuracy"].value() > least and measures["one_off_accuracy"].value() > 0.95
        assert len(measures["accuracy"].patient_ids) == 90
        assert measures["flip_agreement"].value() == 1
        assert predictions[f"grade_by/{name}/views"].shape == (100, 2)
        assert measures["view_variance"].value() > 0.5


def test_metrics_by_hand(make_targets):
    grades = {split: np.array([0, 1, 2, 2, -1]) for split in ("train", "validation", "test")}
    targets = make_targets({split: np.ones((5, 1)) for split in grades}, ["any"], grades, ("0", "1", "2", "3"))["test"]
    predictions = {
        "grade_by/prompts": np.array([0, 2, 2, 0, -1]),
        "grade_by/prompts/flipped": np.array([0, 2, 1, 1, -1]),
        "grade_by/prompts/views": np.array([[0, 0], [1, 3], [2, 2], [0, 2], [-1, -1]]),
    }
    measures = grade_classifier_measures(predictions, targets, "prompts")
    values = {name: measure.value() for name, measure in measures.items()}
    assert values["accuracy"] == 0.5 and values["one_off_accuracy"] == 0.75 and values["flip_agreement"] == 0.5
    assert values["view_variance"] == pytest.approx((0 + 1 + 0 + 1) / 4)
    assert values["f1/0"] == pytest.approx(2 / 3) and values["f1/1"] == 0 and values["f1/2"] == pytest.approx(0.5)
    assert np.isnan(values["f1/3"]) and np.isnan(values["macro_f1"])
    assert measures["f1/3"].reason_if_undefined == "no row has the grade 3"
    weights = np.array([[1.0, 1, 1, 1], [0, 0, 2, 0]])
    np.testing.assert_allclose(measures["f1/2"].metric(*measures["f1/2"].arrays, weights=weights), [0.5, 1.0])


def test_views_do_not_change_what_is_read_of_the_row_itself(graded):
    features, embeds, targets, prompts = graded
    noise = {"image_features": np.full((100, WIDTH), 9.0), "image_embeds": unit(np.ones((100, WIDTH)))}
    alone = predict_grades(features, embeds, targets, GradeInputs(prompts, 10.0))
    beside = predict_grades(features, embeds, targets, GradeInputs(prompts, 10.0, [noise, noise]))
    assert alone.keys() == {f"grade_by/{name}" for name in CLASSIFIERS}
    for name, read in alone.items():
        np.testing.assert_array_equal(read, beside[name])
    measures = grade_classifier_measures(alone, targets["test"], "fusion")
    assert "accuracy" in measures and not {"flip_agreement", "view_variance"} & measures.keys()


def test_fused_features_are_those_of_the_classifier_s_head():
    rng = np.random.default_rng(1)
    features, embeds, prompts = (
        rng.normal(size=(3, 4)),
        unit(rng.normal(size=(3, WIDTH))),
        rng.normal(size=(5, 2, WIDTH)),
    )
    fused = fused_features(features, grade_logits(embeds, prompts, 7.0), prompts)
    ensembles = unit(unit(prompts.reshape(-1, WIDTH)).reshape(5, 2, WIDTH).mean(1))
    shares = torch.softmax(torch.from_numpy(7.0 * embeds @ ensembles.T), dim=1).numpy()
    np.testing.assert_allclose(fused, np.concatenate([features, shares @ ensembles], axis=1))


@pytest.mark.parametrize("anatomy", ["knee", "lumbar spine"])
def test_only_knees_are_read_flipped(graded, anatomy):
    _, _, targets, _ = graded
    images, asked, seen = torch.rand(2, 8, 8) * 255, [], {}

    def embed(texts):
        asked.append(texts)
        return np.eye(len(texts), WIDTH)

    def encode_varied(split, vary):
        seen[split] = vary(images, [3, 7])
        return {}

    inputs = grade_inputs(targets, anatomy, embed, encode_varied, 10.0)
    assert len(inputs.grade_embeds) == 5
    trained = grade_texts(NAMES, anatomy)
    assert all(set(texts).isdisjoint(trained[grade]) for grade, texts in zip(NAMES, asked, strict=True))
    if anatomy == "knee":
        assert len(inputs.views) == len(seen) == 1 + NUM_VIEWS
        assert torch.equal(seen["test-flipped"], images.flip(2))
        views = [seen[f"test-view{view}"] for view in range(NUM_VIEWS)]
        assert not any(torch.equal(view, other) for view in views for other in views if view is not other)
        again = grade_inputs(targets, anatomy, embed, encode_varied, 10.0)
        assert again is not None and torch.equal(seen["test-view0"], views[0])
    else:
        assert not seen and inputs.views == []


def test_a_split_without_grades_is_not_read(make_targets, graded):
    features, embeds, targets, prompts = graded
    none = {**targets, "validation": targets["validation"].select(targets["validation"].grades < 0, "validation")}
    assert grade_inputs(none, "knee", None, None, 10.0) is None
    rows = (
        {**features, "validation": features["validation"][::10]},
        {**embeds, "validation": embeds["validation"][::10]},
    )
    assert predict_grades(*rows, none, GradeInputs(prompts, 10.0)) == {}
    assert grade_classifier_measures({"grade_by/prompts": np.full(10, -1)}, none["validation"], "prompts") == {}
