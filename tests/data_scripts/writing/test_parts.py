import os
from dataclasses import replace
from functools import partial

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node

from data_scripts.imaging.volumes import find_series, load_slice
from data_scripts.records import Record
from data_scripts.sources.tables import read_table
from data_scripts.writing import parts as parts_module
from data_scripts.writing.parts import join_parts, record_fingerprint
from tests.data_scripts.imaging.volume_files import spine, write_series

FEATURES = datasets.Features({"number": datasets.Value("int64"), "text": datasets.Value("string")})


def write_parts(folder, sizes):
    paths, start = [], 0
    for index, size in enumerate(sizes):
        numbers = list(range(start, start + size))
        paths.append(folder / f"{index}.part")
        table = pa.table({"number": numbers, "text": [f"row {n}" for n in numbers]}, schema=FEATURES.arrow_schema)
        pq.write_table(table, paths[-1])
        start += size
    return paths


@pytest.mark.parametrize(
    ("sizes", "num_shards", "expected"), [([4, 0, 3, 4], 4, [3, 3, 3, 2]), ([1, 1, 1], 3, [1, 1, 1]), ([7], None, [7])]
)
@pytest.mark.parametrize("group_rows", [1, 2, 100])
def test_all_rows_in_order_in_shards_of_equal_length(tmp_path, monkeypatch, sizes, num_shards, expected, group_rows):
    monkeypatch.setattr(parts_module, "ROW_GROUP_ROWS", group_rows)
    out = tmp_path / "out"
    out.mkdir()
    info = join_parts(write_parts(tmp_path, sizes), out, "train", FEATURES, num_shards)
    files = sorted(out.iterdir())
    assert [path.name for path in files] == [
        f"train-{index:05d}-of-{len(expected):05d}.parquet" for index in range(len(expected))
    ]
    tables = [pq.read_table(path) for path in files]
    assert [table.num_rows for table in tables] == expected == info.shard_lengths
    assert pa.concat_tables(tables)["number"].to_pylist() == list(range(sum(sizes)))
    assert info.num_examples == sum(sizes) and info.num_bytes > 0
    assert max(pq.ParquetFile(path).metadata.row_group(0).num_rows for path in files) <= group_rows


def test_how_rows_are_cut_into_parts_leaves_no_trace(tmp_path):
    written = []
    for index, sizes in enumerate(([250, 1, 99], [350], [64] * 5 + [30])):
        folder = tmp_path / str(index)
        (folder / "out").mkdir(parents=True)
        join_parts(write_parts(folder, sizes), folder / "out", "train", FEATURES, 3)
        written.append([path.read_bytes() for path in sorted((folder / "out").iterdir())])
    assert written[0] == written[1] == written[2]


def test_a_large_split_is_cut_at_the_usual_size(tmp_path, monkeypatch):
    parts = write_parts(tmp_path, [50, 50])
    monkeypatch.setattr(parts_module, "MAX_SHARD_BYTES", sum(part.stat().st_size for part in parts) // 3 + 1)
    assert join_parts(parts, tmp_path, "test", FEATURES).shard_lengths == [34, 33, 33]


def test_more_shards_than_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--streaming_shards 4 is more than the 3 rows of test; give at most 3"):
        join_parts(write_parts(tmp_path, [3]), tmp_path, "test", FEATURES, 4)


@pytest.mark.parametrize("num_nodes", [1, 2, 4])
def test_nodes_that_stream_see_each_row_once_and_like_rows(study, built, tmp_path, num_nodes):
    raw = study(num_patients=40)
    by_class = sorted((dict(row.cells) for row in read_table(raw / "metadata.csv")), key=lambda row: row["labels"])
    built(study(by_class), streaming_shards=4)
    streamed = datasets.load_dataset(str(tmp_path / "out"), split="train", streaming=True)
    assert streamed.num_shards == 4
    seen = [list(split_dataset_by_node(streamed, rank, num_nodes)) for rank in range(num_nodes)]
    assert len({len(rows) for rows in seen}) == 1
    whole = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert sorted(row["source"] for rows in seen for row in rows) == sorted(whole["source"])
    for rows in seen:  # every third patient is healthy; they come last in the table, but in no shard
        healthy = sum(row["labels"] == [1] for row in rows) / len(rows)
        assert 0.1 < healthy < 0.6


def test_a_changed_slice_changes_the_fingerprint_of_its_series(tmp_path):
    (series,) = find_series(write_series(tmp_path / "series", spine()))
    record = Record(
        load_image=partial(load_slice, series, 0), report="Bulge.", patient_id="p", study_id="s", source="a"
    )
    before = record_fingerprint(record)
    assert record_fingerprint(replace(record, load_image=partial(load_slice, series, 0))) == before
    os.utime(series.files[3][0], (0, 0))
    assert record_fingerprint(record) != before
