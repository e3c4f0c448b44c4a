"""Losses of segmentation by name: settings, what is counted, and one process against two."""

import math
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import PROJECT
from tests.train.objectives.segmentation_steps import NAMES, batches, train_steps
from train.objectives.overlap import pixel_cross_entropy, soft_overlap, tversky_loss
from train.objectives.segmentation import SEGMENTATION_LOSSES, SegmentationLoss, SegmentationLossSettings

EXPECTED = {
    "cross_entropy": pixel_cross_entropy,
    "dice": lambda *batch: tversky_loss(soft_overlap(*batch), 0.5),
    "dice_ce": lambda *batch: tversky_loss(soft_overlap(*batch), 0.5) + pixel_cross_entropy(*batch),
    "tversky": lambda *batch: tversky_loss(soft_overlap(*batch), 0.7),
    "focal_tversky": lambda *batch: tversky_loss(soft_overlap(*batch), 0.7, 0.75),
    "pid_tversky": lambda *batch: tversky_loss(soft_overlap(*batch), 0.5),  # in the first epoch
}


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_each_name_is_its_loss(name):
    (batch, *_) = batches()
    assert SegmentationLoss(name, NAMES)(*batch).item() == pytest.approx(EXPECTED[name](*batch).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [None, 0.75])
@pytest.mark.parametrize("weight", [0.5, 0.7])
def test_pid_with_gains_of_zero_is_tversky_bit_for_bit(weight, gamma):
    settings = {"false_negative_weight": weight, "gamma": gamma}
    fixed, _ = train_steps(SegmentationLoss("tversky", NAMES, SegmentationLossSettings(**settings)))
    still = SegmentationLossSettings(**settings, pid_gains=[0.0, 0.0, 0.0])
    assert train_steps(SegmentationLoss("pid_tversky", NAMES, still))[0] == fixed
    assert train_steps(SegmentationLoss("pid_tversky", NAMES, SegmentationLossSettings(**settings)))[0] != fixed


def test_weights_move_at_the_end_of_an_epoch_alone_and_only_training_counts():
    loss, (batch, *_) = SegmentationLoss("pid_tversky", NAMES), batches()
    before = loss(*batch).item()
    assert loss(*batch).item() == before
    loss.eval()
    counted = loss.class_weights.counts.clone()
    loss(*batch)
    assert torch.equal(loss.class_weights.counts, counted) and counted.any()
    assert loss.end_epoch().keys() == {f"{part}/{name}" for part in ("fn_weight", "error") for name in NAMES[1:]}
    assert loss(*batch).item() != before and not loss.class_weights.counts.any()


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "dice_ce"])
def test_losses_without_weights_have_no_state_and_say_nothing(name):
    loss = SegmentationLoss(name, NAMES)
    assert not loss.state_dict() and loss.end_epoch() == {}


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_two_processes_compute_the_losses_and_weights_of_one(name, two_processes):
    history, weights = train_steps(SegmentationLoss(name, NAMES).double())
    for of_process in two_processes:
        found_history, found_weights = of_process[name]
        for found, expected in zip(found_history, history, strict=True):
            assert found == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(found_weights, weights, rtol=1e-9, atol=1e-12)
    (first_history, _), (second_history, _) = (of_process[name] for of_process in two_processes)
    assert first_history == second_history  # to the bit, or their weights would part


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    module = "tests.train.objectives.segmentation_steps"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", module]
    done = subprocess.run([*launch, str(folder)], capture_output=True, text=True, env=environment, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"process-{rank}.pt") for rank in range(2)]


def test_weights_of_a_run_are_taken_as_average_or_in_another_order(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    lines = [f'{{"update": {e}, "fn_weight/disc": {b}, "fn_weight/canal": 0.5}}\n' for e, b in ((1, 0.25), (2, 0.75))]
    (tmp_path / "history.jsonl").write_text("".join(lines))
    taken = {}
    for schedule in ("average", "shuffled"):
        settings = SegmentationLossSettings(pid_run=str(tmp_path), pid_schedule=schedule, seed=3)
        loss, taken[schedule] = SegmentationLoss("tversky", NAMES, settings), []
        for _ in range(2):
            taken[schedule].append(loss.end_epoch()["fn_weight/disc"])
    assert taken == {"average": [0.5, 0.5], "shuffled": [0.75, 0.25]}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("jaccard", {}, "There is no loss 'jaccard': choose one of cross_entropy, dice, "),
        ("dice", {"false_negative_weight": 0.7}, "dice does not use false_negative_weight: leave it out"),
        ("dice_ce", {"gamma": 2.0}, "dice_ce does not use gamma"),
        ("cross_entropy", {"gamma": 1.0, "pid_run": "run"}, "cross_entropy does not use gamma and pid_run"),
        ("tversky", {"pid_gains": [1, 0, 0]}, "tversky does not use pid_gains"),
        ("tversky", {"pid_limits": [0.1, 0.9]}, "tversky does not use pid_limits"),
        ("tversky", {"pid_schedule": "shuffled"}, "tversky does not use pid_schedule"),
        (
            "tversky",
            {"pid_run": "run", "false_negative_weight": 0.5},
            "with pid_run does not use false_negative_weight",
        ),
        ("pid_tversky", {"pid_run": "run"}, "pid_tversky does not use pid_run|with pid_run does not use pid_run"),
        ("tversky", {"false_negative_weight": 1.0}, "between 0 and 1; got 1.0"),
        ("tversky", {"false_negative_weight": math.nan}, "between 0 and 1; got nan"),
        ("tversky", {"gamma": 0.0}, "above 0; got 0.0"),
        ("tversky", {"gamma": math.nan}, "above 0; got nan"),
        ("pid_tversky", {"pid_gains": [1, 2]}, r"three numbers, 0 or more; got \[1, 2\]"),
        ("pid_tversky", {"pid_gains": [1, -1, 0]}, "three numbers, 0 or more"),
        ("pid_tversky", {"pid_gains": [1, math.nan, 0]}, "three numbers, 0 or more"),
        ("pid_tversky", {"pid_limits": [0.8, 0.2]}, r"two rising numbers from 0 to 1; got \[0.8, 0.2\]"),
        ("pid_tversky", {"pid_limits": [0.2, 1.2]}, "two rising numbers"),
        ("pid_tversky", {"false_negative_weight": 0.9}, r"starts at the false_negative_weight 0.9, outside pid_limits"),
        ("tversky", {"pid_run": "run", "pid_schedule": "sorted"}, "average or shuffled; got 'sorted'"),
    ],
)
def test_settings_that_a_loss_cannot_use_are_told(name, settings, words):
    with pytest.raises(ValueError, match=words):
        SegmentationLossSettings(**settings).check(name)


def test_default_settings_fit_every_loss_also_from_yaml():
    for name in SEGMENTATION_LOSSES:
        SegmentationLossSettings(pid_gains=[0.5, 0.1, 0.1], pid_limits=[0.2, 0.8]).check(name)
