"""What is asked beside the headline: which figures there are, each from its own probe, and each probe fitted once."""

import numpy as np
import pytest

from train.data.loaders import open_dataset
from train.evaluation import further_protocols, predictions, suite
from train.evaluation.further_protocols import Encoded, further_figures
from train.evaluation.label_metrics import finding_estimates
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.paper_probe import paper_probe
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.suite import measure

FEW = Resampling(num_resamples=5)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.attention_pooling.MAX_EPOCHS", 2)


@pytest.fixture
def asked(planted):
    """What the protocols are asked with: projected features lack what is planted."""
    features, targets = planted
    rng = np.random.default_rng(1)
    embeds = {split: of_split[:, 4:] for split, of_split in features.items()}
    texts = [f"Report {row // 2}." for row in range(80)]
    text_embeds = rng.normal(size=(40, 8)).repeat(2, axis=0)
    zero_shot = {split: rng.normal(size=(len(targets[split]), 3)) for split in ("validation", "test")}
    headline = logistic_probe(features, targets).probabilities
    return Encoded(features, embeds, texts, text_embeds), targets, headline, zero_shot, FEW


def test_the_figures_and_nothing_twice(asked, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nobody shows grades here")

    monkeypatch.setattr(predictions, "grade_probe", refuse)
    found = further_figures(*asked)
    of_paper = [f"probe/{name}/unprojected" for name in ("paper", "paper_balanced", "paper_logit_adjusted", "knn")]
    assert sorted(found.figures) == sorted(
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
        ]
    )
    assert set(found.figures["decision/paper_threshold/unprojected"]) & {"macro_auroc", "auroc/bulge"} == set()
    assert "macro_f1" in found.figures["decision/paper_threshold/unprojected"]


def test_each_figure_is_of_its_own_features(asked):
    encoded, targets, *_ = asked
    figures = further_figures(*asked).figures
    for space, features in (("unprojected", encoded.features), ("projected", encoded.embeds)):
        answered = paper_probe(features, targets, seed=0).probabilities["test"]
        expected = finding_estimates(targets["test"], answered, answered > 0.5, FEW, {})
        assert figures[f"probe/paper/{space}"] == expected
    of_bulge = [figures[f"probe/paper/{space}"]["auroc/bulge"].value for space in ("unprojected", "projected")]
    assert abs(of_bulge[0] - of_bulge[1]) > 0.1  # so that a swap of the spaces is seen


def test_prompts_are_calibrated_from_their_logits(asked):
    encoded, targets, headline, zero_shot, _ = asked
    sharp = {split: 40 * of_split for split, of_split in zero_shot.items()}
    plain, sharpened = (further_figures(encoded, targets, headline, of, FEW) for of in (zero_shot, sharp))
    np.testing.assert_allclose(plain.zero_shot_probabilities, 1 / (1 + np.exp(-zero_shot["test"])))
    temperatures = [of.zero_shot_calibration.calibration.temperatures for of in (plain, sharpened)]
    inside = (temperatures[0] * 40 < 100) & (temperatures[0] != 1)
    np.testing.assert_allclose(temperatures[1][inside], 40 * temperatures[0][inside], rtol=1e-4)


def test_an_evaluation_fits_each_probe_once(tiny_model, tiny_processor, tiny_dataset_folder, monkeypatch):
    calls = []

    def counted(name, fit):
        def count(features, *args, **kwargs):
            calls.append((name, features["train"].shape[1]))
            return fit(features, *args, **kwargs)

        return count

    for name, modules in {
        "paper_probe": (further_protocols, predictions),
        "nearest_neighbour_probe": (further_protocols, predictions),
        "logistic_probe": (predictions,),
        "linear_probe": (suite,),
        "grade_probe": (suite, predictions),
    }.items():
        for module in modules:
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    dataset = open_dataset(str(tiny_dataset_folder))
    measure(
        tiny_model,
        tiny_processor,
        dataset,
        batch_size=8,
        with_baselines=False,
        with_further=True,
        resampling=FEW,
        cache_dir=None,
    )
    unprojected, projected = 24, 8
    assert sorted(calls) == sorted(
        [
            ("linear_probe", unprojected),
            ("grade_probe", unprojected),
            *[("paper_probe", unprojected)] * 3,  # and two remedies
            ("nearest_neighbour_probe", unprojected),
            ("paper_probe", projected),
            ("logistic_probe", projected),
            ("nearest_neighbour_probe", projected),
        ]
    )
