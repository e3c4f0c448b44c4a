"""The bulk encoder: what it writes is what processor and model give, for whatever lies in the folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data_scripts.imaging.dicom import read_slice
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import EXPORT, export, weights_sha256
from train.data.loaders import open_dataset
from train.encode import EncodeArguments, main
from train.encoding import bulk_encoding, encoders
from train.encoding.inputs import DatasetImages, FolderImages, eight_bits, resized
from train.publishing.space import licence_of_index

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path_factory):
    """The tiny model, saved once: it is the same for every test."""
    folder = tmp_path_factory.getbasetemp() / "encoded" / "checkpoint"
    if not folder.exists():
        save_checkpoint(tiny_model, tiny_processor, folder)
    return folder


@pytest.fixture
def scans(tmp_path):
    """Grey images, two of one size, and others in colour, with transparency, of 16 bits; DICOM under other names."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index, shape in enumerate([(40, 30), (40, 30), (90, 20), (50, 50, 3), (30, 44, 4)]):
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(folder / f"{index}.png")
    Image.fromarray(generator.integers(0, 3000, (40, 30), dtype=np.uint16)).save(folder / "more" / "deep.png")
    make_dicom(folder / "more" / "slice", draw_pixels(np.uint16, 12))
    make_dicom(folder / "several.jpg", draw_pixels(np.uint16, 12, (3, 36, 33), seed=1))  # its name is not believed
    return folder


def run(checkpoint, out, **settings):
    main(
        EncodeArguments(
            **{"checkpoint": str(checkpoint), "out": str(out), "num_workers": 0, "batch_size": 3, **settings}
        )
    )
    return pq.read_table(out)


def embeddings(table):
    return np.array(table["embedding"].to_pylist(), dtype=np.float32)


def one_by_one(images, model, processor):
    """The slow reference: every image through the processor and the model by itself."""
    with torch.inference_mode():
        pixels = [processor(images=image, return_tensors="pt").pixel_values for image in images]
        return torch.cat([model.get_image_features(one).pooler_output for one in pixels]).numpy()


def test_each_image_and_frame_is_embedded_as_by_processor_and_model(
    checkpoint, scans, tmp_path, tiny_model, tiny_processor
):
    table = run(checkpoint, tmp_path / "out.parquet", images=str(scans))
    names = [f"{index}.png" for index in range(5)]
    assert table["source"].to_pylist() == [*names, "more/deep.png", "more/slice", *["several.jpg"] * 3]
    assert table["frame"].to_pylist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    images = [Image.open(scans / name) for name in (*names, "more/deep.png")]
    images += [read_slice(scans / "more/slice"), *(read_slice(scans / "several.jpg", frame) for frame in range(3))]
    expected = one_by_one(images, tiny_model, tiny_processor)
    np.testing.assert_allclose(embeddings(table), expected, atol=1e-6)
    assert table.schema.field("embedding").type.value_type == "float"
    assert len({tuple(row) for row in expected.round(4).tolist()}) == 10  # else the test could not tell them apart


def test_metadata_name_the_weights_and_no_path_of_the_machine(checkpoint, scans, tmp_path, tiny_model):
    table = run(checkpoint, tmp_path / "out.parquet", images=str(scans), project=False)
    about = json.loads(table.schema.metadata[b"lumbarclip"])
    assert (about["checkpoint"], about["projected"], about["what"]) == ("checkpoint", False, "images")
    assert "license" not in about  # of files without reports
    assert embeddings(table).shape[1] == tiny_model.config.vision_config.model_args["embed_dim"]
    with torch.no_grad():
        tiny_model.text_projection.weight[0, 0] += 1e-3
    assert weights_sha256(tiny_model) != about["weights_sha256"]
    assert str(tmp_path) not in (tmp_path / "out.parquet.json").read_text()


