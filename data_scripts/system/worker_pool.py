"""Worker processes that write the parts of a dataset, and go on when a row kills or hangs one of them.

An image decoder is C code fed with files from anywhere: it may crash, eat all memory or never return. So no row is
decoded in the building process. A worker announces each row before it touches it; when the worker dies, the row it
was at is known. Pixels never pass between processes: a worker reads its files and writes its own Parquet file.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from types import TracebackType
from typing import Self

import datasets
from tqdm.auto import tqdm

from data_scripts.records import SourceInfo
from data_scripts.writing.parts import Part, write_part

ROW_SECONDS = 60.0  # a slice takes milliseconds, a whole volume seconds
NUM_DEATHS = 2  # once may be another's fault: the system kills whom it likes when memory runs out, a share hangs

_DONE = "done"
# Forked from a server that has imported everything and runs no thread: as quick as a fork, and as safe as a spawn.
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)


@dataclass
class _Task:
    """A part and what is known of its rows.

    Args:
        part: What to write.
        skipped: Reasons by index of the rows that must not be touched again.
        deaths: How often each row was the last that a worker announced before it died or hung.
        row: Index of the row that the worker is at; None before the first and after the last.
        num_announced: Rows announced since the worker began.
        announced_at: When a sign of life came last, in seconds of the monotonic clock; later by the time in which
            the builder itself stood still.
    """

    part: Part
    skipped: dict[int, str] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    row: int | None = None
    num_announced: int = 0
    announced_at: float = 0.0


class _Worker:
    """A process that writes one part after the other, and the end of the pipe that leads to it."""

    def __init__(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # or the end of the process would not be seen
        self.task: _Task | None = None

    def give(self, task: _Task, info: SourceInfo) -> None:
        task.row, task.num_announced, task.announced_at = None, 0, time.monotonic()
        self.task = task
        with contextlib.suppress(OSError):  # it died meanwhile: seen, and dealt with, when it is listened to
            self.connection.send((task.part, info, task.skipped))

    def stop(self) -> int | None:
        """End the process; give its exit code, negative for a signal."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class Workers:
    """A context with worker processes. The server that they are forked from imports while the source is read.

    Args:
        num_proc: Number of processes, at most.
        row_seconds: How long a row may take.

    Example:
        with Workers(2) as workers:
            workers.write(parts, info, on_rows=progress_bar.update)
    """

    def __init__(self, num_proc: int, row_seconds: float = ROW_SECONDS) -> None:
        self.num_proc = num_proc
        self.row_seconds = row_seconds
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        # Sources bring the decoders. What cannot be imported there is imported by each worker.
        _CONTEXT.set_forkserver_preload([__name__, "data_scripts.sources"])
        if isinstance(_CONTEXT, ForkServerContext):
            forkserver.ensure_running()
        return self

    def __exit__(self, _type: type[BaseException] | None, _: BaseException | None, _tb: TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop()

    def write(self, parts: Iterable[Part], info: SourceInfo, on_rows: Callable[[int], object]) -> None:
        """Write all parts. A row that twice kills its worker or takes too long becomes an exclusion of its part.

        Args:
            parts: What to write; each finished one lies at its `path`.
            info: The source of the records.
            on_rows: Called with the number of rows begun since the last call; negative when they are begun anew.

        Raises:
            RuntimeError: If a worker fails for a reason that lies in no row: a full disk, no memory to start.
        """
        waiting = deque(_Task(part) for part in parts)
        while len(self._workers) < min(self.num_proc, len(waiting)):
            self._workers.append(_Worker())
        patience = min(1.0, self.row_seconds / 4)
        looked_at = time.monotonic()
        while waiting or any(worker.task for worker in self._workers):
            for worker in self._workers:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft(), info)
            busy = {worker.connection: worker for worker in self._workers if worker.task}
            for connection in wait(list(busy), timeout=patience):
                self._listen(busy[connection], waiting, on_rows)  # type: ignore[index]
            # A build that was stopped (Ctrl-Z, a paused container, swapping) finds its workers no further than before.
            last_look, looked_at = looked_at, time.monotonic()
            stood_still = max(0.0, looked_at - last_look - patience)
            for worker in busy.values():
                if worker.task is not None:
                    worker.task.announced_at += stood_still
                if _is_overdue(worker.task, self.row_seconds):
                    self._replace(worker, waiting, on_rows, f"reading it took more than {self.row_seconds:g} s")

    def _listen(self, worker: _Worker, waiting: deque[_Task], on_rows: Callable[[int], object]) -> None:
        task = worker.task
        assert task is not None
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, waiting, on_rows, None)
            return
        task.announced_at = time.monotonic()
        if message == _DONE:
            worker.task = None
        elif isinstance(message, str):
            raise RuntimeError(f"a worker could not write its rows:\n{message}")
        else:
            task.row = message
            if message is not None:
                task.num_announced += 1
                on_rows(1)

    def _replace(
        self, worker: _Worker, waiting: deque[_Task], on_rows: Callable[[int], object], hang: str | None
    ) -> None:
        """Put a new process in the place of one that died or hangs, and its part back into the queue."""
        task, exit_code = worker.task, worker.stop()
        assert task is not None
        worker.task = None
        if task.row is None:
            raise RuntimeError(
                f"a worker ended outside of any row ({_cause_of_death(exit_code)}); a script that calls `build` must "
                'do so under `if __name__ == "__main__":`'
            )
        task.deaths[task.row] += 1
        if task.deaths[task.row] >= NUM_DEATHS:
            task.skipped[task.row] = hang or f"reading it killed the process ({_cause_of_death(exit_code)})"
        on_rows(-task.num_announced)
        waiting.appendleft(task)
        self._workers[self._workers.index(worker)] = _Worker()


def _is_overdue(task: _Task | None, row_seconds: float) -> bool:
    return task is not None and task.row is not None and time.monotonic() - task.announced_at > row_seconds


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _serve(connection: Connection) -> None:
    """Write the parts that come through the pipe, until it closes. Runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the builder ends its workers
    datasets.disable_progress_bars()
    tqdm.set_lock(threading.RLock())  # its own lock spans processes, and would be left behind when this one is killed

    def say(message: str | int | None) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # the builder was killed: nobody is left to write for

    while True:
        try:
            part, info, skipped = connection.recv()
        except (EOFError, OSError):
            return
        try:
            write_part(part, info, skipped, announce=say)
        except Exception:  # whatever it is, the user sees it where the build is seen
            say(traceback.format_exc())
        else:
            say(_DONE)
