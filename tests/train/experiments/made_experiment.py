"""Answers of a made-up experiment of 8 patients with 3 images each, small enough to count by hand."""

import numpy as np

from train.evaluation.targets import Targets

NUM_ROWS = 24
PATIENT_IDS = np.repeat([f"p{patient}" for patient in range(8)], 3)
# Patients 0-4 have low back pain, 5-7 do not.
POSITIVE = np.arange(NUM_ROWS) < 15
DIRECTIONS = ("image_to_text", "text_to_image")


def exclusive_targets():
    return Targets("test", ("LBP", "No Finding"), np.c_[POSITIVE, ~POSITIVE], True, (), np.full(24, -1), PATIENT_IDS)


def finding_targets():
    rng = np.random.default_rng(0)
    findings = rng.random((NUM_ROWS, 3)) < [0.5, 0.4, 0]  # nobody has the third
    labels = np.c_[findings, ~findings.any(1)]
    names = ("bulge", "stenosis", "Modic change", "No Finding")
    return Targets("test", names, labels, False, ("1", "2"), np.arange(NUM_ROWS) % 2, PATIENT_IDS)


def class_answers(wrong=(), **more):
    """Right everywhere but in the rows given, always 80 % sure."""
    said = POSITIVE ^ np.isin(np.arange(NUM_ROWS), wrong)
    probabilities = np.where(np.c_[said, ~said], 0.8, 0.2)
    return {
        "row": np.arange(NUM_ROWS),
        "fold": np.zeros(NUM_ROWS, dtype=int),
        "probe/paper/unprojected": probabilities,
        **more,
    }


def finding_answers(targets, seed=0, noise=0.5, **more):
    rng = np.random.default_rng(seed)
    probabilities = np.clip(0.5 + 0.4 * (targets.labels - 0.5) + noise * (rng.random(targets.labels.shape) - 0.5), 0, 1)
    return {
        "row": np.arange(NUM_ROWS),
        "fold": np.arange(NUM_ROWS) // 3 % 2,
        "probe/paper/unprojected": probabilities,
        "grade/unprojected": np.where(rng.random(NUM_ROWS) < 0.8, targets.grades, 1 - targets.grades),
        **more,
    }


def retrieval_answers(rank, hits="report"):
    arrays = {"rank": rank, "num_hits": np.ones(NUM_ROWS, dtype=int), "num_candidates": np.full(NUM_ROWS, 24)}
    return {f"retrieval/{hits}/{direction}/{name}": array for direction in DIRECTIONS for name, array in arrays.items()}


def wording_answers(targets, seed=0):
    """Cosines with ten wordings each that follow the truth, some more than others."""
    rng = np.random.default_rng(seed)
    num_labels = len(targets.label_names)
    truth = targets.labels[:, :, None] - 0.5
    stated = 0.2 * truth * rng.random((1, num_labels, 10)) + rng.normal(0, 0.1, (NUM_ROWS, num_labels, 10))
    return {
        "zero_shot/unseen": 1 / (1 + np.exp(-stated.mean(2))),
        "single_wordings/stated": stated.reshape(NUM_ROWS, -1),
        "single_wordings/denied": np.zeros((NUM_ROWS, 10 * num_labels)),
    }


def system(kind="lumbarclip", vision="resnet10t", projection="linear", projection_dim=128):
    heads = {"projection": projection, "projection_dim": projection_dim}
    return {"system": kind, "vision": vision, "vision_model_args": {}, **heads}


def by_seed(answers):
    """Number the seeds of each system."""
    return {title: dict(enumerate(seeds)) for title, seeds in answers.items()}


def summary(title, seed=0, state="done", reason=None, **cost):
    done = {"updates": 10, "pairs_seen": 320, "seconds": 5.0, "pairs_per_second": 64.0} if state == "done" else {}
    return {"system": title, "seed": seed, "fold": None, "state": state, "reason": reason, **done, **cost}
