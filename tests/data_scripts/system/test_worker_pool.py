import multiprocessing
import os
import signal
import time
from collections import Counter
from functools import partial

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_scripts.records import Record, SourceAbout, SourceInfo
from data_scripts.system import worker_pool as workers_module
from data_scripts.system.worker_pool import Crash, Workers
from data_scripts.writing.parts import keep_finished, parts_of, read_result, write_part

ABOUT = SourceAbout(name="test", summary="", license="other: none", citation="", size="", where="")
INFO = SourceInfo(about=ABOUT, label_names=())
POOL = partial(Workers, preload=("data_scripts.writing.parts",))
GOOD = partial(Image.new, "L", (8, 8), 7)


def record(name, load_image=GOOD):
    return Record(load_image=load_image, report="Bulge.", patient_id="p", study_id="s", source=name)


def write(records, folder, *, num_proc=2, part_rows=4, row_seconds=60.0):
    """Rows and exclusions in order, and the largest and last count of rows that were reported."""
    parts = parts_of({"train": records}, INFO, folder, part_rows)
    counted = [0]
    with POOL(num_proc, row_seconds) as workers:
        on_items = lambda number: counted.append(counted[-1] + number)  # noqa: E731
        assert list(workers.run(partial(write_part, INFO), parts, on_items)) == [None] * len(parts)
    rows = [source for part in parts for source in pq.read_table(part.path)["source"].to_pylist()]
    exclusions = [(bad.source, bad.reason) for part in parts for bad in read_result(part).exclusions]
    assert counted[-1] == len(records)
    return rows, exclusions


@pytest.mark.parametrize(
    ("killer", "cause"),
    [
        (partial(signal.raise_signal, signal.SIGSEGV), "SIGSEGV"),  # a crash in C
        (partial(signal.raise_signal, signal.SIGKILL), "SIGKILL, perhaps for lack of memory"),
        (partial(os._exit, 3), "exit code 3"),
    ],
)
def test_a_row_that_kills_its_process_is_left_out_and_all_others_are_written(tmp_path, killer, cause):
    records = [record(f"row {number}") for number in range(10)]
    records[1] = record("killer 1", killer)
    records[2] = record("killer 2", killer)
    rows, exclusions = write(records, tmp_path)
    assert rows == [f"row {number}" for number in (0, 3, 4, 5, 6, 7, 8, 9)]
    reason = f"reading it killed the process ({cause})"
    assert exclusions == [("killer 1", reason), ("killer 2", reason)]


def test_a_death_that_does_not_repeat_costs_no_row(tmp_path):
    marker = tmp_path / "died"
    code = "__import__('os')._exit(1) if not path.exists() and not path.touch() else new('L', (8, 8))"
    flaky = partial(eval, code, {"path": marker, "new": Image.new})
    (tmp_path / "parts").mkdir()
    rows, exclusions = write([record("a"), record("flaky", flaky), record("b")], tmp_path / "parts")
    assert marker.exists() and rows == ["a", "flaky", "b"] and exclusions == []


def test_a_row_that_hangs_is_left_out(tmp_path):
    records = [record("a"), record("hangs", partial(time.sleep, 600)), record("b")]
    rows, exclusions = write(records, tmp_path, row_seconds=0.5)
    assert rows == ["a", "b"] and exclusions == [("hangs", "reading it took more than 0.5 s")]


def test_a_row_that_hangs_once_is_written(tmp_path):
    marker = tmp_path / "hung"
    code = "__import__('time').sleep(600) if not path.exists() and not path.touch() else new('L', (8, 8))"
    (tmp_path / "parts").mkdir()
    records = [record("a"), record("waits", partial(eval, code, {"path": marker, "new": Image.new})), record("b")]
    rows, exclusions = write(records, tmp_path / "parts", row_seconds=0.5)
    assert marker.exists() and rows == ["a", "waits", "b"] and exclusions == []


def test_time_in_which_the_builder_stood_still_counts_for_no_row(tmp_path):
    """As when both are stopped and go on: the row is no further, and the clock is."""
    code = "sleep(0.3) or new('L', (8, 8))"
    records = [record(str(n), partial(eval, code, {"sleep": time.sleep, "new": Image.new})) for n in range(3)]
    parts = parts_of({"train": records}, INFO, tmp_path)
    counted = []
    with POOL(1, item_seconds=0.6) as workers:
        on_items = lambda number: (counted.append(number), time.sleep(0.8))  # noqa: E731
        list(workers.run(partial(write_part, INFO), parts, on_items))
    assert counted == [1, 1, 1]  # none begun anew
    assert not read_result(parts[0]).exclusions


