"""The metrics of a run: which there are, each from its own predictions, equal to scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from train.evaluation.label_metrics import label_estimates
from train.evaluation.measure import measure
from train.evaluation.predict import Encoded, predict, predict_baselines
from train.evaluation.statistics.bootstrap import Resampling, as_entries

pytestmark = pytest.mark.usefixtures("any_number_is_ranked")


FEW = Resampling(num_resamples=5)


@pytest.fixture
def asked(planted, monkeypatch):
    """What the protocols predict; projected features lack what is planted."""
    monkeypatch.setattr("train.evaluation.protocols.attention_pooling.MAX_EPOCHS", 2)
    features, targets = planted
    rng = np.random.default_rng(1)
    for of_split in targets.values():
        object.__setattr__(of_split, "grade_names", ("1", "2"))
        object.__setattr__(of_split, "grades", of_split.labels[:, 0].astype(int))
    embeds = {split: of_split[:, 4:] for split, of_split in features.items()}
    names = targets["test"].label_names
    stated, denied = ({name: rng.normal(size=(2, 8)) for name in names} for _ in range(2))
    texts, text_embeds = [f"Report {row // 2}." for row in range(80)], rng.normal(size=(40, 8)).repeat(2, axis=0)
    spaces = {"unprojected": features, "projected": embeds}
    encoded = Encoded(spaces, texts, text_embeds, stated, denied, 2.0, unseen_stated=stated, unseen_denied=denied)
    predictions = predict(encoded, targets, np.arange(80))
    return (
        predictions | predict_baselines({"hog": embeds}, targets, ["logistic"]),
        targets["test"],
        targets["validation"],
    )


def test_the_protocols_of_a_run(asked):
    further = measure(*asked, FEW)["further"]
    of_paper = [f"probe/{name}/unprojected" for name in ("paper", "paper_balanced", "paper_logit_adjusted", "knn")]
    assert sorted(further) == sorted(
        [
            *of_paper,
            *(f"probe/{name}/projected" for name in ("paper", "logistic", "knn")),
            "decision/paper_threshold/unprojected",  # and no logistic probe of unprojected features: the headline
            "patients/mean",
            "patients/attention",
            "retrieval/pair",
            "retrieval/facts",
            "calibration/paper",
            "calibration/zero_shot",
            "zero_shot/unseen",
            "zero_shot/single_wordings",
            "polarity",
        ]
    )
    decision = further["decision/paper_threshold/unprojected"]
    assert set(decision) & {"macro_auroc", "auroc/bulge", "macro_auroc_with_no_finding"} == set()
    assert "macro_f1" in decision
    single, polarity = further["zero_shot/single_wordings"], further["polarity"]
    assert list(single)[:3] == [f"macro_auroc_{spread}" for spread in ("mean", "standard_deviation", "worst")]
    assert {"auroc_mean/bulge", "auroc_worst/stenosis"} <= set(single)
    macro = ["polarity_accuracy", "polarity_accuracy_together"]
    assert list(polarity) == [*macro, *(f"polarity_accuracy/{name}" for name in asked[1].label_names)]
    # Here the checkpoint asks by the unseen wordings.
    assert further["zero_shot/unseen"] == measure(*asked, FEW)["zero_shot"]


def test_each_metric_is_of_its_own_predictions(asked):
    predictions, targets, validation = asked
    results = measure(predictions, targets, validation, FEW)
    for space in ("unprojected", "projected"):
        name = f"probe/paper/{space}"
        assert results["further"][name] == as_entries(label_estimates(targets, predictions[name], FEW))
    of_bulge = [
        results["further"][f"probe/paper/{space}"]["auroc/bulge"]["value"] for space in ("unprojected", "projected")
    ]
    assert abs(of_bulge[0] - of_bulge[1]) > 0.1  # so that a swap of the spaces is seen
    headline = predictions["probe/logistic/unprojected"]
    expected = [roc_auc_score(targets.labels[:, k], headline[:, k]) for k in (0, 1)]
    assert results["linear_probe"]["macro_auroc"]["value"] == pytest.approx(np.mean(expected))
    predictions["ordinal_grade/unprojected"] = np.r_[np.zeros(40, int), targets.grades[40:]]  # unlike the ridge probe's
    results = measure(predictions, targets, validation, FEW)
    kappa = cohen_kappa_score(targets.grades, predictions["ordinal_grade/unprojected"], weights="quadratic")
    assert results["linear_probe"]["ordinal_grade_quadratic_kappa"]["value"] == pytest.approx(kappa)
    theirs = results["baselines"]["hog"]["linear_probe"]["ordinal_grade_quadratic_kappa"]["value"]
    difference = results["baselines"]["hog"]["difference"]["ordinal_grade_quadratic_kappa"]["value"]
    assert difference == pytest.approx(kappa - theirs)
    kappa = cohen_kappa_score(targets.grades, predictions["grade/unprojected"], weights="quadratic")
    assert results["linear_probe"]["grade_quadratic_kappa"]["value"] == pytest.approx(kappa)


def test_baselines_stand_beside_with_the_difference(asked):
    results = measure(*asked, FEW)
    hog = results["baselines"]["hog"]
    for name in ("macro_auroc", "grade_quadratic_kappa"):
        expected = results["linear_probe"][name]["value"] - hog["linear_probe"][name]["value"]
        assert hog["difference"][name]["value"] == pytest.approx(expected)
