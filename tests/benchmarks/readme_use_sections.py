"""The README's sections on using a checkpoint: what was measured, as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from train.reporting.explanation_report import BASELINES, SCORES, scores_table
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


def verdict(name: str, groups: Mapping[str, Any]) -> str:
    """Say in a sentence whether maps beat their baselines.

    Args:
        name: Of the method.
        groups: Entries of `explanation.json` for the method.

    Example:
        >>> better, equal = ({"low": low, "value": 0.1} for low in (0.05, -0.05))
        >>> groups = {f"less {name}": {score: better for score in SCORES} for name in BASELINES}
        >>> verdict("text to patch", groups)
        'Text to patch falls on the structure more than every baseline, by both scores.'
        >>> verdict("Grad-CAM", groups | {"less centre prior": {"pointing_game": equal, "inside_energy": better}})
        'Grad-CAM is no evidence of where the model looks: it does not exceed the centre prior in the pointing game.'
    """
    unmet = []
    for baseline in BASELINES:
        entries = groups[f"less {baseline}"]
        not_above = [words for score, words in SCORES.items() if not (entries[score]["low"] or 0) > 0]
        if not_above:
            in_one = f" in the {not_above[0]}" if len(not_above) < len(SCORES) else ""
            unmet.append(f"the {baseline}{in_one}")
    if not unmet:
        return f"{name[0].upper()}{name[1:]} falls on the structure more than every baseline, by both scores."
    return (
        f"{name[0].upper()}{name[1:]} is no evidence of where the model looks: it does not exceed {', '.join(unmet)}."
    )


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
