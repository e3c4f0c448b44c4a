"""The controller of the class weights: equations by hand, resume, bad input, and two processes."""

import json
import logging
import math

import pytest
import torch

from train.objectives.overlap import Overlap
from train.objectives.pid_tversky import (
    Gains,
    Limits,
    PIDController,
    WeightSchedule,
    average_schedule,
    epoch_errors,
    read_weights,
    shuffled_schedule,
)

NAMES = ("disc", "canal")


def overlap(*classes):
    """TP, FP and FN by class."""
    return Overlap(*torch.tensor(classes, dtype=torch.float32).T)


def with_error(error):
    """An overlap whose error is this; precision is 1 where a class is drawn too small, else recall."""
    return (1 - abs(error), 0.0, error) if error >= 0 else (1 + error, -error, 0.0)


def plain_controller(errors, start, gains, limits):
    """The weights after each epoch of one class, in plain Python."""
    total, before, weights = 0.0, None, []
    for error in errors:
        change = 0.0 if before is None else error - before
        raw = start + gains[0] * error + gains[1] * (total + error) + gains[2] * change
        if not (raw > limits[1] and error > 0) and not (raw < limits[0] and error < 0):
            total += error
        raw = start + gains[0] * error + gains[1] * total + gains[2] * change
        weights.append(min(max(raw, limits[0]), limits[1]))
        before = error
    return weights


def test_errors_are_precision_less_recall():
    values = epoch_errors(overlap((6, 2, 4), (3, 0, 0), (0, 0, 5), (0, 7, 0), (0, 2, 5)))
    assert values[:3].tolist() == pytest.approx([6 / 8 - 6 / 10, 0.0, 1.0])
    assert math.isnan(values[3]) and values[4].item() == pytest.approx(0.0)


@pytest.mark.parametrize("gains", [(0.5, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 1.0), (2.0, 1.0, 0.5)])
def test_weights_are_those_of_the_equations(gains):
    errors = [0.4, 0.5, 0.3, 0.1, -0.2, -0.6, -0.5, 0.05, 0.0, 0.3]
    controller = PIDController(NAMES, 0.45, Gains(*gains), Limits(0.25, 0.7))
    found = []
    for error in errors:
        controller.observe(overlap(with_error(error), with_error(-error)))
        controller.end_epoch()
        found.append(controller.false_negative_weights.tolist())
    of_disc = plain_controller(errors, 0.45, gains, (0.25, 0.7))
    of_canal = plain_controller([-error for error in errors], 0.45, gains, (0.25, 0.7))
    assert [weights[0] for weights in found] == pytest.approx(of_disc, abs=1e-5)
    assert [weights[1] for weights in found] == pytest.approx(of_canal, abs=1e-5)


def test_a_weight_at_its_limit_comes_back_as_soon_as_the_error_turns():
    controller = PIDController(("disc",), gains=Gains(0.0, 0.2, 0.0), limits=Limits(0.2, 0.8))
    for error in [0.5] * 50 + [-0.5]:
        controller.observe(overlap(with_error(error)))
        controller.end_epoch()
    assert controller.false_negative_weights.item() == pytest.approx(0.7)


def test_steps_of_an_epoch_are_added_up_and_the_history_has_the_weights_in_force():
    controller = PIDController(NAMES, gains=Gains(1.0, 0.0, 0.0))
    for step in (overlap((4, 0, 4), (1, 1, 0)), overlap((2, 2, 0), (1, 1, 0))):
        controller.observe(step)
    first = controller.end_epoch()
    assert first == {
        **{"fn_weight/disc": 0.5, "fn_weight/canal": 0.5},
        **{"error/disc": pytest.approx(4 / 10 - 2 / 8), "error/canal": pytest.approx(-0.5)},
    }
    controller.observe(overlap((1, 0, 0), (1, 0, 0)))
    second = controller.end_epoch()
    assert second["fn_weight/disc"] == pytest.approx(0.65) and second["fn_weight/canal"] == pytest.approx(0.2)


@pytest.mark.parametrize("start", [0.3, 0.5, 0.7])
def test_gains_of_zero_never_move_a_weight(start):
    controller = PIDController(NAMES, start, Gains(0.0, 0.0, 0.0))
    for error in (0.9, -0.9, 0.1):
        controller.observe(overlap(with_error(error), with_error(error / 3)))
        controller.end_epoch()
        assert torch.equal(controller.false_negative_weights, torch.tensor([start, start]))


