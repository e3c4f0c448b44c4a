"""The index of reports: nearest by cosine, checked when it is opened."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.web_app.report_index import read_index


def write_index(path, embeds, reports, **columns):
    embedding = pa.array(np.asarray(embeds, dtype=np.float32).tolist(), pa.list_(pa.float32()))
    sources = [f"row {row}" for row in range(len(reports))]
    pq.write_table(pa.table({"embedding": embedding, "report": reports, "source": sources, **columns}), path)


def test_the_nearest_are_those_of_a_search_by_hand(tmp_path):
    generator = np.random.default_rng(0)
    embeds = generator.normal(size=(50, 8))
    write_index(tmp_path / "index.parquet", 7 * embeds, [f"report {row}" for row in range(50)])
    asked = generator.normal(size=8)
    asked /= np.linalg.norm(asked)
    cosines = [float(row @ asked / np.linalg.norm(row)) for row in embeds]
    expected = sorted(range(50), key=lambda row: -cosines[row])[:4]
    found = read_index(tmp_path / "index.parquet", width=8).nearest(asked, count=4)
    assert [near.source for near in found] == [f"row {row}" for row in expected]
    assert [near.similarity for near in found] == pytest.approx([cosines[row] for row in expected], abs=1e-6)


def test_an_index_of_another_checkpoint_is_refused(tmp_path):
    write_index(tmp_path / "index.parquet", np.eye(4), list("abcd"))
    with pytest.raises(ValueError, match="width 4, the checkpoint makes 8"):
        read_index(tmp_path / "index.parquet", width=8)


def test_an_index_without_reports_is_refused(tmp_path):
    pq.write_table(pa.table({"embedding": [[1.0]], "source": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match="lacks the columns report; it has embedding, source"):
        read_index(tmp_path / "index.parquet")


@pytest.mark.parametrize("content", [None, b"not parquet"])
def test_what_is_no_index_is_refused(tmp_path, content):
    if content:
        (tmp_path / "index.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="No index at"):
        read_index(tmp_path / "index.parquet")
