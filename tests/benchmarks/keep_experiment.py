"""Keep what the results page shows of a finished experiment: a small JSON file and one figure.

    python -m tests.benchmarks.keep_experiment --experiment experiments/small_cpu

Writes `experiment_NAME.json` and `experiment_NAME.png` into `tests/benchmarks/results/`. All metrics stay in its own
`results.json`.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_scripts.system.command_line import run

RESULTS = Path(__file__).parent / "results"
# Groups whose metrics are kept in addition to those of the headline probe.
GROUPS = (
    *("probe/paper/unprojected", "probe/paper_logit_adjusted/unprojected", "grade/unprojected"),
    *("zero_shot", "zero_shot/unseen", "zero_shot/single_wordings", "polarity"),
    *("grade_by/prompts", "grade_by/fusion", "grade_by/probe"),
)
RETRIEVAL = "retrieval/report"
KEPT = ("value", "low", "high", "n", "reason", "by_seed", "standard_deviation_of_seeds")


@dataclass
class KeepArguments:
    """Keep what the results page shows of a finished experiment."""

    experiment: str = field(metadata={"help": "Folder of the experiment, which holds results.json."})


def main(args: KeepArguments) -> None:
    """Cut the results down and write them."""
    folder = Path(args.experiment)
    path = folder / "results.json"
    if not path.exists():
        raise ValueError(f"{path} is missing: the experiment has not finished.")
    results = json.loads(path.read_text())
    name = results["experiment"]["name"]
    (RESULTS / f"experiment_{name}.json").write_text(json.dumps(kept(results), indent=1) + "\n")
    shutil.copy(folder / "figures" / "systems.png", RESULTS / f"experiment_{name}.png")


def kept(results: dict[str, Any]) -> dict[str, Any]:
    """Select the part of the results that the page shows."""
    headline = results["headline"]["group"]

    def kept_metrics(system: dict[str, Any]) -> dict[str, Any]:
        of = system["metrics"]
        groups = {group: of[group] for group in dict.fromkeys((headline, *GROUPS)) if group in of}
        groups[RETRIEVAL] = {name: entry for name, entry in of.get(RETRIEVAL, {}).items() if name.endswith("_at_10")}
        return {
            group: {name: {key: entry[key] for key in KEPT if key in entry} for name, entry in entries.items()}
            for group, entries in groups.items()
        }

    return {
        "headline": results["headline"],
        "num_resamples": results["num_resamples"],
        "systems": {
            title: {"metrics": kept_metrics(system), "cost": system["cost"], "num_seeds": system["num_seeds"]}
            for title, system in results["systems"].items()
        },
        "baselines": {name: {"metrics": kept_metrics(baseline)} for name, baseline in results["baselines"].items()},
        "comparisons": results["comparisons"],
        "dataset": results["dataset"],
        "seeds": results["experiment"]["seeds"],
        "folds": results["experiment"]["folds"],
        "command": results["command"],
        "date": results["date"],
    }


if __name__ == "__main__":
    sys.exit(run(main))
