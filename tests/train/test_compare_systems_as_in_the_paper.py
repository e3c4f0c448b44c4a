"""The paper's experiment in small: a made Mendeley folder, built, rephrased, compared, laid out as in its tables."""

import itertools
import json
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from data_scripts.paraphrase import ParaphraseArguments, paraphrase
from data_scripts.records import PAPER_LABELS
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build
from tests.data_scripts.imaging.dicom_files import AXIAL, make_dicom
from tests.train.experiments.experiment_settings import SMALL
from train.data.loaders import open_dataset
from train.evaluation.targets import read_targets
from train.experiments import experiment
from train.experiments.spec import ExperimentArguments
from train.reporting.experiment.paper import TABLE_2

PROJECT = Path(__file__).parents[2]
NUM_PATIENTS, NORMAL_EVERY = 40, 4
SEQUENCES, DISCS, LEVELS = ("T1", "T2"), ("D3", "D4", "D5"), ("L3-L4", "L4-5", "L5/S1")
BULGES = (
    "LSS MRI //Mild diffuse disc buldge at {level} compresing the thecal sac //no spinal canal stenosis",
    "-Moderate posterior disc protrusion at {level} with narrowing of both neural foramina.\n-Adequate canal",
    "Dehydrated disc at {level}. {level} Rt paracentral disc protrusion compressing the exiting nerve root",
)
NORMAL = (
    "Normal study of the lumbosacral spine.//No disc bulge, no protrusion",
    "No evidence of disc herniation.\nAdequate spinal canal and neural foramina",
)
SHOWN = {"T2_TSE_TRA_384_0005": 2, "T1_TSE_TRA_384_0004": 2}  # slices of the raw series
TINY_VIT = {
    "vision": "vit_tiny_patch16_224",
    "vision_model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
}
TINY_RESNET = {"vision": "resnet10t"}
SYSTEMS = {
    "LumbarCLIP-ResNet-none": {"system": "lumbarclip", "projection": "none", **TINY_RESNET},
    "LumbarCLIP-ViT-none": {"system": "lumbarclip", "projection": "none", **TINY_VIT},
    "LumbarCLIP-ResNet50-256": {"system": "lumbarclip", "projection_dim": 256, "vision": "resnet50"},
    "LumbarCLIP-ResNet-512-nonlinear": {
        **{"system": "lumbarclip", "projection": "nonlinear", "projection_dim": 512},
        **TINY_RESNET,
    },
    "ConVIRT": {"system": "convirt", "vision": "resnet50", "projection_dim": 512},
    "MedCLIP-ResNet-50": {"system": "medclip", **TINY_RESNET, "projection_dim": 512},
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def is_normal(patient):
    return patient % NORMAL_EVERY == 0


def note_of(patient):
    if is_normal(patient):
        return NORMAL[patient // NORMAL_EVERY % 2]
    return BULGES[patient % 3].format(level=LEVELS[patient % 3])


def pixels_of(patient, number):
    """Brighter in the middle if the patient has a finding."""
    random = np.random.default_rng([patient, number])
    pixels = random.integers(20, 90, (32, 32))
    pixels[10:22, 10:22] += 0 if is_normal(patient) else 120
    return pixels


def write_notes(raw):
    workbook = openpyxl.Workbook()
    workbook.active.append(["Patient ID", "Clinician's Notes"])
    for patient in range(1, NUM_PATIENTS + 1):
        workbook.active.append([patient, note_of(patient)])
    workbook.active.append([NUM_PATIENTS + 1, None])  # as 60 rows of the published workbook
    workbook.save(raw / "Radiologists Report.xlsx")


def label_images(raw):
    """`T1_0001_D3.png`, and a painted label beside each patient's first."""
    for patient in range(1, NUM_PATIENTS + 2):
        for number, (sequence, disc) in enumerate(itertools.product(SEQUENCES, DISCS)):
            image = Image.fromarray(pixels_of(patient, number).astype(np.uint8))
            image.save(raw / f"{sequence}_{patient:04d}_{disc}.png")
        image.save(raw / f"T1_{patient:04d}_D3_label.png")
    return NUM_PATIENTS * len(SEQUENCES) * len(DISCS)


def raw_studies(raw):
    """`01_MRI_Data/0001/STUDY/SERIES/NAME.ima`, with a localizer."""
    for patient in range(1, NUM_PATIENTS + 2):
        study = raw / f"01_MRI_Data/{patient:04d}/L-SPINE_LSS_20160309_091629_240000"
        for of_series, (series, count) in enumerate([*SHOWN.items(), ("LOCALIZER_0001", 1)]):
            for number in range(count):
                make_dicom(
                    study / series / f"{series[:-4]}0_{number + 1:03d}.ima",
                    (12 * pixels_of(patient, 10 * of_series + number)).astype(np.uint16),
                    orientation=AXIAL,
                    position=(0, 0, 4.0 * number),
                    series_description=series,
                    patient_id=f"{patient:04d}",
                )
    return NUM_PATIENTS * sum(SHOWN.values())


def paper_file():
    """The settings of the paper's experiment with tiny towers and few updates."""
    file = yaml.safe_load((PROJECT / "train/configs/experiments/paper.yaml").read_text())
    tiny = {name: SMALL[name] for name in ("pretrained", "text_config", "image_size", "report_to", "log_every")}
    return {**file, "settings": {**file["settings"], **tiny, "batch_size": 16, "epochs": 1, "max_updates": 4}}


@pytest.fixture(scope="module", params=[label_images, raw_studies])
def outcome(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    raw = folder / "raw"
    raw.mkdir()
    num_rows = request.param(raw)
    write_notes(raw)
    built, rephrased, out = folder / "built", folder / "rephrased", folder / "experiment"
    report = build(BuildArguments(source="mendeley", raw=raw, out=built, labels="paper"), command="test")
    findings = folder / "findings"
    build(BuildArguments(source="mendeley", raw=raw, out=findings), command="test")
    paraphrase(ParaphraseArguments(dataset=built, out=rephrased, model="embedded"), command="test")
    settings = {
        **paper_file(),
        **{"dataset": str(rephrased), "out": str(out), "systems": SYSTEMS, "num_resamples": 50},
        **{"baselines": ["majority"]},
    }
    experiment.run_experiment(ExperimentArguments(**settings))
    results = json.loads((out / "results.json").read_text())
    return {
        **{"num_rows": num_rows, "build": report, "built": built, "findings": findings, "rephrased": rephrased},
        **{"out": out, "results": results, "report": (out / "report.md").read_text()},
    }


def test_each_row_has_one_class_of_the_pair(outcome):
    build_report = outcome["build"]
    assert build_report["rows_written"] == outcome["num_rows"]
    assert build_report["labels"]["classes"] == "paper" and build_report["labels"]["from_reports"]
    assert build_report["labels"]["rows_without"] == 0 and build_report["labels"]["not_understood"] == []
    assert all(exclusion["by_rule"] for exclusion in build_report["exclusions"])
    dataset = load_dataset(str(outcome["built"]))
    patients = set()
    for rows in dataset.values():
        assert rows.features["labels"].feature.names == list(PAPER_LABELS)
        for labels, patient in zip(rows["labels"], rows["patient_id"], strict=True):
            assert labels == [int(is_normal(int(patient[-4:])))]
            patients.add(patient)
    assert len(patients) == NUM_PATIENTS


def test_the_view_of_findings_is_what_the_build_gives(outcome):
    view = read_targets(open_dataset(str(outcome["findings"]), "paper"))
    assert len(read_targets(open_dataset(str(outcome["findings"])))["train"].label_names) > 2
    built = read_targets(open_dataset(str(outcome["built"])))
    for split, targets in view.items():
        assert targets.label_names == PAPER_LABELS and targets.exclusive
        truth = dict(zip(built[split].patient_ids, built[split].classes, strict=True))
        shared = [patient for patient in targets.patient_ids if patient in truth]  # splits are stratified by class
        assert [truth[patient] for patient in shared] == [
            targets.classes[row] for row, patient in enumerate(targets.patient_ids) if patient in truth
        ]


def test_training_texts_are_five_a_pair(outcome):
    dataset = load_dataset(str(outcome["rephrased"]))
    assert {len(texts) for texts in dataset["train"]["rephrasings"]} == {4}
    assert {len(texts) for texts in dataset["test"]["rephrasings"]} == {0}


def test_table_2_stands_beside_the_paper(outcome):
    results, report = outcome["results"], outcome["report"]
    assert [run["state"] for run in results["runs"]] == ["done"] * len(SYSTEMS)
    assert results["headline"]["exclusive"] and results["headline"]["group"] == "probe/paper/unprojected"
    for system in results["systems"].values():
        metrics = system["metrics"]["probe/paper/unprojected"]
        assert all(metrics[name]["n"] for name in ("accuracy", "precision", "recall", "f1"))
    table = report.split("## As in Table 2 of the paper")[1].split("\n## ")[0]
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    assert set(SYSTEMS) <= set(rows)
    for title in ("LumbarCLIP-ResNet50-256", "ConVIRT"):  # towers of the paper's size
        assert title in rows[title][len(title) + 4 :]
        assert ", ".join(f"{value:.2f}" for value in TABLE_2[title]) in rows[title]


def test_figures_3_and_4_stand_beside_the_paper(outcome):
    table = outcome["report"].split("as in figures 3 and 4 of the paper")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    printed = {tuple(row[:3]): row[-1] for row in rows[2:]}
    assert printed == {
        ("ResNet", "none", "-"): "0.92, 0.93",
        ("ViT", "none", "-"): "0.90, 0.89",
        ("ResNet", "linear", "256"): "up to 0.95, up to 0.88",
        ("ResNet", "nonlinear", "512"): "up to 0.95, up to 0.88",
    }
    figures = {path.name for path in (outcome["out"] / "figures").glob("*.png")}
    assert {"systems.png", "no_heads.png", "heads.png", "reliability.png"} <= figures
