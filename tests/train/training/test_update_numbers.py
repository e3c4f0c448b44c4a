"""Numbers of several updates and processes, read together, come back in their order, or name the first bad one."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from train.training.update_numbers import Step, Update, UpdateNumbers

SOURCES = [f"source {row}" for row in range(8)]


def update(number, losses, norm=1.0, is_skipped=False, first_row=0):
    """Rows are numbered from the first one on, two a step."""
    steps = [
        Step(
            torch.tensor([first_row + 2 * i, first_row + 2 * i + 1]), torch.tensor(loss), {"t": torch.tensor(10 * loss)}
        )
        for i, loss in enumerate(losses)
    ]
    return Update(number, 0.5, steps, torch.tensor(sum(losses) / len(losses)), torch.tensor(norm), is_skipped)


def of_two_processes(own, other):
    """The accelerator of the process `own` of two, with what the other one gathers in the same order."""
    gathered = iter(other)

    def gather(tensor):
        both = [tensor, next(gathered)]
        return torch.cat(both if own == 0 else both[::-1])

    return SimpleNamespace(process_index=own, num_processes=2, gather=gather, device=torch.device("cpu"))


def read(numbers):
    return [(step.rows.tolist(), step.loss, dict(step.numbers)) for step in numbers.read()]


def test_steps_come_back_in_order_and_once():
    numbers = UpdateNumbers(Accelerator(cpu=True), SOURCES)
    assert read(numbers) == []
    numbers.add(update(1, [0.5, 0.25]))
    numbers.add(update(2, [0.75], first_row=4))
    assert read(numbers) == [([0, 1], 0.5, {"t": 5.0}), ([2, 3], 0.25, {"t": 2.5}), ([4, 5], 0.75, {"t": 7.5})]
    assert numbers.last_loss == 0.75 and read(numbers) == []


def test_a_skipped_update_is_measured_by_nobody_and_its_norm_is_no_error():
    numbers = UpdateNumbers(Accelerator(cpu=True), SOURCES)
    numbers.add(update(1, [0.5]))
    numbers.add(update(2, [0.25], norm=math.inf, is_skipped=True))
    assert [loss for _, loss, _ in read(numbers)] == [0.5]
    assert numbers.last_loss == 0.25
    numbers.add(update(3, [math.nan], norm=math.nan, is_skipped=True))
    with pytest.raises(FloatingPointError, match="The loss is nan at update 3"):
        numbers.read()


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        (
            [update(1, [1.0]), update(2, [1.0], norm=math.inf)],
            "gradient norm is inf at update 2 .*: source 0, source 1,",
        ),
        ([update(1, [1.0, math.nan], norm=math.nan)], "loss is nan at update 1 .*: source 2, source 3,"),
        ([update(1, [1.0], norm=math.nan), update(2, [math.nan])], "gradient norm is nan at update 1 "),
        ([update(1, [math.inf]), update(2, [math.nan])], r"loss is inf at update 1 \(learning rate 0.5\)"),
    ],
)
def test_the_first_bad_number_is_named_with_its_rows(updates, said):
    numbers = UpdateNumbers(Accelerator(cpu=True), SOURCES)
    for one in updates:
        numbers.add(one)
    with pytest.raises(FloatingPointError, match=said):
        numbers.read()


@pytest.mark.parametrize("own", [0, 1])
def test_processes_know_the_rows_of_all_and_the_loss_of_their_own(own):
    # The scalars of a process in order: loss and t of the step, mean loss, norm; then its rows.
    others = torch.tensor([[0.25, 2.5, 0.25, 1.0]]), torch.tensor([[[6, 7]]])
    numbers = UpdateNumbers(of_two_processes(own, others), SOURCES)
    numbers.add(update(1, [0.5], first_row=2))
    rows = [2, 3, 6, 7] if own == 0 else [6, 7, 2, 3]
    assert read(numbers) == [(rows, 0.5, {"t": 5.0})] and numbers.last_loss == 0.5


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("bad", ["own", "other"])
def test_processes_give_the_same_error(own, bad):
    theirs = math.nan if bad == "other" else 0.25
    others = torch.tensor([[theirs, 2.5, theirs, 1.0]]), torch.tensor([[[6, 7]]])
    numbers = UpdateNumbers(of_two_processes(own, others), SOURCES)
    numbers.add(update(1, [math.nan if bad == "own" else 0.5], first_row=2))
    with pytest.raises(FloatingPointError, match=f"nan at update 1 .*: source {2 if bad == 'own' else 6}, source "):
        numbers.read()
