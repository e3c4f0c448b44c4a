"""Damage files of every format that the commands read, and give them to their readers, for `robustness.py`.

A reader is the function through which a command reads a file. It holds if it returns, or raises an error that the
command line prints in one line (`USER_ERRORS`) and that names the file; a reader of single images, or of settings,
leaves the name to its caller. It does not hold if it raises another exception, crashes, takes more than `ITEM_SECONDS`
or `MAX_EXTRA_MIB`, or returns changed content that has a digest without noticing.
"""

import json
import os
import random
import resource
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from openpyxl import Workbook
from PIL import Image
from safetensors.numpy import load_file

from data_scripts.system.command_line import USER_ERRORS
from data_scripts.system.worker_pool import Crash, Workers
from tests.data_scripts.imaging import dicom_mutants
from tests.data_scripts.imaging.dicom_files import make_dicom

ITEM_SECONDS = 20.0
MAX_EXTRA_MIB = 1024  # resident memory of a reader, beyond what the process had before
ADDRESS_SPACE_BYTES = 6 * 2**30  # beyond what the process had at first: an allocation above it fails
TINY_TOWERS = {
    "pretrained": False,
    "vision": "test_convnext",
    "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "image_size": 32,
    "projection_dim": 8,
    "learning_rate": "1e-3",
    "log_every": 1,
    "save_every": 2,
    "report_to": "none",
}
REPORT = "Clinical information: low back pain.\nL4/L5: broad-based disc bulge, no herniation. L5/S1: {} narrowing.\n"


@dataclass(frozen=True)
class Format:
    """Files of a format and their reader."""

    count: int  # files to damage
    read: Callable[[Path, Path], str | None]  # of the folder and the damaged file in it; returns what did not hold
    damaged: str = "*"  # pattern of the files to damage, below a folder of samples
    names_file: bool = True  # whether an error must name the file or its folder


# Readers: what commands call, imported when called, since most workers need one of them.


def read_dicom(folder: Path, path: Path) -> str | None:
    found = dicom_mutants.outcome(path)
    return None if found in ("image", "unusable") else found


def deidentify(folder: Path, path: Path) -> None:
    from data_scripts.deidentify import deidentify_folder
    from data_scripts.privacy.pseudonyms import Pseudonyms

    deidentify_folder(folder, folder.with_name(f"{folder.name}.clean"), Pseudonyms(b"k" * 32))


def read_picture(folder: Path, path: Path) -> None:
    from data_scripts.imaging.images import grey_8bit, read_image

    grey_8bit(read_image(path))


def read_volume(folder: Path, path: Path) -> None:
    from data_scripts.imaging.metaimage import read_header, read_sagittal_volume

    read_header(path)
    read_sagittal_volume(path)


def read_study(folder: Path, path: Path) -> None:
    from data_scripts.records import ReadOptions, record_problem
    from data_scripts.sources import SOURCES

    options = ReadOptions(raw=folder)
    info = SOURCES["folder"].describe(options)
    for item in SOURCES["folder"].read(options):
        if hasattr(item, "report"):
            record_problem(item, info)


def read_workbook(folder: Path, path: Path) -> None:
    from data_scripts.sources.notes import read_notes

    read_notes(path)


def read_report(folder: Path, path: Path) -> None:
    from data_scripts.reports.text import labels_from_report, normalise_report, report_findings

    text = normalise_report(path.read_bytes().decode(errors="replace"))
    report_findings(text)
    labels_from_report(text)


def read_dataset(folder: Path, path: Path) -> str | None:
    import datasets

    from data_scripts.auditing.built_folder import check_shards_unchanged
    from train.data.loaders import open_dataset

    datasets.disable_progress_bars()
    report = json.loads((folder / "build_report.json").read_text())
    cache = folder.with_name(f"{folder.name}.cache")
    shutil.rmtree(cache, ignore_errors=True)
    datasets.config.HF_DATASETS_CACHE = cache
    for rows in open_dataset(str(folder)).values():
        for row in rows:
            row["image"].load()
    try:
        check_shards_unchanged(folder, report["shards"])
    except ValueError:
        return None
    return "a changed shard passes the check of its digest"


def read_build_report(folder: Path, path: Path) -> None:
    from train.data.provenance import describe_build

    describe_build(str(folder))


def read_embeddings(folder: Path, path: Path) -> None:
    from train.web_app.report_index import read_index

    read_index(path)


