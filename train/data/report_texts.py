"""Which text of a report a pair shows: the whole or a sentence, as it was written or varied."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from tqdm.auto import tqdm

from data_scripts.augmentations.eda import augment_text
from data_scripts.augmentations.map_functions import row_generator
from data_scripts.reports.text import report_sentences

TEXT_UNITS = ("report", "sentence")
TEXT_AUGMENTATIONS = ("rephrasings", "eda", "both", "none")

# Of each text, by EDA: a text of thirty words has three of them changed, so that there are not many more to find.
VARIATIONS = 4


def augmented_texts(
    reports: Sequence[str],
    rephrasings: Sequence[Sequence[str]],
    augmentation: str,
    seed: int,
    show_progress: bool = True,
) -> list[list[str]]:
    """Collect the texts that may stand for each report in the loss on augmented texts.

    Args:
        reports: Of the rows.
        rephrasings: Of the rows; a row may have none.
        augmentation: `rephrasings`: those that the data set holds. `eda`: variations of the report by EDA, with its
            facts. `both`: variations of the rephrasings by EDA, or of the report where it has none. `none`.
        seed: Of the variations.
        show_progress: Whether to draw a progress bar.

    Returns:
        Texts for each row; none where its report has to stand for itself.

    Raises:
        ValueError: If the augmentation is unknown.

    Relations:
        `data_scripts.augmentations.map_functions.EDA` makes one variation of each text, and a data set of them.
    """
    if augmentation not in TEXT_AUGMENTATIONS:
        raise ValueError(f"text_augmentation must be one of {', '.join(TEXT_AUGMENTATIONS)}; got {augmentation!r}.")
    if augmentation == "none":
        return [[] for _ in reports]
    if augmentation == "rephrasings":
        return [list(texts) for texts in rephrasings]
    varied = [
        list(texts) if augmentation == "both" and texts else [report]
        for report, texts in zip(reports, rephrasings, strict=True)
    ]
    distinct = sorted({text for texts in varied for text in texts})
    progress = tqdm(distinct, desc="varying texts", unit=" texts", disable=not show_progress)
    variations = {text: eda_variations(text, seed) for text in progress}
    return [[variation for text in texts for variation in variations[text]] for texts in varied]


@lru_cache(maxsize=65536)  # the runs of a study vary the same texts
def eda_variations(text: str, seed: int) -> tuple[str, ...]:
    """Vary a text four times by EDA; each has the facts of the text, and is the text itself where none can be found.

    Example:
        >>> eda_variations("There is a mild disc bulge at L4/L5.", seed=0)[:2]
        ('There is mild disc bulge at L4/L5.', 'There is a mild disk bulge at L4/L5.')
    """
    random = row_generator("EDA of training texts", seed, text)
    return tuple(augment_text(text, random).text for _ in range(VARIATIONS))


def parts_of_texts(texts: Iterable[str], unit: str) -> dict[str, tuple[str, ...]]:
    """Cut texts into what the text tower sees at once.

    Args:
        texts: Reports and their variations.
        unit: `report`, the whole, or `sentence`.

    Returns:
        The parts of each distinct text, at least one.

    Raises:
        ValueError: If the unit is unknown.

    Source:
        A sentence of the report is drawn for each image in ConVIRT, Zhang et al. 2020, section 2.3. Ours: the cuts are
        those of the report reader, which knows bullets, `//` and abbreviations.

    Example:
        >>> parts_of_texts(["Bulge at L4/L5. No stenosis."], "sentence")
        {'Bulge at L4/L5. No stenosis.': ('Bulge at L4/L5.', 'No stenosis.')}
    """
    if unit not in TEXT_UNITS:
        raise ValueError(f"text_unit must be one of {', '.join(TEXT_UNITS)}; got {unit!r}.")
    distinct = sorted(set(texts))
    return {text: report_sentences(text) or (text,) if unit == "sentence" else (text,) for text in distinct}
