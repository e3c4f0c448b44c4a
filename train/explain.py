"""Score where a LumbarCLIP checkpoint looks, on held-out patients whose slices have masks.

    python train/explain.py --checkpoint runs/demo/checkpoint --dataset data/synthetic --out runs/demo/explanation

Maps every finding that a report affirms, by text-to-patch similarity and Grad-CAM, and scores the maps against the mask
of the finding's structure. Baselines are the maps of models with random weights, a prior that points at the middle, and
a constant map: a map that does not beat them is not evidence of where the model looks, however convincing it looks.
Writes `explanation.json`, `explanation.md` and `explanation.png`.
"""

import io
import shlex
import sys
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_scripts.system.command_line import run, setting
from data_scripts.system.staging import only_process
from data_scripts.system.whole_files import write_bytes, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = "explanation.json"

WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says


@dataclass
class ExplainArguments:
    """Score where a LumbarCLIP checkpoint looks, against masks and baselines."""

    checkpoint: str = setting(MISSING, "Checkpoint folder, or Hub id.")
    dataset: str = setting(MISSING, "Folder of data_scripts.build, or a Hub id; its rows need masks.")
    out: str = setting(MISSING, "Folder to write to.")
    split: str = setting("test", "Split to measure on; one the model was not trained on.")
    mask_names: list[str] = setting(
        [], "Names of the mask classes, background first; by default those of the dataset's card."
    )
    num_randomised: int = setting(5, "Models with random weights to compare with.")
    batch_size: int = setting(32, "Images per forward pass; changes no result.")
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")
    seed: int = setting(0, "Seed of the random weights, the resamples and the examples.")

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded."""
        for name in ("num_randomised", "batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")


def main(args: ExplainArguments) -> None:
    """Draw the maps, score them, and write the report."""
    with only_process(Path(args.out)):
        explain(args)


def explain(args: ExplainArguments) -> None:
    """Draw the maps of the model and of those with random weights, score them, and write the report."""
    import torch

    from train.checkpoints.checkpoint import load_checkpoint
    from train.data.loaders import open_dataset
    from train.evaluation.baselines import untrained_model
    from train.evaluation.protocols.explanation import describe_findings, measure
    from train.evaluation.protocols.finding_maps import finding_maps, masked_findings
    from train.evaluation.statistics.bootstrap import Resampling
    from train.reporting.figures.explanation import draw_examples, explanation_figure
    from train.reporting.run_report import describe_dataset

    model, processor = load_checkpoint(args.checkpoint)
    dataset = open_dataset(args.dataset)
    if args.split not in dataset:
        raise ValueError(f"The dataset has no split {args.split!r}; it has {', '.join(dataset)}.")
    rows = dataset[args.split]
    mask_names = mask_names_of(args)
    findings = masked_findings(rows, mask_names)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]  # transformers hides the signature

    def draw(drawn_model: Any, name: str) -> Any:
        return finding_maps(drawn_model, processor, rows, findings, batch_size=args.batch_size, description=name)

    trained = draw(model, "Maps")
    seeds = range(args.seed, args.seed + args.num_randomised)
    randomised = [draw(untrained_model(model, seed).eval(), f"Maps, random weights {seed}") for seed in seeds]
    tower = model.config.vision_config
    results = {
        "dataset": describe_findings(rows, findings, mask_names, Path(args.dataset).name, args.split),
        "model": {
            "vision": getattr(tower, "architecture", None) or tower.model_type,  # from timm, or from transformers
            "map_size": list(next(iter(trained.values()))[0].shape),
        },
        "num_randomised": args.num_randomised,
        **measure(trained, randomised, rows, findings, processor, Resampling(args.num_resamples, args.seed)),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    examples = draw_examples(trained, randomised[0], rows, findings, mask_names, processor, args.seed)
    title = f"Where the model looks\n{describe_dataset(results['dataset'])}"
    write(results, explanation_figure(examples, title), Path(args.out))


def mask_names_of(args: ExplainArguments) -> tuple[str, ...]:
    """Name the mask classes, background first: from the settings, else from the dataset's card."""
    from data_scripts.lumbar_builder import read_mask_names

    if names := tuple(args.mask_names) or read_mask_names(args.dataset):
        return names
    raise ValueError(
        f"The card of {args.dataset} names no mask classes, and maps are scored against masks. If its rows have masks, "
        "name their classes in order, such as --mask_names background disc 'thecal sac' 'posterior element'."
    )


def write(results: dict[str, Any], figure: "Figure", folder: Path) -> None:
    """Write what was measured, and print the report."""
    from train.reporting.explanation_report import explanation_report

    png = io.BytesIO()
    figure.savefig(png, format="png")
    report = explanation_report(results)
    (folder / RESULTS).unlink(missing_ok=True)
    write_bytes(folder / "explanation.png", png.getvalue())
    write_text(folder / "explanation.md", report)
    write_json(folder / RESULTS, results)  # last: if it exists, so do the others
    print(report)
    print(f"Wrote {folder}/{RESULTS}, explanation.md, explanation.png")


if __name__ == "__main__":
    sys.exit(run(main))
