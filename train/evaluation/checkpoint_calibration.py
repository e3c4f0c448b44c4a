"""Calibrate the zero-shot predictions of a checkpoint, and keep what was fitted in its `config.json`.

Users of the checkpoint then get calibrated probabilities, prediction sets and abstention without this package:

    texts = processor.zero_shot_texts(model.config.calibration)
    output = model(**processor(images=images, text=texts, return_tensors="pt"))
    answers = processor.post_process_zero_shot(output, model.config.calibration)
"""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from data_scripts.system.whole_files import write_json
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.calibration_lumbarclip import DIGESTS, prompt_texts, weights_digests, zero_shot_logits
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.golden_outputs import GOLDEN, check_drift, recorded_change
from train.evaluation.features import encode_images_once, encode_texts
from train.evaluation.protocols.calibration import TARGET_COVERAGE, fit_calibration
from train.evaluation.protocols.conformal import IN_EVERY_SET
from train.evaluation.questions import as_label_logits, choice_names
from train.evaluation.targets import Targets

CODE = "calibration_lumbarclip.py"


def fit_checkpoint_calibration(
    folder: str | Path, rows: Dataset, targets: Targets, **options: Any
) -> ZeroShotCalibration:
    """Fit the zero-shot calibration of a checkpoint on validation rows, and write it into its configuration.

    An earlier calibration is replaced; the weights stay untouched. Options as for `fit_zero_shot_calibration`.

    Raises:
        ValueError: If there is no checkpoint, or it cannot take a calibration: see `check_can_be_calibrated`.
    """
    if Path(folder, "config.json").exists():
        check_can_be_calibrated(Path(folder))
    model, processor = load_checkpoint(folder)
    calibration = fit_zero_shot_calibration(model, processor, rows, targets, **options)
    write_calibration(Path(folder), calibration)
    return calibration


def fit_zero_shot_calibration(
    model: LumbarCLIPModel,
    processor: LumbarCLIPProcessor,
    rows: Dataset,
    targets: Targets,
    *,
    dataset_name: str,
    batch_size: int,
    target_coverage: float = TARGET_COVERAGE,
    cache_dir: Path | None = None,
) -> ZeroShotCalibration:
    """Fit the calibration of a model's zero-shot predictions, and leave the model unchanged.

    Args:
        model: A LumbarCLIP model.
        processor: Its processor, whose prompts ask for the classes and are kept with the calibration.
        rows: Rows of the validation split, with the column `image`.
        targets: Their truth.
        dataset_name: Kept with the calibration.
        batch_size: Images or texts per forward pass.
        target_coverage: What the prediction sets promise, in (0, 1).
        cache_dir: Where an evaluation of the same model has kept the encoded rows; None to encode them.

    Raises:
        ValueError: If no row was labelled.
    """
    if not targets.is_labelled.any():
        raise ValueError(f"No row of the {targets.split} split has a label, so there is nothing to calibrate on.")
    asked = ZeroShotCalibration(_questions(processor, targets), target_coverage, fitted_on={})
    # The logits that the checkpoint's users divide by the temperature.
    images = encode_images_once(model, processor, rows, targets.split, batch_size=batch_size, cache_dir=cache_dir)
    texts = encode_texts(model, processor, prompt_texts(asked), batch_size=batch_size)
    embeds = torch.from_numpy(images["image_embeds"]), torch.from_numpy(texts)
    logits = zero_shot_logits(*embeds, model.inverse_temperature.item(), asked).double().numpy()
    logits, targets = logits[targets.is_labelled], targets.select(targets.is_labelled, targets.split)
    fitted = fit_calibration(as_label_logits(logits, targets), targets, target_coverage)
    return replace(
        asked,
        questions=[
            replace(question, temperature=float(temperature), score_thresholds=thresholds.tolist())
            for question, temperature, thresholds in zip(
                asked.questions, fitted.temperatures, fitted.thresholds, strict=True
            )
        ],
        fitted_on={
            "dataset": dataset_name,
            "split": targets.split,
            "num_rows": len(targets),
            "num_patients": len(set(targets.patient_ids)),
            "date": datetime.now(UTC).date().isoformat(),
            "reasons": fitted.reasons,
            DIGESTS: weights_digests(model),
        },
    )


def write_calibration(folder: Path, calibration: ZeroShotCalibration) -> None:
    """Write a calibration into the configuration of a checkpoint, whole or not at all.

    Raises:
        ValueError: If the checkpoint cannot take a calibration: see `check_can_be_calibrated`.
    """
    _check_code(folder)
    path = folder / "config.json"
    with recorded_change(folder, path.name, "calibration"):
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"calibration": asdict(calibration)})


def _questions(processor: LumbarCLIPProcessor, targets: Targets) -> list[CalibratedQuestion]:
    choices, names = list(choice_names(targets)), targets.label_names
    uncalibrated = 1.0, [IN_EVERY_SET] * len(choices)
    stated = [processor.class_prompt_texts(name) for name in names]
    if targets.exclusive:
        return [CalibratedQuestion(None, choices, stated, *uncalibrated)]
    denied = [processor.absent_class_prompt_texts(name) for name in names]
    return [
        CalibratedQuestion(name, choices, [absent, present], *uncalibrated)
        for name, absent, present in zip(names, denied, stated, strict=True)
    ]


def check_can_be_calibrated(folder: Path) -> None:
    """Check that a checkpoint can take a calibration.

    Raises:
        ValueError: If it was saved without the code that reads a calibration, or if more than its calibration differs
            from its golden outputs: the calibration would be fitted on other weights than the card describes.
    """
    _check_code(folder)
    if (folder / GOLDEN).exists():
        check_drift(folder, ("config.json", "calibration"))


def _check_code(folder: Path) -> None:
    if not (folder / CODE).exists():
        raise ValueError(
            f"{folder} has no {CODE}: it was saved before checkpoints could be calibrated. "
            "Save it again with train.checkpoints.checkpoint.save_checkpoint."
        )
