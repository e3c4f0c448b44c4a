"""Which rows an epoch holds and which meet in a batch: counted by hand, against bounds, and across processes."""

from collections import Counter
from math import comb

import numpy as np
import pytest

from train.data.batch_sampler import (
    EpochBatches,
    TrainingSet,
    Upsampling,
    deal,
    exclusive_or_all,
    upsample_minorities,
)


def reports_of_patients(random, num_rows):
    """Several images a report, several reports a patient, and one report that many patients share."""
    patients = random.integers(0, max(2, num_rows // 6), num_rows)
    texts = patients * 3 + random.integers(0, 3, num_rows)
    texts[random.random(num_rows) < 0.3] = 0
    return texts, patients


def upsampling_of(num_rows):
    """A quarter of the rows are of the minority."""
    return upsample_minorities(np.eye(2, dtype=bool)[(np.arange(num_rows) % 4 == 0).astype(int)])


def options(num_rows):
    texts, patients = reports_of_patients(np.random.default_rng(9), num_rows)
    upsampling = upsampling_of(num_rows)
    return [
        {},
        {"upsampling": upsampling},
        {"text_and_patient_ids": (texts, patients)},
        {"upsampling": upsampling, "text_and_patient_ids": (texts, patients)},
    ]


def steps_of(batches, first_step, num_steps):
    batches.first_step = first_step
    iterator = iter(batches)
    return [next(iterator) for _ in range(num_steps)]


def test_without_balance_an_epoch_is_a_permutation_cut_into_batches():
    """The order that earlier runs had."""
    steps = steps_of(EpochBatches(50, 8, seed=3), 0, 12)
    for epoch in range(2):
        order = np.random.default_rng([3, epoch]).permutation(50)[:48].reshape(6, 8)
        assert steps[6 * epoch : 6 * epoch + 6] == [[(epoch, row) for row in batch] for batch in order.tolist()]


@pytest.mark.parametrize("balance", options(50), ids=["none", "upsample", "sampler", "both"])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_batches_of_one(balance, num_processes):
    one = steps_of(EpochBatches(50, 4 * num_processes, seed=3, **balance), 0, 20)
    many = [steps_of(EpochBatches(50, 4, 3, rank, num_processes, **balance), 0, 20) for rank in range(num_processes)]
    assert one == [[row for part in parts for row in part] for parts in zip(*many, strict=True)]


@pytest.mark.parametrize("balance", options(50), ids=["none", "upsample", "sampler", "both"])
def test_a_run_resumes_anywhere_and_epochs_differ(balance):
    batches = EpochBatches(50, 8, seed=0, **balance)
    steps = steps_of(batches, 0, 3 * len(batches))
    assert {epoch for step in steps for epoch, _ in step} == {0, 1, 2}
    for first in (0, 4, 6, 13):
        assert steps_of(batches, first, 3) == steps[first : first + 3]
    rows = [[[row for _, row in step] for step in steps[len(batches) * e : len(batches) * (e + 1)]] for e in (0, 1)]
    assert rows[0] != rows[1]


def test_dealing_leaves_out_the_rows_that_drawing_leaves_out():
    (drawn, _, dealt, _) = (EpochBatches(50, 8, seed=0, **balance) for balance in options(50))
    for epoch in range(5):
        assert sorted(dealt.batches_of_epoch(epoch).ravel()) == sorted(drawn.batches_of_epoch(epoch).ravel())
        assert len(np.unique(dealt.batches_of_epoch(epoch))) == 48


@pytest.mark.parametrize("seed", range(20))
def test_dealt_batches_hold_as_few_pairs_of_one_report_as_any_batches_could(seed):
    random = np.random.default_rng(seed)
    num_batches, batch_size = random.integers(1, 12), random.integers(1, 12)
    num_rows = num_batches * batch_size
    texts, patients = reports_of_patients(random, num_rows + 3)
    rows = random.permutation(num_rows + 3)[:num_rows]
    batches = deal(rows, texts, patients, num_batches)
    assert batches.shape == (num_batches, batch_size) and sorted(batches.ravel()) == sorted(rows)
    collisions = sum(comb(n, 2) for batch in texts[batches] for n in Counter(batch.tolist()).values())
    assert collisions == sum(fewest_collisions(n, num_batches) for n in Counter(texts[rows].tolist()).values())


def fewest_collisions(num_pairs, num_batches):
    """Pairs of pairs in one batch, when each next one goes to a batch that has the fewest."""
    held = [0] * num_batches
    for _ in range(num_pairs):
        held[held.index(min(held))] += 1
    return sum(comb(n, 2) for n in held)


def test_patients_are_spread_evenly_where_they_share_no_report():
    """Six images of each of three levels of a patient, as in the paper's data: 90 rows in 9 batches."""
    patients = np.repeat(np.arange(5), 18)
    texts = np.repeat(np.arange(15), 6)
    batches = EpochBatches(90, 10, seed=1, text_and_patient_ids=(texts, patients)).batches_of_epoch(0)
    for batch in batches:
        assert np.bincount(patients[batch], minlength=5).tolist() == [2] * 5
        assert len(np.unique(texts[batch])) == 10
    for place in batches.T:  # or one process would get the same patients in every step
        assert len(np.unique(patients[place])) > 1


def test_patients_who_share_reports_meet_more_seldom_than_by_chance():
    texts, patients = reports_of_patients(np.random.default_rng(0), 600)
    meetings = {
        name: sum(
            comb(n, 2)
            for batch in patients[EpochBatches(600, 30, seed=0, **balance).batches_of_epoch(0)]
            for n in Counter(batch.tolist()).values()
        )
        for name, balance in {"drawn": {}, "dealt": {"text_and_patient_ids": (texts, patients)}}.items()
    }
    assert meetings["dealt"] < 0.6 * meetings["drawn"]


def test_dealing_fixes_neither_companions_nor_distances():
    """Over epochs row 0 meets every row of another report, and its report comes back after 1, 2 or 3 steps."""
    texts = np.repeat(np.arange(20), 2)
    batches = EpochBatches(40, 10, seed=0, text_and_patient_ids=(texts, texts))
    met, steps_between = set(), set()
    for epoch in range(60):
        dealt = batches.batches_of_epoch(epoch).tolist()
        (first,), (second,) = ([step for step, batch in enumerate(dealt) if row in batch] for row in (0, 1))
        met |= set(dealt[first])
        steps_between.add(abs(first - second))
    assert met == set(range(40)) - {1} and steps_between == {1, 2, 3}


def test_exclusive_classes_get_equal_numbers_and_every_row_its_turn():
    classes = np.eye(3, dtype=bool)[[0] * 17 + [1] * 5 + [2] * 8]
    upsampling = upsample_minorities(classes)
    assert upsampling.rows_of_class.tolist() == [17, 17, 17] and len(upsampling) == 51
    twice = []
    for seed in range(20):
        drawn = upsampling.draw(np.random.default_rng(seed))
        times = np.bincount(drawn, minlength=30)
        assert set(times[:17]) == {1} and set(times[17:22]) == {3, 4} and set(times[22:]) == {2, 3}
        twice.append(tuple(np.flatnonzero(times[17:22] == 4)))
    assert set().union(*twice) == set(range(5))  # no row is always the one repeated less


def test_several_labels_repeat_by_the_root_of_the_rarest():
    # Label 0 in 9 rows, label 1 in 4, label 2 in none, label 3 in 1.
    classes = np.zeros((10, 4), dtype=bool)
    classes[:9, 0] = classes[6:10, 1] = classes[9, 3] = True
    upsampling = upsample_minorities(classes)
    assert upsampling.class_of_row.tolist() == [0] * 6 + [1] * 3 + [3]
    assert upsampling.rows_of_class.tolist() == [6, round(3 * 1.5), 0, 3]


@pytest.mark.parametrize(
    "counts, share, expected",
    [
        ([17, 5, 8], 0.5, [17, 17, 17]),
        ([30, 2, 8], 0.2, [30, 8, 8]),  # 7.5 of 37.5 would be enough: no row of the third is left out
        ([30, 2, 9], 0.25, [30, 10, 10]),
        ([30, 20, 29], 0.25, [30, 20, 29]),  # all have more than the share
        ([9870, 1770], 0.1607, [9870, 1890]),  # Table 1 of the paper
    ],
)
def test_a_rare_class_is_raised_to_its_share_beside_the_largest(counts, share, expected):
    classes = np.eye(len(counts), dtype=bool)[np.repeat(np.arange(len(counts)), counts)]
    upsampling = upsample_minorities(classes, share)
    assert upsampling.rows_of_class.tolist() == expected
    drawn = upsampling.draw(np.random.default_rng(0))
    assert np.bincount(drawn, minlength=len(classes)).min() == 1  # every row its turn


def test_the_augmented_set_holds_every_row_with_each_text():
    classes = np.eye(2, dtype=bool)[[0] * 6 + [1] * 2]
    assert TrainingSet().rows(classes, seed=0).tolist() == list(range(8))
    assert TrainingSet(texts_per_pair=3).rows(classes, seed=0).tolist() == [*range(8)] * 3
    once = TrainingSet(balance=["upsample"]).rows(classes, seed=0)
    assert np.bincount(once).tolist() == [1] * 6 + [3] * 2
    thrice = TrainingSet(texts_per_pair=3, balance=["upsample"], minority_share=0.35).rows(classes, seed=0)
    times = np.bincount(thrice)  # 18 rows of the first class, so 18 * 0.35 / 0.65 = 9.7 of the second
    assert times[:6].tolist() == [3] * 6 and times[6:].sum() == 10 and times[6:].min() >= 3


def test_a_training_set_is_read_from_the_settings_of_runs_old_and_new():
    assert TrainingSet.of({"batch_size": 8}) == TrainingSet()
    settings = {"balance": ["upsample"], "texts_per_pair": 5, "minority_share": 0.2, "alpha": 0.5}
    assert TrainingSet.of(settings) == TrainingSet(5, ["upsample"], 0.2)


def test_the_pair_is_balanced_if_it_divides_the_rows_and_else_all_labels():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)
    assert exclusive_or_all(labels, ("LBP", "bulge", "No Finding")).tolist() == labels[:, [0, 2]].tolist()
    assert exclusive_or_all(labels, ("LBP", "bulge", "normal")).tolist() == labels.tolist()
    unlabelled = np.concatenate([labels, np.zeros((1, 3), dtype=bool)])
    assert exclusive_or_all(unlabelled, ("LBP", "bulge", "No Finding"))[:, 3].tolist() == [False, False, False, True]


def test_a_row_without_class_is_refused():
    with pytest.raises(ValueError, match="1 of 2 rows have no class"):
        upsample_minorities(np.array([[True], [False]]))


def test_an_upsampled_epoch_is_longer_and_balanced_in_its_batches():
    batches = EpochBatches(80, 8, seed=0, upsampling=upsampling_of(80))
    assert len(batches) == 15  # 60 rows of each class
    rows = np.concatenate([batches.batches_of_epoch(epoch).ravel() for epoch in range(10)])
    assert (rows % 4 == 0).mean() == 0.5
    shares = (batches.batches_of_epoch(0) % 4 == 0).mean(axis=1)
    assert 0 < shares.min() < shares.max() < 1  # shuffled, not class after class


def test_too_few_rows_for_a_batch():
    with pytest.raises(ValueError, match="10 training pairs.*batch of 16.*lower --batch_size"):
        EpochBatches(10, 16, seed=0)
    assert len(EpochBatches(10, 16, seed=0, upsampling=Upsampling(np.zeros(10, dtype=int), np.array([16])))) == 1
