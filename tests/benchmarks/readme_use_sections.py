"""The README's sections on using a checkpoint: what was measured, as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from train.reporting.explanation_report import scores_table, verdict
from train.reporting.tables import format_entry, markdown_table


def explanation_section(content: dict[str, Any], others: Mapping[str, dict[str, Any]]) -> str:
    """Where maps of the demo's model fall, beside their baselines; and those of other towers, by their result files."""
    data, model = content["dataset"], content["model"]
    rows, columns = model["map_size"]
    verdicts = "\n".join(f"- {verdict(name, groups)}" for name, groups in content["methods"].items())
    return f"""### Where the model looks, synthetic

{data["num_maps"]} findings that the reports of {data["num_patients"]} unseen patients affirm, each asked for with its \
prompts; the masks of the drawn structures are known. Pointing game: share of the maps whose maximum lies in the \
structure. Inside-mask energy: share of their non-negative mass there. Randomised: the same maps by \
{content["num_randomised"]} models with random weights; rank correlation: with these. *Less its denial*: the direction \
from "No disc bulge." to "Disc bulge.". Maps of {rows} x {columns} cells ({model["vision"]}); 95 % intervals over \
patients.

{scores_table(content)}

{verdicts}

The demo with other towers, trained from random weights on the same few drawings: pointing game of the maps / of the \
same maps by randomised models.

{_other_towers(others.values())}

`{content["command"]}`, {content["date"][:10]}, `tests/benchmarks/results/explanation.json`; {_sources(others)}."""


def _other_towers(contents: Iterable[dict[str, Any]]) -> str:
    rows = []
    for content in contents:
        height, width = content["model"]["map_size"]
        both = [(groups["trained"], groups["randomised model"]) for groups in content["methods"].values()]
        cells = [" / ".join(format_entry(scores["pointing_game"]) for scores in pair) for pair in both]
        rows.append([f"{content['model']['vision']}, {height} x {width}", *cells])
        methods = [*content["methods"]]
    return markdown_table(["tower, cells of a map", *methods], rows)


def _sources(contents: Mapping[str, dict[str, Any]]) -> str:
    return "; ".join(
        f"`{content['command']}`, {content['date'][:10]}, `tests/benchmarks/results/{name}.json`"
        for name, content in contents.items()
    )
