"""The energy that a run drew and what that emitted, from its time and what its settings say of machine and grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SOURCE = (
    "computed, not metered: power drawn × time of the updates × carbon intensity of the grid, as the run's settings "
    "give them"
)


def energy_values(arguments: Mapping[str, Any], seconds: float | None) -> dict[str, str] | None:
    """Compute energy and emissions, as a card writes them.

    Args:
        arguments: Settings of the run.
        seconds: Time of all its updates; None if that was not recorded.

    Returns:
        `kwh`, `grams` of CO2eq, `watts` and `grams_per_kwh`; None unless time, power and grid are known.

    Example:
        >>> energy_values({"power_watts": 250.0, "carbon_intensity": 380.0}, seconds=7200.0)
        {'kwh': '0.5', 'grams': '190', 'watts': '250', 'grams_per_kwh': '380'}
    """
    watts, intensity = arguments.get("power_watts"), arguments.get("carbon_intensity")  # earlier runs have neither
    if seconds is None or watts is None or intensity is None:
        return None
    kwh = watts * seconds / 3600 / 1000
    figures = {"kwh": kwh, "grams": kwh * intensity, "watts": watts, "grams_per_kwh": intensity}
    return {name: _three_digits(value) for name, value in figures.items()}


def emissions_metadata(energy: Mapping[str, str], *, goes_on: bool, hardware: str) -> dict[str, Any]:
    """`co2_eq_emissions`, by the names of the Hub.

    Args:
        energy: As `energy_values` gives it.
        goes_on: Whether the run went on from an earlier checkpoint.
        hardware: What it ran on.
    """
    return {
        "emissions": float(energy["grams"]),
        "source": SOURCE,
        "training_type": "fine-tuning" if goes_on else "pre-training",
        "hardware_used": hardware,
    }


def _three_digits(value: float) -> str:
    """A number with three digits that count, and no exponent.

    Example:
        >>> _three_digits(0.00086666), _three_digits(1234567.0), _three_digits(65.0)
        ('0.000867', '1230000', '65')
    """
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")
