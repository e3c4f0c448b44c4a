"""Names of what unseen wordings measure, and which statements embed like their denials: what reports read of both."""

from collections.abc import Mapping

UNSEEN, SINGLE, POLARITY = "zero_shot/unseen", "zero_shot/single_wordings", "polarity"  # groups of metrics
SPREAD_NAMES = ("mean", "standard_deviation", "worst")  # over single wordings
# From this cosine on, of two mean embeddings, a statement and its denial lie closer than images can be told apart by. A
# number of ours: towers that soft targets alone trained have 0.98 to 1, and their zero-shot answers turn over.
ALIKE = 0.99


def spread_name(metric: str, spread: str) -> str:
    """Name a spread of a metric.

    Example:
        >>> spread_name("macro_auroc", "worst"), spread_name("auroc/disc bulge", "mean")
        ('macro_auroc_worst', 'auroc_mean/disc bulge')
    """
    key, slash, label = metric.partition("/")
    return f"{key}_{spread}{slash}{label}"


def alike(cosines: Mapping[str, float]) -> dict[str, float]:
    """Pick the labels whose statement and denial embed alike, the most alike first.

    Example:
        >>> alike({"stenosis": 0.2, "bulge": 0.991, "Modic change": 1.0})
        {'Modic change': 1.0, 'bulge': 0.991}
    """
    by_cosine = sorted(cosines.items(), key=lambda item: -item[1])
    return {label: cosine for label, cosine in by_cosine if not cosine < ALIKE}


def alike_in_words(cosines: Mapping[str, float]) -> str:
    """Name the classes of `alike`.

    Example:
        >>> alike_in_words({"Modic change": 1.0, "bulge": 0.991})
        'Statement and denial embed alike (cosine): Modic change 1.000, bulge 0.991.'
    """
    named = ", ".join(f"{label} {cosine:.3f}" for label, cosine in cosines.items())
    return f"Statement and denial embed alike (cosine): {named}."
