"""The README's sections on using a checkpoint: what was measured, as Markdown."""

from typing import Any

from train.reporting.explanation_report import scores_table, verdict


def explanation_section(content: dict[str, Any]) -> str:
    """Where maps of the demo's model fall, beside their controls."""
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

`{content["command"]}`, {content["date"][:10]}, `tests/benchmarks/results/explanation.json`."""
