"""Run a function over many items in worker processes, and survive items that kill or hang their process.

Image decoders are C code fed with files from anywhere: one may crash, eat all memory or never return. A worker
announces each item before touching it, so we know at which item it died or hung; another worker does the rest.

`concurrent.futures` gives up all tasks when one process dies, and has no time limit. `pebble` limits the time of a
task, not of its items, counts time in which everything was stopped (Ctrl-Z, a paused container), and does not say at
which item a process died.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Self, TypeVar

from tqdm.auto import tqdm

ITEM_SECONDS = 60.0  # a slice takes milliseconds, a whole volume seconds
NUM_DEATHS = 2  # one death may be another's fault: the system kills any process when memory runs out, a share hangs
BATCH_ITEMS = 32

_MAX_WAITING = 64  # results that wait in memory for an earlier one
# Forked from a server that has imported everything and runs no thread: as quick as a fork, and as safe as a spawn.
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)

Item = TypeVar("Item")
Announce = Callable[[int | None], None]
BatchFunction = Callable[[Any, Mapping[int, str], Announce], Any]


@dataclass(frozen=True)
class Crash:
    """Stands for the result of an item that killed or hung its process."""

    reason: str  # `reading it killed the process (SIGSEGV)`, or `reading it took more than 60 s`


@dataclass
class _Task:
    """A batch and what is known about its items."""

    index: int  # among all batches
    batch: Any
    crashed: dict[int, str] = field(default_factory=dict)  # reasons by index of the items not to touch again
    deaths: Counter[int | None] = field(default_factory=Counter)  # by item that killed a worker; None between items
    item: int | None = None  # the one the worker is at; None before the first and after the last
    num_announced: int = 0  # since the worker began
    announced_at: float = 0.0  # last sign of life, monotonic seconds; moved by the time this process stood still


class _Worker:
    """A process that runs one batch after the other, and our end of its pipe."""

    def __init__(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # or we would not see the process end
        self.task: _Task | None = None
        self.function: BatchFunction | None = None

    def give(self, task: _Task, function: BatchFunction) -> None:
        task.item, task.num_announced, task.announced_at = None, 0, time.monotonic()
        self.task = task
        with contextlib.suppress(OSError):  # it died meanwhile: `_listen` will see that
            known = function is self.function  # sent once: it may hold a list of all files
            self.connection.send((None if known else function, task.batch, task.crashed))
            self.function = function

    def is_overdue(self, item_seconds: float) -> bool:
        task = self.task
        return task is not None and task.item is not None and time.monotonic() - task.announced_at > item_seconds

    def stop(self) -> int | None:
        """End the process and return its exit code, negative for a signal."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class Workers:
    """At most `num_proc` processes, started when there is work and killed at the end of the `with` block.

    An item may take `item_seconds`. The fork server imports the modules of `preload` in the background.

    Example:
        with Workers(2) as workers:
            outcomes = list(workers.map(read_headers, paths))  # a `Crash` for each file that killed its process
    """

    def __init__(self, num_proc: int, item_seconds: float = ITEM_SECONDS, preload: Sequence[str] = ()) -> None:
        if num_proc < 1:
            raise ValueError(f"num_proc must be at least 1, got {num_proc}")
        self.num_proc = num_proc
        self.item_seconds = item_seconds
        self._preload = preload
        self._workers: list[_Worker] = []
        self._retries: deque[_Task] = deque()

    def __enter__(self) -> Self:
        _CONTEXT.set_forkserver_preload([__name__, *self._preload])
        if isinstance(_CONTEXT, ForkServerContext):
            resource_tracker.ensure_running()  # which would unblock the signal below
            # The server inherits the blocked signal: interrupted while it imports, it would print a traceback.
            unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def map(
        self,
        function: Callable[[Item], Any],
        items: Iterable[Item],
        on_items: Callable[[int], object] = lambda _: None,
        batch_items: int = BATCH_ITEMS,
    ) -> Iterator[Any]:
        """Apply a function to each item; yield the results in order.

        The function must be importable: workers look it up by name. Items are consumed only as fast as they are
        processed, and sent to a process `batch_items` at once. For `on_items`, see `run`.

        Yields:
            The function's result, or a `Crash`. What the function raises is raised here.
        """
        for results in self.run(partial(_apply, function), _batches(items, batch_items), on_items):
            yield from results

    def run(
        self,
        function: BatchFunction,
        batches: Iterable[Any],
        on_items: Callable[[int], object] = lambda _: None,
        max_waiting: int | None = None,
    ) -> Iterator[Any]:
        """Apply a function to batches; yield the results in order.

        Args:
            function: Importable, called with a batch, reasons by index of the items that it must not touch, and a
                function to call with the index of each item before touching it, and with None after the last.
            batches: Consumed only as fast as they are processed.
            on_items: Called with the number of items begun since the last call; negative when they are restarted.
            max_waiting: Results in memory that may wait for an earlier one, for batches with large results.

        Raises:
            RuntimeError: If workers die before the first item of a batch.
            ValueError: If they die after the last.
        """
        tasks = map(_Task, count(), batches)
        results: dict[int, Any] = {}
        num_done = 0
        patience = min(1.0, self.item_seconds / 4)
        looked_at = time.monotonic()
        try:
            while busy := self._hand_out(function, tasks, may_begin=len(results) < (max_waiting or _MAX_WAITING)):
                for connection in wait(list(busy), timeout=patience):
                    self._listen(busy[connection], results, on_items)  # type: ignore[index]
                while num_done in results:
                    yield results.pop(num_done)
                    num_done += 1
                # When this process stood still (Ctrl-Z, a paused container, swapping), so did its workers.
                last_look, looked_at = looked_at, time.monotonic()
                stood_still = max(0.0, looked_at - last_look - patience)
                for worker in busy.values():
                    if worker.task is not None:
                        worker.task.announced_at += stood_still
                    if worker.is_overdue(self.item_seconds):
                        self._replace(worker, on_items, f"reading it took more than {self.item_seconds:g} s")
        finally:  # an error, or a caller that wants no more results
            self._retries.clear()
            for worker in [worker for worker in self._workers if worker.task]:
                worker.stop()
                self._workers.remove(worker)

    def _hand_out(self, function: BatchFunction, tasks: Iterator[_Task], may_begin: bool) -> dict[Connection, _Worker]:
        """Give each idle worker a batch, retries first; return the busy workers."""
        idle = deque(worker for worker in self._workers if worker.task is None)
        while idle or len(self._workers) < self.num_proc:
            task = self._retries.popleft() if self._retries else next(tasks, None) if may_begin else None
            if task is None:
                break
            if not idle:
                idle.append(_Worker())
                self._workers.append(idle[-1])
            idle.popleft().give(task, function)
        return {worker.connection: worker for worker in self._workers if worker.task}

    def _listen(self, worker: _Worker, results: dict[int, Any], on_items: Callable[[int], object]) -> None:
        task = worker.task
        assert task is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, on_items, None)
            return
        task.announced_at = time.monotonic()
        if kind == "error":
            raise content
        if kind == "result":
            worker.task = None
            results[task.index] = content
        else:
            task.item = content
            if content is not None:
                task.num_announced += 1
                on_items(1)

    def _replace(self, worker: _Worker, on_items: Callable[[int], object], hang: str | None) -> None:
        """Remove a worker that died or hangs, and requeue its batch."""
        task, exit_code = worker.task, worker.stop()
        assert task is not None
        worker.task = None
        self._workers.remove(worker)
        task.deaths[task.item] += 1
        if task.deaths[task.item] >= NUM_DEATHS:
            if task.item is None and task.num_announced:
                raise ValueError(
                    f"worker processes end after the last item of a batch ({_cause_of_death(exit_code)}): use fewer "
                    "processes, or smaller batches."
                )
            if task.item is None:
                raise RuntimeError(
                    f"worker processes end before they begin ({_cause_of_death(exit_code)}). A script that starts "
                    'workers must do so under `if __name__ == "__main__":`'
                )
            task.crashed[task.item] = hang or f"reading it killed the process ({_cause_of_death(exit_code)})"
        on_items(-task.num_announced)
        self._retries.append(task)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _apply(
    function: Callable[[Item], Any], batch: Sequence[Item], crashed: Mapping[int, str], announce: Announce
) -> list[Any]:
    results = []
    for index, item in enumerate(batch):
        announce(index)
        results.append(Crash(crashed[index]) if index in crashed else function(item))
    announce(None)
    return results


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:  # as the system ends processes when memory runs out
        return "SIGKILL, perhaps for lack of memory"
    return f"exit code {exit_code}" if exit_code is None or exit_code >= 0 else signal.Signals(-exit_code).name


def _serve(connection: Connection) -> None:
    """Process batches from the pipe until it closes. Runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends its workers
    tqdm.set_lock(threading.RLock())  # tqdm's own lock spans processes, and would leak when this one is killed

    def say(kind: str, content: Any) -> None:
        try:
            connection.send((kind, content))
        except OSError:
            os._exit(1)  # the main process was killed

    function: BatchFunction | None = None
    while True:
        try:
            new_function, batch, crashed = connection.recv()
        except (EOFError, OSError):
            return
        function = new_function or function
        assert function is not None
        try:
            result = function(batch, crashed, partial(say, "item"))
        except Exception as error:
            say("error", _sendable(error))
        else:
            say("result", result)


def _sendable(error: Exception) -> Exception:
    """Add this process's traceback to an error; give the traceback alone if the error cannot be pickled."""
    trace = traceback.format_exc()
    error.add_note(trace)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(trace)
    return error
