"""Processes wait for the one that evaluates."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from train.experiments import experiment
from train.training import loop


class BegunError(Exception):
    """Raised where a script has begun its processes."""


@pytest.mark.parametrize(
    ("module", "begin"),
    [(loop, lambda args: loop.run_task(None, args, None)), (experiment, experiment.run_experiment)],
)
def test_processes_wait_for_hours_while_the_first_one_evaluates(module, begin, monkeypatch):
    def accelerator(kwargs_handlers=(), **_):
        raise BegunError(*(handler.timeout for handler in kwargs_handlers))

    monkeypatch.setattr(module, "Accelerator", accelerator)
    args = SimpleNamespace(gradient_accumulation_steps=1, report_to="none", output_dir="out", out="out")
    with pytest.raises(BegunError) as begun:
        begin(args)
    (timeout,) = begun.value.args
    assert timeout >= timedelta(hours=6)
