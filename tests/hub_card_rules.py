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

from data_scripts.hub_licenses import HUB_LICENSES

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
    if metadata.get("license", "unknown") not in HUB_LICENSES | {"other", "unknown"}:
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
