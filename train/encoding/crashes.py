"""Files whose decoder takes its process down with it: found, so that they are listed like others that cannot be read.

A decoder of images is C: a broken file may end the process that reads it, and no exception says so.
"""

import multiprocessing
from collections.abc import Iterable

import torch

from train.encoding.read_batch import Inputs, Reference

CRASHED = "unreadable image: its decoder crashed"
# How PyTorch begins its message when a worker process has died.
WORKER_DIED = "DataLoader worker"


def find_crashing(inputs: Inputs, batches: Iterable[list[Reference]]) -> set[Reference]:
    """Read batches again, each in a process of its own, and what is in those that died one by one.

    Args:
        inputs: What they are of.
        batches: Those among which one crashed.

    Returns:
        Those that crash by themselves; none if something else had killed the process, such as want of memory.
    """
    return {
        reference
        for batch in batches
        if _kills_its_reader(inputs, batch)
        for reference in batch
        if _kills_its_reader(inputs, [reference])
    }


def _kills_its_reader(inputs: Inputs, references: list[Reference]) -> bool:
    reader = multiprocessing.Process(target=_read, args=(inputs, references))
    reader.start()
    reader.join()
    return reader.exitcode is not None and reader.exitcode < 0  # minus the signal that ended it


def _read(inputs: Inputs, references: list[Reference]) -> None:
    torch.set_num_threads(1)  # the threads of the process that forked are not in this one
    inputs[references]
