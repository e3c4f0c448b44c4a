"""Texts of a pair: variations keep the facts and come out the same in every run, sentences are those of the reader."""

import numpy as np
import pytest

from data_scripts.reports.text import report_facts
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, sample_level
from data_scripts.sources.synthetic.reports import write_reports
from train.data import report_texts
from train.data.report_texts import VARIATIONS, augmented_texts, eda_variations, parts_of_texts


@pytest.fixture(scope="module")
def rows():
    """Reports of six levels, with two rephrasings each, save that the last has none."""
    random = np.random.default_rng(0)
    texts = [write_reports(sample_level(level, random), random, count=3) for level in (*SYNTHETIC_LEVELS, "L4/L5")]
    return [report for report, *_ in texts], [*(list(rest) for _, *rest in texts[:-1]), []]


@pytest.mark.parametrize("augmentation, counts", [("eda", {4}), ("both", {4, 8})])
def test_variations_keep_the_facts_of_their_texts(rows, augmentation, counts):
    reports, rephrasings = rows
    augmented = augmented_texts(reports, rephrasings, augmentation, seed=0, show_progress=False)
    assert {len(texts) for (texts,) in augmented} == counts
    for report, rephrased, (texts,) in zip(reports, rephrasings, augmented, strict=True):
        sources = [report] if augmentation == "eda" or not rephrased else rephrased
        for place, text in enumerate(texts):
            source = sources[place // VARIATIONS]
            assert report_facts(text) == report_facts(source) and text != source
            assert text == eda_variations(source, seed=0)[place % VARIATIONS]


def test_rephrasings_and_none_are_what_the_rows_hold(rows):
    reports, rephrasings = rows
    expected = [[texts] if texts else [] for texts in rephrasings]
    assert augmented_texts(reports, rephrasings, "rephrasings", seed=0) == expected
    assert augmented_texts(reports, rephrasings, "none", seed=0) == [[]] * len(reports)
    with pytest.raises(ValueError, match="text_augmentation must be one of rephrasings, eda.*got 'aeda'"):
        augmented_texts(reports, rephrasings, "aeda", seed=0)


@pytest.mark.parametrize("texts_per_pair", [2, 3, 5])
def test_several_texts_are_the_report_and_its_rephrasings(rows, texts_per_pair):
    """Each may be varied; a pair has its texts whether or not an epoch shows as many."""
    reports, rephrasings = rows
    plain, eda, both = (
        augmented_texts(reports, rephrasings, augmentation, 0, texts_per_pair, show_progress=False)
        for augmentation in ("rephrasings", "eda", "both")
    )
    for report, rephrased, *texts in zip(reports, rephrasings, plain, eda, both, strict=True):
        originals, variations = [report, *rephrased], list(eda_variations(report, seed=0))
        assert texts[0] == [[text] for text in originals]
        assert texts[1] == [[text] for text in (report, *variations)]
        assert texts[2] == [list(eda_variations(text, seed=0)) for text in originals]


def test_variations_follow_from_text_and_seed(rows):
    report = rows[0][0]
    eda_variations.cache_clear()
    first = eda_variations(report, 3)
    eda_variations.cache_clear()
    assert eda_variations(report, 3) == first != eda_variations(report, 4)
    assert len(set(first)) > 1


def test_a_text_is_varied_once_in_a_process(rows, monkeypatch):
    varied = []
    original = report_texts.augment_text
    monkeypatch.setattr(
        report_texts, "augment_text", lambda text, random: varied.append(text) or original(text, random)
    )
    reports = [*rows[0], *rows[0]]  # T1 and T2 of a level share their report
    for _ in range(2):
        augmented_texts(reports, [[]] * len(reports), "eda", seed=271, show_progress=False)
    assert len(varied) == VARIATIONS * len(set(reports))


def test_parts_are_whole_reports_or_sentences():
    texts = ["Bulge at L4/L5. No stenosis.", "disc bulge at L4/L5", "//", "disc bulge at L4/L5"]
    assert parts_of_texts(texts, "report") == {text: (text,) for text in texts}
    assert parts_of_texts(texts, "sentence") == {
        "Bulge at L4/L5. No stenosis.": ("Bulge at L4/L5.", "No stenosis."),
        "disc bulge at L4/L5": ("disc bulge at L4/L5",),
        "//": ("//",),  # nothing to cut; the tower still needs a text
    }
    with pytest.raises(ValueError, match="text_unit must be one of report, sentence; got 'word'"):
        parts_of_texts(texts, "word")