def read_predictions_file(folder: Path, path: Path) -> None:
    from train.evaluation.predictions import read_predictions

    read_predictions(path)


def load_model(folder: Path, path: Path) -> str | None:
    from transformers.utils import logging

    from train.checkpoints.checkpoint import load_checkpoint
    from train.checkpoints.golden_outputs import read_golden_outputs
    from train.checkpoints.manifest import compare_files

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    load_checkpoint(folder)
    if path.name == "golden_outputs.json" or compare_files(folder, read_golden_outputs(folder)["files"]):
        return None
    whole = folder.parent.parent / "whole" / "checkpoint" / "checkpoint" / path.name
    if path.suffix == ".json":
        same = json.loads(path.read_text()) == json.loads(whole.read_text())
    elif path.suffix == ".safetensors":
        before, after = load_file(whole), load_file(path)
        same = all(np.array_equal(before[name], after.get(name), equal_nan=True) for name in before)
    else:
        same = path.read_bytes() == whole.read_bytes()
    return None if same else "changed content is loaded, and its digest does not tell"


def read_settings_file(folder: Path, path: Path) -> None:
    from data_scripts.system.command_line import parse_arguments
    from train.experiments.spec import ExperimentArguments, plan_runs
    from train.pretraining.arguments import PretrainArguments

    if path.name == "experiment.yaml":
        plan_runs(parse_arguments(ExperimentArguments, [str(path), "--out", "made"]))
    else:
        parse_arguments(PretrainArguments, [str(path), "--output_dir", "made"])


def read_run(folder: Path, path: Path) -> None:
    from train.reporting.card.model_card import build_model_card

    build_model_card(folder, "me/model")


def resume_run(folder: Path, path: Path) -> None:
    from train.training.arguments import TrainingArguments
    from train.training.run_folder import check_output, describe_start, read_start

    run = json.loads((folder.parent.parent / "whole/run, to resume/run/run.json").read_text())
    check_output(folder, run, TrainingArguments(dataset="data", output_dir=str(folder), resume=True))
    describe_start(str(folder / "checkpoint"), run["rows_sha256"])
    read_start(folder)


FORMATS = {
    "DICOM": Format(1500, read_dicom),
    "DICOM, de-identified": Format(200, deidentify, "first.dcm"),
    "PNG": Format(400, read_picture, names_file=False),
    "JPEG": Format(400, read_picture, names_file=False),
    "TIFF": Format(400, read_picture, names_file=False),
    "MetaImage": Format(400, read_volume, names_file=False),
    "CSV": Format(300, read_study, "*.csv"),
    "JSON lines": Format(300, read_study, "*.jsonl"),
    "XLSX": Format(200, read_workbook),
    "report": Format(300, read_report),
    "Parquet of rows": Format(60, read_dataset, "data/*.parquet"),
    "build_report.json": Format(60, read_build_report, "build_report.json"),
    "Parquet of embeddings": Format(100, read_embeddings),
    "Parquet of predictions": Format(100, read_predictions_file),
    "checkpoint": Format(200, load_model, "*.[js]*"),
    "YAML": Format(200, read_settings_file, "*.yaml", names_file=False),
    "run, for its card": Format(100, read_run, "*.json*"),
    "run, to resume": Format(60, resume_run, "run.json"),
}


