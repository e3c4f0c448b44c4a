"""What all tests share: tiny models, and a tiny paired dataset on disk. Nothing here touches the network."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

# Before the libraries read them: no network, and caches that a test run leaves no trace in.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers inherit what is set here
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # folders of tests that failed stay there
    SCRATCH = tempfile.mkdtemp(prefix="lumbarclip-tests-")
    atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = SCRATCH  # here, and in the processes that tests start
    os.environ.setdefault("HF_DATASETS_CACHE", f"{SCRATCH}/datasets")
    os.environ.setdefault("HF_MODULES_CACHE", f"{SCRATCH}/modules")
    os.environ.setdefault("HF_ASSETS_CACHE", f"{SCRATCH}/assets")

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import BertTokenizer

from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import SourceAbout, SourceInfo
from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPImageProcessor, LumbarCLIPModel, LumbarCLIPProcessor

PROJECT = Path(__file__).parents[1]
# `tests.benchmarks.common_tests` unpacks the package that these are cases of.
collect_ignore = [] if find_spec("transformers_tests") else ["benchmarks/common_test_cases.py"]
SHARED_DATA = PROJECT.parent / "shared" / "data"

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "disc",
    "bulge",
    "no",
    "normal",
    "left",
    "right",
    "at",
    "l4",
    "l5",
    "/",
    ".",
]
TINY_VISION = {
    "model_type": "timm_wrapper",
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2},
}
TINY_TEXT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


class Marks:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def tiny_config():
    """Towers of 24 and 16 features with linear heads into 8."""
    return LumbarCLIPConfig(vision_config=TINY_VISION, text_config=TINY_TEXT, projection_dim=8)


@pytest.fixture
def tiny_model(tiny_config):
    torch.manual_seed(0)
    return LumbarCLIPModel(tiny_config).eval()


@pytest.fixture
def tiny_processor():
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    return LumbarCLIPProcessor(LumbarCLIPImageProcessor(size={"height": 32, "width": 32}), tokenizer, max_length=32)


@pytest.fixture
def tiny_inputs(tiny_processor):
    """Four images of differing sizes and their reports."""
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 255, size=(20 + 5 * i, 30), dtype=np.uint8)) for i in range(4)]
    texts = ["disc bulge at l4/l5.", "no disc bulge.", "normal disc.", "left disc bulge at l4/l5."]
    return tiny_processor(images=images, text=texts, return_tensors="pt")


@pytest.fixture(scope="session")
def tiny_dataset_folder(tmp_path_factory):
    """64 pairs of 16 patients: a bright disc bulges, a dark one does not; T1 and T2 share their report."""
    about = SourceAbout(name="tiny", summary="", license="other: none", citation="", size="", where="")
    info = SourceInfo(about=about, label_names=("LBP", "No Finding"))
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "data").mkdir()
    patients = {"train": range(10), "validation": range(10, 13), "test": range(13, 16)}
    for split, numbers in patients.items():
        rows = []
        for patient in numbers:
            for level in ("L3/L4", "L4/L5"):
                bulges = bool(generator.integers(2)) if patient % 3 else level == "L4/L5"
                report = f"Disc bulge at {level}." if bulges else f"No disc bulge at {level}."
                for sequence in ("T1", "T2"):
                    pixels = generator.integers(150 if bulges else 20, 220 if bulges else 90, size=(24, 40))
                    rows.append(
                        {
                            "image": Image.fromarray(pixels.astype(np.uint8)),
                            "report": report,
                            "rephrasings": [
                                f"{level}: {'' if bulges else 'no '}bulge of the disc.",
                                f"At {level}, {'' if bulges else 'no '}disc bulge.",
                            ],
                            "labels": ["LBP" if bulges else "No Finding"],
                            "grade": None,
                            "patient_id": f"tiny-{patient:02d}",
                            "study_id": f"tiny-{patient:02d}",
                            "series_id": None,
                            "slice_index": None,
                            "plane": "axial",
                            "sequence": sequence,
                            "level": level,
                            "pixel_spacing_mm": 1.0,
                            "slice_spacing_mm": None,
                            "disc_height_mm": None,
                            "mask": None,
                            "mask_classes": None,
                            "mask_origin": None,
                            "source": f"tiny/{patient:02d}/{level}/{sequence}",
                        }
                    )
        Dataset.from_list(rows, features=dataset_features(info)).to_parquet(folder / "data" / f"{split}.parquet")
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real data beside the project")
    return SHARED_DATA
