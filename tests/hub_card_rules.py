"""What the Hub's check of a card (`POST /api/validate-yaml`) refuses: as documented, and as seen in its answers.

Sources: docs/hub/repositories-licenses.md and modelcard.md of huggingface/hub-docs; the Spaces config reference;
huggingface_hub issue 4218, which prints the licences.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

# As the answer in issue 4218 names them, written out here: our own list of what it takes cannot vouch for itself.
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENSES = frozenset(_LICENSES.split())
SPACE_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SPACE_SDKS = ("gradio", "docker", "static")


def card_errors(card: str, kind: str) -> list[str]:
    """Say what is wrong with the head of a card of a `kind` of repository: model, dataset or space."""
    head = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if head is None:
        return []  # the Hub only warns
    metadata = yaml.safe_load(head[1])
    check = {"model": _of_a_model, "dataset": _of_any, "space": _of_a_space}[kind]
    return list(check(metadata))


def _of_any(metadata: dict[str, Any]) -> Iterator[str]:
    if metadata.get("license", "unknown") not in LICENSES:
        yield '"license" must be one of [...]'
    if metadata.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(metadata.get("license_name", ""))):
        yield '"license_name" must be given with other, in small letters, digits, hyphens and points'
    for name in ("datasets", "models", "base_model"):
        values = metadata.get(name, [])
        for value in [values] if isinstance(values, str) else values:
            if not _is_id(value):
                yield f'"{name}" with value {value!r} is not valid: not an id of the Hub'
    for name in ("tags", "task_categories"):
        if not all(isinstance(value, str) for value in metadata.get(name, [])):
            yield f'"{name}" must be strings'
    if not re.fullmatch(r"[a-z]{2}", metadata.get("language", "en")):
        yield '"language" must be an ISO 639 code'


def _of_a_model(metadata: dict[str, Any]) -> Iterator[str]:
    yield from _of_any(metadata)
    emissions = metadata.get("co2_eq_emissions", {})
    if not isinstance(emissions.get("emissions", 0), int | float):
        yield '"co2_eq_emissions.emissions" must be a number, of grams'
    for one, model in enumerate(metadata.get("model-index", [])):
        where = f"model-index[{one}]"
        if not isinstance(model.get("name"), str):
            yield f'"{where}.name" is required'
        if not model.get("results"):
            yield f'"{where}.results" is required'
        for two, result in enumerate(model.get("results", [])):
            needed = {"task.type": str, "dataset.type": str, "dataset.name": str}
            for name, kind in needed.items():
                outer, _, inner = name.partition(".")
                if not isinstance(result.get(outer, {}).get(inner), kind):
                    yield f'"{where}.results[{two}].{name}" is required, a string'
            for name in ("config", "split", "revision"):
                if not isinstance(result.get("dataset", {}).get(name, ""), str):
                    yield f'"{where}.results[{two}].dataset.{name}" must be a string'
            for three, metric in enumerate(result.get("metrics", [])):
                if not isinstance(metric.get("type"), str) or metric.get("value") is None:
                    yield f'"{where}.results[{two}].metrics[{three}]" needs type and value'


def _of_a_space(metadata: dict[str, Any]) -> Iterator[str]:
    yield from _of_any(metadata)
    if metadata.get("sdk") not in SPACE_SDKS:
        yield f'"sdk" must be one of {SPACE_SDKS}'
    for name in ("colorFrom", "colorTo"):
        if metadata.get(name, "gray") not in SPACE_COLOURS:
            yield f'"{name}" must be one of {SPACE_COLOURS}'
    if len(metadata.get("short_description", "")) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'


def _is_id(value: Any) -> bool:
    try:
        validate_repo_id(value)
    except HFValidationError:
        return False
    return True