def write_inputs(inputs: Path, seed: int) -> None:
    """Write what commands start from: a table with images, DICOM files, settings, a key."""
    rng = np.random.default_rng(seed)
    for name in ("raw/images", "dicom"):
        (inputs / name).mkdir(parents=True)
    table = ["file_name,report,patient_id,labels,sequence,level"]
    for patient in range(40):
        for sequence in ("T1", "T2"):
            file = f"images/{patient}_{sequence}.png"
            Image.fromarray(rng.integers(0, 256, (96, 96), dtype=np.uint8)).save(inputs / "raw" / file)
            report, label = ("Disc bulge at", "LBP") if patient % 3 else ("No disc bulge at", "No Finding")
            table.append(f"{file},{report} L4/L5 of patient {patient}.,p{patient},{label},{sequence},L4/L5")
    (inputs / "raw" / "metadata.csv").write_text("\n".join(table) + "\n")
    for number in range(24):
        pixels = rng.integers(0, 4096, (64, 64), dtype=np.uint16)
        path = inputs / "dicom" / f"{number}.dcm"
        make_dicom(path, pixels, patient_id=f"{number // 4:04}", position=(0, 0, 4 * number), InstanceNumber=number)
    settings = {"dataset": str(inputs / "data"), "epochs": 4, "batch_size": 32, **TINY_TOWERS}
    experiment = {
        "dataset": str(inputs / "data"),
        "settings": {"epochs": 2, "batch_size": 32, **TINY_TOWERS},
        "systems": {"Ours": {"system": "lumbarclip"}, "CLIP": {"system": "clip"}, "Untrained": {"system": "untrained"}},
        "baselines": ["majority"],
        "num_resamples": 20,
    }
    finetune = {"dataset": settings["dataset"], "epochs": 4, "batch_size": 32, "num_resamples": 20}
    finetune |= {"log_every": 1, "save_every": 2, "report_to": "none"}
    for name, content in (("run", settings), ("experiment", experiment), ("finetune", finetune)):
        (inputs / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (inputs / "key").write_text("0123456789abcdef" * 4)


def make_samples(whole: Path, inputs: Path) -> None:
    """Write the whole files, in one or more folders for each format, from the inputs of the campaign."""

    def put(kind: str, sample: str, name: str, content: bytes) -> None:
        path = whole / kind / sample / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    whole.mkdir(parents=True)
    for number, content in enumerate(dicom_mutants.whole_files(whole)):
        put("DICOM", f"{number}", "slice", content)
        if number % 5 == 0:
            put("DICOM, de-identified", f"{number}", "first.dcm", content)
            put("DICOM, de-identified", f"{number}", "second.dcm", next(iter(inputs.glob("dicom/*"))).read_bytes())
    (whole / "whole").unlink()
    smooth = np.add.outer(np.arange(40), np.arange(48))
    pictures = {"grey": (smooth * 2).astype(np.uint8), "deep": (smooth * 300).astype(np.uint16)}
    pictures["colour"] = np.stack([pictures["grey"]] * 3, axis=-1)
    for name, pixels in pictures.items():
        for kind, suffixes in {"PNG": ("png",), "JPEG": ("jpg",), "TIFF": ("tif", "lzw.tif", "zip.tif")}.items():
            for suffix in suffixes if (kind, name) != ("JPEG", "deep") else ():
                path = whole / kind / f"{name} {suffix}" / f"picture.{suffix}"
                path.parent.mkdir(parents=True)
                ways = {"lzw.tif": {"compression": "tiff_lzw"}, "zip.tif": {"compression": "tiff_adobe_deflate"}}
                Image.fromarray(pixels).save(path, **ways.get(suffix, {}))
    voxels = (smooth[None] * np.ones((4, 1, 1))).astype("<i2").tobytes()
    for name, packed in (("plain", voxels), ("deflated", zlib.compress(voxels))):
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"CompressedData = {packed is not voxels}\nTransformMatrix = 0 0 1 1 0 0 0 1 0\nOffset = 0 0 0\n"
            "ElementSpacing = 0.6 0.6 4\nDimSize = 48 40 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        put("MetaImage", name, "volume.mha", header.encode() + packed)
    rows = (inputs / "raw" / "metadata.csv").read_bytes()
    picture = next(iter(inputs.glob("raw/images/*"))).read_bytes()
    names, *values = [line.split(",") for line in rows.decode().splitlines()[:9]]
    lines = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in values)
    for kind, name, content in (("CSV", "metadata.csv", rows), ("JSON lines", "metadata.jsonl", lines.encode())):
        put(kind, "study", name, content)
        for row in values:
            put(kind, "study", row[0], picture)
    book = Workbook()
    for row in (["Patient ID", "Clinician's Notes"], *([n, REPORT.format(n)] for n in range(1, 20))):
        book.active.append(row)
    (whole / "XLSX" / "notes").mkdir(parents=True)
    book.save(whole / "XLSX" / "notes" / "notes.xlsx")
    for number, word in enumerate(("severe left foraminal", "no", "moderate bilateral")):
        put("report", f"{number}", "report.txt", REPORT.format(word).encode())
    for kind in ("Parquet of rows", "build_report.json"):
        shutil.copytree(inputs / "data", whole / kind / "data")
    put("Parquet of embeddings", "index", "index.parquet", (inputs / "embeddings.parquet").read_bytes())
    put("Parquet of predictions", "run", "p.parquet", (inputs / "run" / "predictions.parquet").read_bytes())
    shutil.copytree(inputs / "run" / "checkpoint", whole / "checkpoint" / "checkpoint")
    for kind in ("run, for its card", "run, to resume"):
        shutil.copytree(inputs / "run", whole / kind / "run")
    for name in ("run.yaml", "experiment.yaml"):
        put("YAML", "settings", name, (inputs / name).read_bytes())


