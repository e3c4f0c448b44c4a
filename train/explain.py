"""Score where a LumbarCLIP checkpoint looks, on held-out patients whose slices have masks.

    python train/explain.py --checkpoint runs/demo/checkpoint --dataset data/synthetic --out runs/demo/explanation

Asks for every finding that a report affirms, draws text-to-patch similarity and Grad-CAM, and scores them against the
mask of the structure that the finding is of, beside the maps of models with random weights, a prior that points at the
middle, and a constant map. Writes `explanation.json`, `explanation.md` and `explanation.png`. A map that does not beat
its controls is no evidence of where the model looks, however it looks itself.
"""

import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from matplotlib.figure import Figure

from data_scripts.system.command_line import run
from data_scripts.system.whole_files import write_bytes, write_json, write_text
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import load_checkpoint
from train.data.loaders import open_dataset
from train.evaluation.baselines import untrained_model
from train.evaluation.protocols.explanation import method_estimates, score_estimates
from train.evaluation.protocols.finding_maps import (
    LESS_DENIAL,
    Maps,
    MaskedFinding,
    finding_maps,
    mask_names_of,
    masked_findings,
    score_methods,
)
from train.evaluation.statistics.bootstrap import Resampling, as_entries
from train.evaluation.statistics.metrics import Array
from train.reporting.explanation_report import explanation_report
from train.reporting.figures.explanation import Example, explanation_figure
from train.reporting.report import describe_dataset

RESULTS = "explanation.json"
# Shown of each example, by the trained and by a randomised model.
DRAWN = (f"text to patch{LESS_DENIAL}", f"Grad-CAM{LESS_DENIAL}")


@dataclass
class ExplainArguments:
    """Score where a LumbarCLIP checkpoint looks, against masks and controls."""

    checkpoint: str = field(metadata={"help": "Folder of a checkpoint, or a Hub id."})
    dataset: str = field(metadata={"help": "Folder that data_scripts.build wrote, or a Hub id; its rows need masks."})
    out: str = field(metadata={"help": "Folder to write to."})
    split: str = field(default="test", metadata={"help": "Split to measure on; one the model was not trained on."})
    mask_names: list[str] = field(
        default_factory=list,
        metadata={"help": "Classes of the masks, background first. Not needed for the synthetic set and LSMA-PQR."},
    )
    num_randomised: int = field(default=5, metadata={"help": "Models with random weights to compare with."})
    batch_size: int = field(default=32, metadata={"help": "Images a forward pass. Changes no figure."})
    num_resamples: int = field(default=1000, metadata={"help": "Bootstrap resamples of patients for the intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of the random weights, the resamples and the examples."})

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        for name in ("num_randomised", "batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")