def test_what_cannot_be_read_is_listed_with_its_reason(checkpoint, scans, tmp_path):
    (scans / "notes.txt").write_text("no image")
    (scans / "cut.png").write_bytes((scans / "0.png").read_bytes()[:300])
    (scans / "cut.dcm").write_bytes((scans / "more/slice").read_bytes()[:-50])
    Image.fromarray(np.zeros((1, 9000), np.uint8)).save(scans / "line.png")
    frames = [Image.fromarray(np.full((8, 8), grey, np.uint8)) for grey in (0, 255)]
    frames[0].save(scans / "moving.gif", save_all=True, append_images=frames[1:])
    table = run(checkpoint, tmp_path / "out.parquet", images=str(scans), batch_size=2)
    reasons = {
        entry["source"]: entry["reason"]
        for entry in json.loads((tmp_path / "out.parquet.json").read_text())["unreadable"]
    }
    assert set(reasons) == {"notes.txt", "cut.png", "cut.dcm", "line.png", "moving.gif"}
    assert "too long: 9000 x 1" in reasons["line.png"] and "2 frames" in reasons["moving.gif"]
    assert len(table) == 10 and not set(reasons) & set(table["source"].to_pylist())


def test_a_folder_without_a_readable_image_gives_an_error_and_no_file(checkpoint, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="None of the 1 files is a readable image.*a.txt: unreadable"):
        run(checkpoint, tmp_path / "out.parquet", images=str(tmp_path / "texts"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


def test_images_of_a_dataset_come_with_patient_report_and_labels(
    checkpoint, tiny_dataset_folder, tmp_path, tiny_model, tiny_processor
):
    table = run(checkpoint, tmp_path / "o.parquet", dataset=str(tiny_dataset_folder), split=["test", "validation"])
    dataset = open_dataset(str(tiny_dataset_folder))
    rows = [*dataset["test"], *dataset["validation"]]
    assert table["split"].to_pylist() == ["test"] * 12 + ["validation"] * 12
    for column in ("source", "patient_id", "report"):
        assert table[column].to_pylist() == [row[column] for row in rows]
    assert table["labels"].to_pylist() == [["LBP" if row["labels"] == [0] else "No Finding"] for row in rows]
    expected = one_by_one([row["image"] for row in rows], tiny_model, tiny_processor)
    np.testing.assert_allclose(embeddings(table), expected, atol=1e-6)


@pytest.mark.parametrize("may_be_shared", [True, False])
def test_metadata_say_whether_the_reports_may_be_passed_on(checkpoint, tiny_dataset_folder, tmp_path, may_be_shared):
    folder, out = shutil.copytree(tiny_dataset_folder, tmp_path / "built"), tmp_path / "out.parquet"
    report = {"source": {"name": "clinic", "license": "other: ours"}, "may_be_shared": may_be_shared}
    report |= {"split_rule": "By patient.", "arguments": {"source": "folder", "split_by": "patient"}}
    report |= {"deidentification": {"passed": may_be_shared, "ids": "pseudonyms", "left_in_texts": {}}}
    (folder / "build_report.json").write_text(json.dumps(report))
    table = run(checkpoint, out, dataset=str(folder), split=["test"], what="reports")
    about = json.loads(table.schema.metadata[b"lumbarclip"])
    assert (about["license"], about["may_be_shared"]) == ("other: ours", may_be_shared)
    assert about["deidentification"] == {"passed": may_be_shared, "ids": "pseudonyms"}
    if may_be_shared:
        assert licence_of_index(out) == "other: ours"
    else:
        with pytest.raises(ValueError, match=r"\(ours\) does not allow sharing"):
            licence_of_index(out)


def test_reports_of_a_dataset_are_embedded_as_texts(
    checkpoint, tiny_dataset_folder, tmp_path, tiny_model, tiny_processor
):
    out = tmp_path / "reports.parquet"
    table = run(checkpoint, out, dataset=str(tiny_dataset_folder), split=["train"], what="reports", batch_size=7)
    with torch.inference_mode():
        tokens = [tiny_processor(text=text, return_tensors="pt") for text in table["report"].to_pylist()]
        expected = torch.cat([tiny_model.get_text_features(**each).pooler_output for each in tokens]).numpy()
    np.testing.assert_allclose(embeddings(table), expected, atol=1e-6)
    assert len(np.unique(expected.round(5), axis=0)) == 4


@pytest.mark.parametrize("num_chunks", [0, 1, 2])
def test_an_interrupted_run_goes_on_to_the_same_file(checkpoint, scans, tmp_path, monkeypatch, num_chunks):
    monkeypatch.setattr(bulk_encoding, "BATCHES_OF_CHUNK", 2)
    (scans / "3b.txt").write_text("no image")  # in the first part, which is not read again
    run(checkpoint, tmp_path / "whole.parquet", images=str(scans), batch_size=2)
    encoded = []
    encode_batch = bulk_encoding.encode_batch

    def interrupted(batch, *rest):
        encoded.append(batch)
        if len(encoded) > 2 * num_chunks:
            raise KeyboardInterrupt
        return encode_batch(batch, *rest)

    monkeypatch.setattr(bulk_encoding, "encode_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, tmp_path / "out.parquet", images=str(scans), batch_size=2)
    assert not (tmp_path / "out.parquet").exists()
    encoded.clear()
    monkeypatch.setattr(
        bulk_encoding, "encode_batch", lambda batch, *rest: encoded.append(1) or encode_batch(batch, *rest)
    )
    run(checkpoint, tmp_path / "out.parquet", images=str(scans), batch_size=2)
    assert len(encoded) == 6 - 2 * num_chunks
    for suffix in (".parquet", ".parquet.json"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not (tmp_path / ".out.parquet.partial").exists()


def test_chunks_of_other_settings_are_not_resumed(checkpoint, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_encoding, "BATCHES_OF_CHUNK", 1)
    monkeypatch.setattr(bulk_encoding.EmbeddingChunks, "join", lambda *_: 1 / 0)
    out = tmp_path / "out.parquet"
    with pytest.raises(ZeroDivisionError):
        run(checkpoint, out, images=str(scans))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="batch_size: 3 then, 4 now.*--overwrite"):
        run(checkpoint, out, images=str(scans), batch_size=4)
    (scans / "0.png").unlink()
    with pytest.raises(ValueError, match=r"inputs\.files_sha256: .*inputs\.num_files: 8 then, 7 now"):
        run(checkpoint, out, images=str(scans))
    assert len(run(checkpoint, out, images=str(scans), overwrite=True)) == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either a folder with --images, or a dataset"),
        ({"images": "a", "dataset": "b"}, "either a folder"),
        ({"images": "a", "what": "reports"}, "--what must be images"),
        ({"images": "a", "batch_size": 0}, "at least 1"),
        ({"images": "a", "int8": True}, "with --onnx"),
        ({"dataset": "a", "what": "reports", "onnx": "b", "int8": True}, "quantised vision tower only"),
        ({"images": "a", "out": "a.csv"}, "must be a Parquet file"),
        ({"images": ".", "out": "x/a.parquet"}, "is inside the folder of --images"),
        ({"images": "a", "out": __file__.replace(".py", ".parquet")}, None),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    settings = {"checkpoint": "c", "out": "a.parquet", **settings}
    if message is None:
        EncodeArguments(**settings)
    else:
        with pytest.raises(ValueError, match=message):
            EncodeArguments(**settings)


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    (tmp_path / "out.parquet").touch()
    with pytest.raises(ValueError, match="exists; replace it with --overwrite"):
        EncodeArguments(checkpoint="c", out=str(tmp_path / "out.parquet"), images="a")


def test_grey_images_stay_in_one_channel(tiny_processor):
    """A third of the work; that the embeddings are those of three channels is tested above."""
    grey, colour = Image.new("L", (40, 30), 9), Image.new("RGB", (40, 30), (9, 9, 200))
    assert resized([eight_bits(grey)] * 2, tiny_processor.image_processor)["images"].shape == (2, 1, 32, 32)
    both = resized([eight_bits(grey), eight_bits(colour)], tiny_processor.image_processor)["images"]
    assert both.shape == (2, 3, 32, 32) and (both[0] == both[0, 0]).all() and both[1, 2].max() == 200


def test_large_images_go_through_the_tower_a_few_at_once(tiny_model, tiny_processor, monkeypatch):
    images = torch.randint(256, (5, 1, 32, 32), dtype=torch.uint8)
    encoder = encoders.ModelEncoder(tiny_model, tiny_processor.image_processor, project=True)
    expected = encoder({"images": images})
    sizes = []
    tiny_model.vision_model.register_forward_pre_hook(
        lambda tower, args, named: sizes.append(len(named["pixel_values"])), with_kwargs=True
    )
    monkeypatch.setattr(encoders, "CPU_PIXELS", 2 * 32 * 32 + 1)
    np.testing.assert_allclose(encoder({"images": images}), expected, atol=1e-6)
    assert sizes == [2, 2, 1]


class DeadlyImages(FolderImages):
    """Reading some files takes the process down, as a decoder in C may."""

    def load(self, name, frame):
        return (
            os.kill(os.getpid(), signal.SIGKILL) if name.endswith(("2.png", "deep.png")) else super().load(name, frame)
        )


def test_a_file_that_crashes_its_decoder_is_listed_and_the_rest_encoded(checkpoint, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_encoding, "BATCHES_OF_CHUNK", 2)
    whole = run(checkpoint, tmp_path / "whole.parquet", images=str(scans), batch_size=2)
    monkeypatch.setattr(bulk_encoding, "FolderImages", DeadlyImages)  # one in the first chunk, one in the second
    table = run(checkpoint, tmp_path / "out.parquet", images=str(scans), batch_size=2, num_workers=1)
    reason = "reading it killed the process (SIGKILL, perhaps for lack of memory)"
    assert json.loads((tmp_path / "out.parquet.json").read_text())["unreadable"] == [
        {"source": name, "frame": 0, "reason": reason} for name in ("2.png", "more/deep.png")
    ]
    kept = [row for row, name in enumerate(whole["source"].to_pylist()) if not name.endswith(("2.png", "deep.png"))]
    np.testing.assert_allclose(embeddings(table), embeddings(whole)[kept], atol=1e-6)
    assert table["source"].to_pylist() == whole["source"].take(kept).to_pylist()


def test_a_row_that_crashes_its_decoder_is_listed(tiny_dataset_folder, tiny_processor):
    inputs = DatasetImages({"test": open_dataset(str(tiny_dataset_folder))["test"]}, tiny_processor.image_processor)
    sources = inputs.columns([("test", row) for row in range(3)])["source"]
    announced = []
    batch = inputs.read([("test", row) for row in range(3)], {1: "it killed the process"}, announced.append)
    assert announced == [0, 1, 2, None]
    assert batch.columns["source"] == [sources[0], sources[2]] and len(batch.tensors["images"]) == 2
    (entry,) = batch.unreadable
    assert (entry["source"], entry["split"]) == (sources[1], "test") and entry["reason"] == "it killed the process"


def test_the_same_command_goes_on_after_a_crash_of_the_main_process(checkpoint, scans, tmp_path, monkeypatch):
    def crash(*_):
        raise SystemExit

    monkeypatch.setattr(bulk_encoding, "encode_batch", crash)
    with pytest.raises(SystemExit):
        run(checkpoint, tmp_path / "out.parquet", images=str(scans))
    monkeypatch.undo()
    monkeypatch.setattr(bulk_encoding, "FolderImages", DeadlyImages)
    assert len(run(checkpoint, tmp_path / "out.parquet", images=str(scans))) == 8


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_file_in_fresh_processes(checkpoint, scans, tmp_path):
    code = (
        "import sys, time; from train.encoding import bulk_encoding as bulk; from train.encode import main\n"
        "from data_scripts.system.command_line import run\n"
        "bulk.BATCHES_OF_CHUNK = 1; write = bulk.EmbeddingChunks.write\n"
        "def slow(self, *chunk):\n"
        "    write(self, *chunk)\n"
        "    if self.num_done == 2 and sys.argv[1] == 'stop': print('two', flush=True); time.sleep(600)\n"
        "bulk.EmbeddingChunks.write = slow\n"
        "sys.exit(run(main, sys.argv[2:]))"
    )

    def start(name, mode):
        words = ["--checkpoint", checkpoint, "--images", scans, "--batch_size", "3", "--num_workers", "1"]
        words += ["--out", tmp_path / f"{name}.parquet"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, mode, *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True)

    with start("out", "stop") as killed:
        assert killed.stdout.readline() == "two\n"
        os.killpg(killed.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert not (tmp_path / "out.parquet").exists() and (tmp_path / ".out.parquet.partial").exists()
    for name in ("out", "whole"):
        with start(name, "go on") as process:
            assert process.wait() == 0
    for suffix in (".parquet", ".parquet.json"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.slow
def test_an_export_gives_the_same_embeddings_and_only_of_its_own_checkpoint(
    checkpoint, scans, tiny_dataset_folder, tmp_path, tiny_model, tiny_processor
):
    export(checkpoint, tmp_path / "onnx")
    inputs = {
        "scans": {"images": str(scans)},
        "scans unprojected": {"images": str(scans), "project": False},
        "reports": {"dataset": str(tiny_dataset_folder), "split": ["test"], "what": "reports", "batch_size": 5},
    }
    for name, settings in inputs.items():
        eager = run(checkpoint, tmp_path / f"{name}.parquet", **settings)
        through_onnx = run(checkpoint, tmp_path / f"{name} onnx.parquet", onnx=str(tmp_path / "onnx"), **settings)
        np.testing.assert_allclose(embeddings(through_onnx), embeddings(eager), atol=1e-4)
        assert through_onnx.drop_columns("embedding").equals(eager.drop_columns("embedding"))
    with pytest.raises(ValueError, match="has no vision_model_int8.onnx: export again with --int8"):
        run(checkpoint, tmp_path / "out.parquet", images=str(scans), onnx=str(tmp_path / "onnx"), int8=True)
    with torch.no_grad():
        tiny_model.image_projection.bias[0] += 0.5
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "other")
    with pytest.raises(ValueError, match="exported from other weights"):
        run(tmp_path / "other", tmp_path / "out.parquet", images=str(scans), onnx=str(tmp_path / "onnx"))
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.slow
def test_an_export_that_was_altered_is_refused(checkpoint, scans, tmp_path, tiny_processor):
    folder, out = tmp_path / "onnx", tmp_path / "out.parquet"
    export(checkpoint, folder, int8_images=[np.zeros((32, 32), dtype=np.uint8)])
    for int8 in (False, True):
        path = folder / f"vision_model{'_int8' * int8}.onnx"
        whole = path.read_bytes()
        altered = onnx.load(path)
        weight = max(altered.graph.initializer, key=lambda one: len(one.raw_data))
        weight.raw_data = bytes(255 - byte for byte in weight.raw_data)  # the graph stays sound, the size the same
        onnx.save(altered, path)
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for content in (path.read_bytes(), whole[:-1], b""):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"{path.name} \(other content.*export again"):
                run(checkpoint, out, images=str(scans), onnx=str(folder), int8=int8)
        path.write_bytes(whole)
        run(checkpoint, out, images=str(scans), onnx=str(folder), int8=int8, overwrite=True)
        out.unlink()

    description = json.loads((folder / EXPORT).read_text())
    tiny_processor.image_processor.size = {"height": 32, "width": 48}
    with pytest.raises(ValueError, match="takes images of 32 x 32, .* makes them 32 x 48.*export again"):
        args = EncodeArguments(checkpoint="", out="a.parquet", images="scans", onnx=str(folder))
        encoders.OnnxEncoder(args, tiny_processor.image_processor, description["weights_sha256"])
    for entry in description["files"].values():
        del entry["parts"]
    (folder / EXPORT).write_text(json.dumps(description))
    with pytest.raises(ValueError, match="has no digest of vision_model.onnx.*export again"):
        run(checkpoint, out, images=str(scans), onnx=str(folder))
    assert not out.exists()


def test_a_name_that_is_not_text_is_listed(checkpoint, scans, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("L", (8, 8)).save(scans / name)
    run(checkpoint, tmp_path / "out.parquet", images=str(scans))
    listed = json.loads((tmp_path / "out.parquet.json").read_text())["unreadable"]
    assert {entry["source"]: entry["reason"] for entry in listed}[name] == "the file name is not UTF-8; rename the file"
    assert name not in pq.read_table(tmp_path / "out.parquet")["source"].to_pylist()