def test_a_worker_is_replaced_once():
    """Dead, and overdue at the same look."""
    task = workers_module._Task(0, "a batch", item=0, announced_at=-1e9)
    with POOL(1) as workers:
        worker = workers_module._Worker()
        workers._workers.append(worker)
        worker.task = task
        worker.process.kill()
        worker.process.join()
        workers._listen(worker, {}, on_items=lambda _: None)
        assert list(workers._retries) == [task] and task.deaths == {0: 1}
        assert not worker.is_overdue(60.0) and worker not in workers._workers


def test_a_death_between_items_costs_nothing_unless_it_repeats():
    """As of a worker that the system kills, and of workers of a script without `if __name__ == "__main__":`."""
    task = workers_module._Task(0, "a batch")
    with POOL(1) as workers:
        for _ in range(2):
            worker = workers_module._Worker()
            workers._workers.append(worker)
            worker.task = task
            if task.deaths:
                with pytest.raises(RuntimeError, match="__main__"):
                    workers._replace(worker, lambda _: None, None)
            else:
                workers._replace(worker, lambda _: None, None)
        assert list(workers._retries) == [task] and not task.crashed


def test_workers_that_die_after_the_last_item_are_told_apart():
    task = workers_module._Task(0, "a batch", deaths=Counter({None: 1}), num_announced=3)
    with POOL(1) as workers:
        worker = workers_module._Worker()
        workers._workers.append(worker)
        worker.task = task
        with pytest.raises(ValueError, match="after the last item of a batch .*fewer processes"):
            workers._replace(worker, lambda _: None, None)


@pytest.mark.parametrize("num_proc", [0, -1])
def test_no_workers_are_an_error_and_not_an_empty_result(num_proc):
    with pytest.raises(ValueError, match=f"num_proc must be at least 1, got {num_proc}"):
        Workers(num_proc)


def test_a_part_may_lose_all_its_rows(tmp_path):
    rows, exclusions = write([record("bad", partial(int, "no image")), record("good")], tmp_path, part_rows=1)
    assert rows == ["good"] and exclusions[0][1].startswith("unreadable image: ValueError: invalid literal")


def test_a_failure_outside_of_rows_is_an_error_and_leaves_no_process(tmp_path):
    parts = parts_of({"train": [record("a")]}, INFO, tmp_path / "is" / "missing")
    (tmp_path / "is").write_text("a file where a folder should be")
    with POOL(2) as workers:
        with pytest.raises(NotADirectoryError) as raised:
            list(workers.run(partial(write_part, INFO), parts))
        assert "write_part" in raised.value.__notes__[0]  # the traceback in the worker
    assert not multiprocessing.active_children()


def double(number):
    return os._exit(3) if number == 5 else 2 * number


def test_map_gives_results_in_order_and_a_crash_for_the_item_that_crashed():
    counted = []
    with POOL(3) as workers:
        results = list(workers.map(double, iter(range(100)), counted.append, batch_items=7))
    assert results.pop(5) == Crash("reading it killed the process (exit code 3)")
    assert results == [2 * number for number in range(100) if number != 5] and sum(counted) == 100


def test_map_reads_items_no_faster_than_they_are_worked_off(monkeypatch):
    monkeypatch.setattr(workers_module, "_MAX_WAITING", 3)
    read = []
    with POOL(2) as workers:
        results = workers.map(abs, (read.append(number) or number for number in range(1000)), batch_items=1)
        assert next(results) == 0 and len(read) < 10
        results.close()  # the caller wants no more
        assert list(workers.map(abs, [-1, -2])) == [1, 2]


def test_finished_parts_are_kept_and_stale_ones_removed(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    records = [record(str(number), partial(Image.open, image)) for number in range(4)]
    write(records, folder, part_rows=2)
    first, second = parts = parts_of({"train": records}, INFO, folder, 2)
    assert keep_finished(parts, folder) == []

    (folder / "stale.parquet").touch()
    (folder / "123").mkdir()  # where a killed worker wrote
    second.result_path.unlink()  # killed between the two renames
    assert keep_finished(parts, folder) == [second]
    assert sorted(folder.iterdir()) == sorted([first.path, first.result_path])

    os.utime(image, ns=(0, 0))  # the file behind the pixels was changed
    changed = parts_of({"train": records}, INFO, folder, 2)
    assert keep_finished(changed, folder) == changed and not list(folder.iterdir())