def main(args: ExplainArguments) -> None:
    """Load, draw the maps, score them, and write the report."""
    model, processor = cast(tuple[LumbarCLIPModel, LumbarCLIPProcessor], load_checkpoint(args.checkpoint))
    dataset = open_dataset(args.dataset)
    if args.split not in dataset:
        raise ValueError(f"The data set has no split {args.split!r}; it has {', '.join(dataset)}.")
    rows = dataset[args.split]
    mask_names = mask_names_of(rows, args.mask_names)
    findings = masked_findings(rows, mask_names)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method and hides its signature

    def draw(drawn_model: LumbarCLIPModel, name: str) -> Maps:
        return finding_maps(drawn_model, processor, rows, findings, batch_size=args.batch_size, description=name)

    trained = draw(model, "Maps")
    seeds = range(args.seed, args.seed + args.num_randomised)
    randomised = [draw(untrained_model(model, seed).eval(), f"Maps, random weights {seed}") for seed in seeds]
    results = {
        "dataset": describe(rows, findings, mask_names, Path(args.dataset).name, args.split),
        "model": {"vision": vision_name(model), "map_size": list(next(iter(trained.values()))[0].shape)},
        "num_randomised": args.num_randomised,
        **measure(trained, randomised, rows, findings, processor, Resampling(args.num_resamples, args.seed)),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    shown = examples(trained, randomised[0], rows, findings, mask_names, processor, args.seed)
    write(
        results, explanation_figure(shown, f"Where the model looks\n{describe_dataset(results['dataset'])}"), args.out
    )


def write(results: dict[str, Any], figure: Figure, out: str) -> None:
    """Write what was measured, and print the report."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).unlink(missing_ok=True)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_bytes(folder / "explanation.png", png.getvalue())
    report = explanation_report(results)
    write_text(folder / "explanation.md", report)
    write_json(folder / RESULTS, results)  # last: where it is, the others are
    print(report)
    print(f"Written: {folder}/{RESULTS}, explanation.md, explanation.png")


def measure(
    trained: Maps,
    randomised: Sequence[Maps],
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    processor: LumbarCLIPProcessor,
    resampling: Resampling,
) -> dict[str, Any]:
    """Score the maps and their controls: entries by method, by control, and by finding."""
    scores, controls = score_methods(trained, randomised, rows, findings, processor.image_processor)
    patients = np.array(rows["patient_id"][:])[[finding.row for finding in findings]]
    methods = {name: method_estimates(of_method, controls, patients, resampling) for name, of_method in scores.items()}
    by_finding = {}
    for label in dict.fromkeys(finding.label for finding in findings):
        of_label = np.array([finding.label == label for finding in findings])
        systems = {**{name: of_method.trained for name, of_method in scores.items()}, **controls}
        by_finding[label] = {
            name: as_entries(score_estimates(values[of_label], patients[of_label], resampling))
            for name, values in systems.items()
        }
    return {
        "methods": {name: {group: as_entries(e) for group, e in groups.items()} for name, groups in methods.items()},
        "controls": {name: as_entries(score_estimates(v, patients, resampling)) for name, v in controls.items()},
        "by_finding": by_finding,
    }


def describe(
    rows: Dataset, findings: Sequence[MaskedFinding], mask_names: Sequence[str], name: str, split: str
) -> dict[str, Any]:
    """Say what was measured on: the images with a finding, and which structure each finding was looked for in."""
    patients = rows["patient_id"][:]
    asked = sorted({finding.row for finding in findings})
    return {
        "name": name,
        "split": split,
        "num_rows": len(asked),
        "num_patients": len({patients[row] for row in asked}),
        "synthetic": all(source.startswith("synthetic") for source in rows["source"][:]),
        "num_maps": len(findings),
        "findings": {
            label: {
                "structure": mask_names[next(f.mask_index for f in findings if f.label == label)],
                "maps": sum(finding.label == label for finding in findings),
                "patients": len({patients[finding.row] for finding in findings if finding.label == label}),
            }
            for label in dict.fromkeys(finding.label for finding in findings)
        },
    }


def examples(
    trained: Maps,
    randomised: Maps,
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    mask_names: Sequence[str],
    processor: LumbarCLIPProcessor,
    seed: int,
) -> list[Example]:
    """Draw one finding of each label by lot, so that no example was picked for its looks."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in dict.fromkeys(finding.label for finding in findings):
        number = int(rng.choice([number for number, finding in enumerate(findings) if finding.label == label]))
        finding = findings[number]
        row = rows[finding.row]
        mask = np.asarray(row["mask"])

        def over_image(maps: Maps, method: str, number: int = number, size: tuple[int, int] = mask.shape) -> Array:
            return processor.image_processor.unpad_maps(maps[method][number], size).numpy()

        panels = {
            f"{method}{ending}": over_image(maps, method)
            for ending, maps in (("", trained), (", random weights", randomised))
            for method in DRAWN
        }
        title = f"{label}\n({mask_names[finding.mask_index]})"
        chosen.append(Example(title, np.asarray(row["image"].convert("L")), mask == finding.mask_index, panels))
    return chosen


def vision_name(model: LumbarCLIPModel) -> str:
    """Name the vision tower: timm's architecture, or the model type of transformers."""
    config = model.config.vision_config
    return getattr(config, "architecture", None) or config.model_type


if __name__ == "__main__":
    sys.exit(run(main))
