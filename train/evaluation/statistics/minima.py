"""How many patients or predictions a statement needs before it is made: every minimum, with its reason.

The simulated numbers: 95 % intervals of a mean of n normal values by the percentile bootstrap; temperatures fitted on n
patients with six rows each, half of whose variance is shared, against the true temperature.
"""

import math

ROUNDING = 1e-9  # a sum of n equal shares may miss a fraction by a few units of the last place

# A bootstrap of few patients draws the same few again, and its intervals are too narrow: of two equal systems one
# "leads" in 18 % of cases with 4 patients and in 10 % with 10, instead of 5 %; in 8 % with 20. Fewer rank nothing.
PATIENTS_TO_RANK = 20
# One number, but rows of a patient resemble each other: in 9 of 10 cases a fitted temperature is within a factor of 2.7
# of the true one with 4 patients, of 1.8 with 10. Below it, temperatures stay 1.
PATIENTS_FOR_TEMPERATURE = 10
# A scope's threshold: the images of a patient lie close together, so that those of fewer patients say little of others.
PATIENTS_FOR_SCOPE = 10
# A label's metric moves by a tenth or more with a single patient. Cards list the labels below it.
PATIENTS_FOR_LABEL = 10
# An accuracy of fewer predictions jumps by 5 % and more with each. Curves of accuracy start here.
PREDICTIONS_FOR_CURVE = 20


def counted(number: int, word: str) -> str:
    """Write a count with its noun.

    Example:
        >>> counted(1, "patient"), counted(4, "patient")
        ('1 patient', '4 patients')
    """
    return f"{number} {word}{'' if number == 1 else 's'}"


def patients_for_sets(target_coverage: float) -> int:
    """Compute the least number of patients whose scores can promise the coverage; class by class, of each class.

    The threshold is the ceil((n + 1) target)-th smallest of n scores, and there is none if that exceeds n: the promise
    then holds only for sets of all choices, which say nothing.

    Example:
        >>> patients_for_sets(0.9), patients_for_sets(0.95)
        (9, 19)
    """
    return math.ceil(target_coverage / (1 - target_coverage) - ROUNDING)


def too_few_to_rank(num_patients: int) -> str:
    """Say that systems measured on these patients are not ranked; empty if they are enough.

    Example:
        >>> too_few_to_rank(4)
        'too few to rank: 4 patients, and a comparison needs 20'
    """
    if num_patients >= PATIENTS_TO_RANK:
        return ""
    return f"too few to rank: {counted(num_patients, 'patient')}, and a comparison needs {PATIENTS_TO_RANK}"


def too_few_for_temperature(num_patients: int) -> str:
    """Say that no temperature is fitted on these patients; empty if they are enough."""
    if num_patients >= PATIENTS_FOR_TEMPERATURE:
        return ""
    return f"{counted(num_patients, 'validation patient')}, and a temperature needs {PATIENTS_FOR_TEMPERATURE}"


def too_few_for_sets(num_patients: int, target_coverage: float, rarest: str = "") -> str:
    """Say that no prediction sets are fitted on these patients, or those of the rarest class; empty if they are enough.

    Example:
        >>> too_few_for_sets(4, 0.9, "class")
        '4 validation patients of the rarest class, and sets of 90% coverage need 9 of each'
    """
    needed = patients_for_sets(target_coverage)
    if num_patients >= needed:
        return ""
    whose, of_each = (f" of the rarest {rarest}", " of each") if rarest else ("", "")
    have = counted(num_patients, "validation patient")
    return f"{have}{whose}, and sets of {target_coverage:.0%} coverage need {needed}{of_each}"
