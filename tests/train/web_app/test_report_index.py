"""The index of reports: nearest by cosine, checked when it is opened."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.encode import EncodeArguments, main
from train.encoding.arguments import WHAT
from train.encoding.chunks import METADATA
from train.publishing.space import prepare_space
from train.web_app.report_index import read_index

MADE = {"checkpoint": "tiny", "weights_sha256": "a" * 64, "what": "images", "projected": True}
MADE |= {"license": "cc-by-4.0", "may_be_shared": True}  # of the dataset
MADE |= {"deidentification": {"passed": True, "ids": "pseudonyms"}}


def write_index(path, embeds, reports, made=MADE, **columns):
    """Write what `train/encode.py` writes; `made` is what it says of the embeddings, None for nothing."""
    embedding = pa.array(np.asarray(embeds, dtype=np.float32).tolist(), pa.list_(pa.float32()))
    sources = [f"row {row}" for row in range(len(reports))]
    table = pa.table({"embedding": embedding, "report": reports, "source": sources, **columns})
    pq.write_table(table.replace_schema_metadata(made and {METADATA: json.dumps(made)}), path)


def test_the_nearest_are_those_of_a_search_by_hand(tmp_path):
    generator = np.random.default_rng(0)
    embeds = generator.normal(size=(50, 8))
    write_index(tmp_path / "index.parquet", 7 * embeds, [f"report {row}" for row in range(50)])
    asked = generator.normal(size=8)
    asked /= np.linalg.norm(asked)
    cosines = [float(row @ asked / np.linalg.norm(row)) for row in embeds]
    expected = sorted(range(50), key=lambda row: -cosines[row])[:4]
    found = read_index(tmp_path / "index.parquet", MADE["weights_sha256"]).nearest(asked, count=4)
    assert [near.source for near in found] == [f"row {row}" for row in expected]
    assert [near.similarity for near in found] == pytest.approx([cosines[row] for row in expected], abs=1e-6)


def test_an_index_of_another_checkpoint_is_refused(tmp_path):
    write_index(tmp_path / "index.parquet", np.eye(4), list("abcd"), {**MADE, "what": "reports"})
    with pytest.raises(ValueError, match=r"weights a{12},.*weights b{12}:.*encode.py .*--what reports"):
        read_index(tmp_path / "index.parquet", "b" * 64)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "does not say which weights"),
        ({**MADE, "weights_sha256": ""}, "does not say which weights"),
        ({**MADE, "what": "frames"}, "does not say which weights"),
        ({**MADE, "projected": False}, "outputs of a tower"),
    ],
    ids=["plain Parquet", "no weights", "neither images nor reports", "not projected"],
)
def test_embeddings_that_may_be_of_another_space_are_refused_whoever_asks(tmp_path, made, words):
    write_index(tmp_path / "index.parquet", np.eye(4), list("abcd"), made)
    for weights in (MADE["weights_sha256"], None):
        with pytest.raises(ValueError, match=rf"{words}.*python train/encode.py"):
            read_index(tmp_path / "index.parquet", weights)


@pytest.mark.parametrize("what", WHAT)
def test_what_the_encoder_writes_is_read_by_its_model_alone(
    tmp_path, tiny_model, tiny_processor, tiny_dataset_folder, what
):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    out = tmp_path / "encoded.parquet"
    dataset = {"dataset": str(tiny_dataset_folder), "split": ["test"], "what": what}
    main(EncodeArguments(checkpoint=str(tmp_path / "checkpoint"), out=str(out), num_workers=0, **dataset))
    assert read_index(out, weights_sha256(tiny_model)).what == what
    with torch.no_grad():
        next(tiny_model.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="cannot be compared"):
        read_index(out, weights_sha256(tiny_model))


def test_the_copy_in_a_space_still_says_what_made_it(tmp_path):
    write_index(tmp_path / "mine.parquet", np.eye(2), ["Disc bulge."] * 2, patient_id=["p"] * 2)
    prepare_space(tmp_path / "space", "org/lumbar", tmp_path / "mine.parquet")
    read_index(tmp_path / "space" / "index.parquet", MADE["weights_sha256"])
    with pytest.raises(ValueError, match="cannot be compared"):
        read_index(tmp_path / "space" / "index.parquet", "b" * 64)


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
