"""500 damaged rows and files: each is named, none stops or crashes a build."""

import csv
import io
import json
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_scripts.sources.tables import read_table

ROOT = Path(__file__).parents[2]
COLUMNS = ("file_name", "report", "patient_id", "level", "pixel_spacing_mm")
NUM_ROWS = 500
MAX_SIDE = 8192


def good_row(number):
    return [f"{number}.png", f"Bulge, mild at L4/L5 ü {number}", f"p{number}", "L4-5", "0.5"]


def damage(row, rng):
    """A row that cannot be right, as bytes: one of its fields, their number or its encoding."""
    text = ",".join(f'"{value}"' for value in row)
    return [
        lambda: text.encode().replace(b"Bulge", b"Bu\xfflge"),
        lambda: text.encode().replace(b"Bulge", b"Bul\0ge"),
        lambda: text.encode("utf-8")[: rng.randrange(3, 8)] + b'"',
        lambda: b"," * rng.choice([5, 300, 100_000]),
        lambda: (text + ",more").encode(),
        lambda: text.replace("L4-5", "C9-9").encode(),
        lambda: text.replace('"0.5"', rng.choice(['"-1"', '"0"', '"1e999"', '"x"'])).encode(),
        lambda: text.replace(".png", rng.choice([".gif", "/../../x.png", "\N{SNOWMAN}" * 300])).encode(),
        lambda: text.replace(f'"{row[2]}"', '" "').encode(),
        lambda: text.replace(row[1], "//").encode(),
    ][rng.randrange(10)]()


def run_build(raw, out, tmp_path):
    """Build in a process of its own; return the peak of the largest process, in MiB.

    The workers are children of a fork server: `RUSAGE_CHILDREN` never counts them, so that each process of the tree
    is asked for its own peak while it lives.
    """
    arguments = ["--source", "folder", "--raw", raw, "--out", out, "--max_bad", "0.6"]
    command = [sys.executable, "-m", "data_scripts.build", *arguments]
    peaks = {}
    with (tmp_path / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path
        )
        while process.poll() is None:
            peaks |= {pid: max(peak, peaks.get(pid, 0)) for pid, peak in peaks_of_tree(process.pid).items()}
            time.sleep(0.02)
        stderr.seek(0)
        errors = stderr.read().decode()
    assert process.returncode == 0, errors[-2000:]
    assert len(peaks) > 1  # the workers, too
    return max(peaks.values())


def peaks_of_tree(root):
    """The highest resident memory so far of a process and those that come from it, in MiB by id."""
    status = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
        except OSError:  # ended in between
            continue
        status[int(path.parent.name)] = (int(fields["PPid"]), int(fields.get("VmHWM", "0 kB").split()[0]) // 1024)
    tree = {root}
    while more := {pid for pid, (parent, _) in status.items() if parent in tree} - tree:
        tree |= more
    return {pid: status[pid][1] for pid in tree if pid in status}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_small_files_of_large_images_stay_within_memory(tmp_path):
    """Files of some hundred kilobytes, none of which may cost a gigabyte."""
    raw = tmp_path / "study"
    raw.mkdir()
    side = MAX_SIDE // 2
    Image.fromarray(np.tile(np.arange(side, dtype=np.float32), (side, 1))).save(raw / "0.tif", compression="tiff_lzw")
    Image.new("RGBA", (side, side), (1, 2, 3, 4)).save(raw / "1.png")
    Image.new("I;16", (MAX_SIDE, MAX_SIDE), 900).save(raw / "2.png")
    Image.fromarray(np.zeros((MAX_SIDE, MAX_SIDE), np.float32)).save(raw / "3.tif", compression="tiff_lzw")
    Image.new("RGBA", (MAX_SIDE, MAX_SIDE)).save(raw / "4.png")
    lines = [f"{path.name},Bulge {path.stem},p{path.stem}" for path in sorted(raw.iterdir())]
    (raw / "metadata.csv").write_text("\n".join(["file_name,report,patient_id", *lines]))
    peak = run_build(raw, tmp_path / "out", tmp_path)
    listed = json.loads((tmp_path / "out.rows.json").read_text())
    assert [Path(item["source"]).name for item in listed["exclusions"]] == ["3.tif", "4.png"]
    assert 100 < peak < 1024


@pytest.mark.slow
def test_500_damaged_rows_are_each_named(tmp_path):
    rng = random.Random(0)
    raw = tmp_path / "study"
    raw.mkdir()
    lines, bad = [",".join(COLUMNS).encode()], set()
    for number in range(2 * NUM_ROWS):
        Image.new("L", (4, 4), number % 256).save(raw / f"{number}.png", compress_level=0)
        if number % 2:
            lines.append(damage(good_row(number), rng))
            bad.add(number + 1)
        else:
            lines.append(",".join(f'"{value}"' for value in good_row(number)).encode())
    (raw / "metadata.csv").write_bytes(b"\n".join(lines))
    peak = run_build(raw, tmp_path / "out", tmp_path)
    report = json.loads((tmp_path / "out/build_report.json").read_text())
    assert report["rows_read"] == 2 * NUM_ROWS and report["rows_written"] == NUM_ROWS
    listed = json.loads((tmp_path / "out.rows.json").read_text())
    named = [listed["rows"][exclusion["source"]] for exclusion in report["exclusions"]]
    assert len(named) == len(set(named)) == NUM_ROWS
    rows = {int(name.rsplit(" ", 1)[1]) for name in named if name.startswith("metadata.csv row ")}
    files = {int(Path(name).stem) + 1 for name in named if not name.startswith("metadata.csv row ")}
    assert rows | files == bad and not rows & files
    assert 100 < peak < 1024


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_damaged_file_gives_rows_with_problems_or_one_error(tmp_path, request, suffix):
    """Any bytes whatever: what comes back can be written, and what is raised names the file."""
    rng = random.Random(1)
    path = tmp_path / f"table{suffix}"
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    for _ in range(250):
        path.write_bytes(mutated(table_bytes(suffix), rng))
        try:
            rows = read_table(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        for row in rows:
            assert row.where.startswith(path.name) and (row.problem is None) == bool(row.cells)
            json.dumps(dict(row.cells), ensure_ascii=False).encode()  # no lone surrogate
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20


def table_bytes(suffix):
    rows = [dict(zip(COLUMNS, good_row(number), strict=True)) for number in range(20)]
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def mutated(content, rng):
    content = bytearray(content)
    place = rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        content[place:place] = rng.choice([b"\0" * 5, b"x" * 200_000, b"," * 500_000, b"[" * 50_000, b"1" * 5_000])
    elif kind == 3:
        content[place:place] = rng.choice([b'"', b"\r", b"\\ud800", b"\xef\xbb\xbf", b"\n\n", b"{}\n"])
    elif kind == 4:
        content = bytearray(content.decode().encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "cp1252"])))
    else:
        content = bytearray(rng.randbytes(2000))
    return bytes(content)