def test_a_class_that_an_epoch_lacks_keeps_its_weight_and_is_named_once(caplog):
    controller = PIDController(NAMES, gains=Gains(1.0, 0.5, 1.0))
    reference = PIDController(("disc",), gains=Gains(1.0, 0.5, 1.0))
    for disc, canal in (((3, 1, 2), (3, 2, 1)), ((3, 1, 2), (0, 3, 0)), ((4, 1, 2), (0, 0, 0)), ((3, 1, 2), (3, 1, 1))):
        kept = controller.false_negative_weights[1].item()
        controller.observe(overlap(disc, canal))
        reference.observe(overlap(disc))
        numbers = controller.end_epoch()
        reference.end_epoch()
        if canal[0] == 0:
            assert controller.false_negative_weights[1].item() == kept and "error/canal" not in numbers
        assert controller.false_negative_weights[0] == reference.false_negative_weights[0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No pixel of canal" in caplog.text and "stay at 0.275" in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_with_nan_is_left_out_with_a_warning(bad, caplog):
    controller, reference = (PIDController(NAMES) for _ in range(2))
    for step in (overlap((3, 1, 2), (3, 2, 1)), overlap((3, bad, 2), (3, 2, 1))):
        controller.observe(step)
    reference.observe(overlap((3, 1, 2), (3, 2, 1)))
    assert controller.end_epoch() == reference.end_epoch()
    assert "1 of the steps of this epoch had NaN" in caplog.text
    controller.observe(overlap((bad, bad, bad), (3, 2, 1)))
    before = controller.false_negative_weights.clone()
    numbers = controller.end_epoch()
    assert torch.equal(controller.false_negative_weights, before) and not any("error" in name for name in numbers)
    assert all(buffer.isfinite().all() for buffer in controller.buffers())


@pytest.mark.parametrize("make", [lambda: PIDController(NAMES), lambda: WeightSchedule(NAMES, torch.rand(6, 2))])
def test_a_resumed_run_goes_on_with_the_same_weights(make):
    torch.manual_seed(0)
    steps = [overlap(*(100 * torch.rand(2, 3)).tolist()) for _ in range(12)]

    def run(weights, own):
        found = []
        for number, step in own:
            weights.observe(step)
            if number % 2:
                found.append(weights.end_epoch())
        return found

    whole, begun = make(), make()
    begun.load_state_dict(whole.state_dict())
    expected = run(whole, enumerate(steps))
    found = run(begun, list(enumerate(steps))[:5])  # killed within an epoch
    resumed = make()
    resumed.load_state_dict(begun.state_dict())
    assert found + run(resumed, list(enumerate(steps))[5:]) == expected
    assert expected[0] != expected[-1]


@pytest.mark.parametrize("name", ["integral", "false_negative_weights", "num_epochs"])
def test_a_state_without_its_controller_is_told(name):
    controller = PIDController(NAMES)
    state = controller.state_dict()
    del state[name]
    with pytest.raises(ValueError, match=f"the state has no {name} of the class weights: it was saved with another"):
        controller.load_state_dict(state)


def test_a_state_of_other_classes_or_with_nan_is_told():
    controller = PIDController(NAMES)
    other = PIDController(("disc", "canal", "vertebra")).state_dict()
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(2,\): its classes are others"):
        controller.load_state_dict(other)
    state = controller.state_dict() | {"integral": torch.tensor([0.0, math.nan])}
    with pytest.raises(ValueError, match="NaN or infinity in integral"):
        controller.load_state_dict(state)


def test_a_schedule_is_followed_and_its_last_row_stays(caplog):
    caplog.set_level(logging.WARNING)
    schedule = WeightSchedule(NAMES, torch.tensor([[0.5, 0.5], [0.6, 0.4]]))
    found = []
    for _ in range(3):
        schedule.observe(overlap((3, 1, 2), (3, 2, 1)))
        found.append(schedule.end_epoch()["fn_weight/disc"])
    assert found == pytest.approx([0.5, 0.6, 0.6])


WEIGHTS = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [0.65, 0.2]])


@pytest.fixture
def finished(tmp_path):
    """A run of pid_tversky, with a line within an epoch."""
    (tmp_path / "checkpoint").mkdir()
    lines = [{"update": 1, "loss": 0.9}]
    for epoch, (disc, canal) in enumerate(WEIGHTS.tolist(), start=1):
        lines.append(
            {"update": 4 * epoch, "epoch": epoch, "loss": 0.5, "fn_weight/canal": canal, "fn_weight/disc": disc}
        )
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_weights_of_a_finished_run_are_read_in_the_order_of_the_classes(finished):
    assert torch.equal(read_weights(finished, NAMES), WEIGHTS)
    assert torch.equal(read_weights(finished, NAMES[::-1]), WEIGHTS.flip(1))


def test_average_is_that_of_each_class():
    torch.testing.assert_close(average_schedule(WEIGHTS), torch.tensor([[0.6125, 0.35]]))


def test_a_shuffled_schedule_has_the_same_epochs_in_another_order_by_seed():
    shuffled = [shuffled_schedule(WEIGHTS, seed) for seed in range(20)]
    for schedule in shuffled:
        assert sorted(schedule.tolist()) == sorted(WEIGHTS.tolist()) and not torch.equal(schedule, WEIGHTS)
    assert torch.equal(shuffled[0], shuffled_schedule(WEIGHTS, 0))
    assert len({str(schedule) for schedule in shuffled}) > 5
    with pytest.raises(ValueError, match="no other order"):
        shuffled_schedule(WEIGHTS[:1].repeat(3, 1), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "checkpoint").rmdir(), "is no finished run of pid_tversky: it has no checkpoint"),
        (
            lambda folder: (folder / "history.jsonl").unlink(),
            "has weights of no class, but the classes are disc, canal",
        ),
        (lambda folder: (folder / "history.jsonl").write_text('{"update": 1, "loss": 1}\n'), "weights of no class"),
        (lambda folder: (folder / "history.jsonl").write_text("{"), "history.jsonl, line 1, is not an update"),
        (lambda folder: append(folder, {"update": 99, "fn_weight/disc": 0.5}), "lacks a weight in some epoch"),
        (
            lambda folder: append(folder, {"update": 99, "fn_weight/disc": None, "fn_weight/canal": 0.5}),
            "lacks a weight",
        ),
        (
            lambda folder: append(folder, {"update": 99, "fn_weight/disc": 1.5, "fn_weight/canal": 0.5}),
            "outside 0 to 1",
        ),
        (lambda folder: append(folder, {"update": 99, "fn_weight/sacrum": 0.5}), "weights of canal, disc, sacrum, but"),
    ],
)
def test_a_run_that_gives_no_weights_is_told(change, words, finished):
    change(finished)
    with pytest.raises(ValueError, match=words):
        read_weights(finished, NAMES)


def append(folder, line):
    with (folder / "history.jsonl").open("a") as history:
        history.write(json.dumps(line) + "\n")