def damage(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage some places of a file; also say how and where."""
    changed, done = bytearray(content), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        size = len(changed)
        first, last = rng.choice(((0, min(size, 256)), (max(0, size - 256), size), (0, size), (0, size)))
        at, length = rng.randrange(first, last), rng.choice((1, 4, 16, 64, 512))
        block = bytes(changed[at : at + length])
        match way := rng.choice(("flip", "byte", "cut", "remove", "swap", "insert", "zero", "repeat", "number")):
            case "flip":
                changed[at] ^= 1 << rng.randrange(8)
            case "byte":
                changed[at] = rng.randrange(256)
            case "cut":
                del changed[at:]
            case "remove":
                del changed[at : at + length]
            case "swap":
                other = rng.randrange(size)
                changed[at : at + length], changed[other : other + length] = changed[other : other + length], block
            case "insert":
                changed[at:at] = rng.randbytes(length)
            case "zero":
                changed[at : at + length] = bytes(len(block))
            case "repeat":
                changed[at:at] = block * rng.choice((1, 1, 50))
            case "number":
                changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"9999", b"-1  "))
        done.append(f"{way} at {at}" + f" of {length}" * (way not in ("flip", "byte", "cut", "number")))
    return bytes(changed), ", ".join(done)


def attack(folder: Path, seed: int, name: str) -> tuple[str, str | None]:
    """Damage one file, FORMAT/NUMBER, and read it; return what was damaged, and what did not hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:  # the first file of this process
        resource.setrlimit(resource.RLIMIT_AS, (memory_kib("VmSize") * 1024 + ADDRESS_SPACE_BYTES, hard))
        for descriptor in (1, 2):  # decoders warn of every damaged file
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    kind = name.rpartition("/")[0]
    rng, of_format = random.Random(f"{seed}/{name}"), FORMATS[kind]
    sample = rng.choice(sorted((folder / "whole" / kind).iterdir()))
    target = rng.choice(sorted(path for path in sample.glob(of_format.damaged) if path.is_file()))
    whole = target.read_bytes()
    if kind == "DICOM" and rng.random() < 0.5:  # half of them by what is known of the format
        damaged, how = dicom_mutants.mutate(whole, rng), "dicom_mutants.mutate"
    else:
        damaged, how = damage(whole, rng)
    place = target.relative_to(sample)
    copy = folder / "copies" / f"{os.getpid()}"
    shutil.rmtree(copy.parent / f"{copy.name}.clean", ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sample, copy, copy_function=os.link)
    (copy / place).unlink()
    (copy / place).write_bytes(damaged)
    return f"{sample.name}/{place}: {how}", problem_of(of_format, copy, copy / place)


def problem_of(of_format: Format, folder: Path, path: Path) -> str | None:
    """Read a file, and say what did not hold."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from the memory of now
    before, problem = memory_kib("VmHWM"), None
    try:
        problem = of_format.read(folder, path)
    except USER_ERRORS as error:
        is_bare = of_format.names_file or isinstance(error, UnicodeError | json.JSONDecodeError)
        if is_bare and not any(name in str(error) for name in (path.name, folder.name)):
            problem = f"an error that names no file: {type(error).__name__}: {error}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    extra_mib = (memory_kib("VmHWM") - before) // 1024
    return f"takes {extra_mib} MiB" if extra_mib > MAX_EXTRA_MIB else problem


def memory_kib(name: str) -> int:
    """A value of this process's status: `VmHWM`, its peak resident memory, or `VmSize`, its address space."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(name)))


def attack_files(
    folder: Path, inputs: Path, names: list[str], seed: int, num_proc: int, on_items: Callable[[int], object]
) -> Iterator[tuple[str, str, str | None]]:
    """Damage and read the files FORMAT/NUMBER; yield their names, what was damaged, and what did not hold."""
    make_samples(folder / "whole", inputs)
    preload = ("tests.benchmarks.attacked_files", "train.checkpoints.checkpoint", "train.data.loaders")
    with Workers(num_proc, item_seconds=ITEM_SECONDS, preload=preload) as workers:
        for name, found in zip(
            names, workers.map(partial(attack, folder, seed), names, on_items, batch_items=8), strict=True
        ):
            if isinstance(found, Crash):
                yield name, "", found.reason
            else:
                yield name, *found
