"""500 damaged rows and files: each is named, none stops or crashes a build."""

import csv
import io
import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_scripts.tables import read_table

ROOT = Path(__file__).parents[2]
COLUMNS = ("file_name", "report", "patient_id", "level", "pixel_spacing_mm")
NUM_ROWS = 500


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
        lambda: text.replace('"0.5"', rng.choice(['"-1"', '"nan"', '"1e999"', '"x"'])).encode(),
        lambda: text.replace(".png", rng.choice([".gif", "/../../x.png", "\N{SNOWMAN}" * 300])).encode(),
        lambda: text.replace(f'"{row[2]}"', '" "').encode(),
        lambda: text.replace(row[1], "//").encode(),
    ][rng.randrange(10)]()


BUILD = """
import resource, sys
from data_scripts.build import main
if __name__ == "__main__":
    main(sys.argv[1:])
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print("peak", max(peaks) // 1024, "MiB")
"""


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
    script = tmp_path / "run.py"
    script.write_text(BUILD)
    command = [
        sys.executable,
        script,
        "--source",
        "folder",
        "--raw",
        raw,
        "--out",
        tmp_path / "out",
        "--max_bad",
        "0.6",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out/build_report.json").read_text())
    assert report["rows_read"] == 2 * NUM_ROWS and report["rows_written"] == NUM_ROWS
    named = [exclusion["source"] for exclusion in report["exclusions"]]
    assert len(named) == len(set(named)) == NUM_ROWS
    rows = {int(name.rsplit(" ", 1)[1]) for name in named if name.startswith("metadata.csv row ")}
    files = {int(Path(name).stem) + 1 for name in named if not name.startswith("metadata.csv row ")}
    assert rows | files == bad and not rows & files
    assert int(done.stdout.split("peak ")[1].split()[0]) < 1024


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_damaged_file_gives_rows_with_problems_or_one_error(tmp_path, suffix):
    """Any bytes whatever: what comes back can be written, and what is raised names the file."""
    rng = random.Random(1)
    path = tmp_path / f"table{suffix}"
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
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**21 * 1.5  # KiB, with all that pytest has loaded


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
