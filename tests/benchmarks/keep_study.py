"""Keep of a finished study what the README shows: a small JSON file and one figure.

    python tests/benchmarks/keep_study.py --study study/small_cpu

Writes `study_NAME.json` and `study_NAME.png` into `tests/benchmarks/results/`. All figures stay in the study's own
`results.json`.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

RESULTS = Path(__file__).parent / "results"
# Groups whose figures are kept beside those of the headline probe.
GROUPS = ("probe/paper/unprojected", "probe/paper_logit_adjusted/unprojected", "grade/unprojected", "zero_shot")
RETRIEVAL = "retrieval/report"
KEPT = ("value", "low", "high", "n", "reason", "standard_deviation_of_seeds")


@dataclass
class KeepArguments:
    """Keep of a finished study what the README shows."""

    study: str = field(metadata={"help": "Folder of the study, which holds results.json."})


def main(args: KeepArguments) -> None:
    """Cut the results down and write them."""
    folder = Path(args.study)
    path = folder / "results.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: the study has not ended.")
    results = json.loads(path.read_text())
    name = results["study"]["name"]
    (RESULTS / f"study_{name}.json").write_text(json.dumps(kept(results), indent=1) + "\n")
    shutil.copy(folder / "figures" / "systems.png", RESULTS / f"study_{name}.png")


def kept(results: dict[str, Any]) -> dict[str, Any]:
    """The part of the results that the README shows."""
    headline = results["headline"]["group"]

    def figures(system: dict[str, Any]) -> dict[str, Any]:
        of = system["figures"]
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
            title: {"figures": figures(system), "cost": system["cost"], "num_seeds": system["num_seeds"]}
            for title, system in results["systems"].items()
        },
        "controls": {name: {"figures": figures(control)} for name, control in results["controls"].items()},
        "comparisons": results["comparisons"],
        "card_text": results["card_text"],
        "dataset": results["dataset"],
        "seeds": results["study"]["seeds"],
        "folds": results["study"]["folds"],
        "command": results["command"],
        "date": results["date"],
    }


if __name__ == "__main__":
    (arguments,) = HfArgumentParser(KeepArguments).parse_args_into_dataclasses()  # type: ignore[arg-type]
    main(arguments)
