"""Choose the text that a pair shows: the whole report or a sentence, original or varied."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from tqdm.auto import tqdm

from data_scripts.augmentations.counterfactuals import counterfactual_reports
from data_scripts.augmentations.eda import augment_text
from data_scripts.augmentations.map_functions import row_generator
from data_scripts.reports.text import report_facts, report_sentences

TEXT_UNITS = ("report", "sentence")
TEXT_AUGMENTATIONS = ("rephrasings", "eda", "both", "none")
VARIATIONS = 4  # per text; EDA changes three of thirty words, so few more exist


def augmented_texts(
    reports: Sequence[str],
    rephrasings: Sequence[Sequence[str]],
    augmentation: str,
    seed: int,
    texts_per_pair: int = 1,
    show_progress: bool = True,
) -> list[list[list[str]]]:
    """Collect the texts that may replace each report in the loss on augmented texts.

    Args:
        reports: The rows' reports.
        rephrasings: The rows' rephrasings; a row may have none.
        augmentation: `rephrasings`: those in the dataset. `eda`: EDA variations of the report, with its facts. `both`:
            EDA variations of the rephrasings, or of the report if it has none. `none`.
        seed: Seed of the variations.
        texts_per_pair: Texts of a pair that an epoch shows, one after the other. If several, the report is one of them,
            as in the paper; for `both` in EDA variations, too.
        show_progress: Whether to draw a progress bar.

    Returns:
        The texts of each row, and the wordings of each text, one of which is drawn. A single text has all wordings; a
        row has no text if its report is used itself.

    Raises:
        ValueError: If the augmentation is unknown.

    Source:
        LumbarCLIP, arXiv 2509.20813, sections 3.1 and 3.2: the original caption and four rephrasings make five samples
        of a pair, and EDA is applied. How the two combine is not said; EDA on the augmented texts is our reading.

    Example:
        >>> reports, rephrasings = ["Disc bulge."], [["A disc bulge.", "The disc bulges."]]
        >>> augmented_texts(reports, rephrasings, "rephrasings", seed=0)
        [[['A disc bulge.', 'The disc bulges.']]]
        >>> augmented_texts(reports, rephrasings, "rephrasings", seed=0, texts_per_pair=3)
        [[['Disc bulge.'], ['A disc bulge.'], ['The disc bulges.']]]
    """
    if augmentation not in TEXT_AUGMENTATIONS:
        raise ValueError(f"text_augmentation must be one of {', '.join(TEXT_AUGMENTATIONS)}; got {augmentation!r}.")
    if augmentation == "none":
        return [[] for _ in reports]
    several = texts_per_pair > 1

    def originals_of(report: str, texts: Sequence[str]) -> list[str]:
        if augmentation == "eda":
            return [report]
        shown = [report, *texts] if several else list(texts)
        return shown or ([report] if augmentation == "both" else [])

    originals = [originals_of(report, texts) for report, texts in zip(reports, rephrasings, strict=True)]
    if augmentation == "rephrasings":
        wordings_of = {text: [text] for texts in originals for text in texts}
    else:
        distinct = sorted({text for texts in originals for text in texts})
        progress = tqdm(distinct, desc="varying texts", unit=" texts", disable=not show_progress)
        wordings_of = {text: list(eda_variations(text, seed)) for text in progress}
    if not several:
        return [
            [[text for original in texts for text in wordings_of[original]]] if texts else [] for texts in originals
        ]
    if augmentation == "eda":
        return [[[report], *([text] for text in wordings_of[report])] for report in reports]
    return [[wordings_of[text] for text in texts] for texts in originals]


@lru_cache(maxsize=65536)  # the runs of an experiment vary the same texts
def eda_variations(text: str, seed: int) -> tuple[str, ...]:
    """Vary a text four times by EDA, keeping its facts; the text itself where no variation is found.

    Example:
        >>> eda_variations("There is a mild disc bulge at L4/L5.", seed=0)[:2]
        ('There is mild disc bulge at L4/L5.', 'There is a mild disk bulge at L4/L5.')
    """
    random = row_generator("EDA of training texts", seed, text)
    return tuple(augment_text(text, random).text for _ in range(VARIATIONS))


def parts_of_texts(texts: Iterable[str], unit: str) -> dict[str, tuple[str, ...]]:
    """Cut each text into parts, at least one: the whole `report`, or each `sentence`.

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


def changed_parts(
    reports: Sequence[str], parts: Mapping[str, Sequence[str]], show_progress: bool = True
) -> dict[tuple[str, str], list[str]]:
    """Change one fact of each part of each report, and keep what no other part of the report states.

    Returns:
        The counterfactuals of each report and part.

    Example:
        >>> report, first, second = "Bulge at L3/L4. Bulge at L4/L5.", "Bulge at L3/L4.", "Bulge at L4/L5."
        >>> changed_parts([report], {report: (first, second)}, show_progress=False)[report, first]
        ['No bulge at L3/L4.']
        >>> changed_parts([first], {first: (first,)}, show_progress=False)[first, first]
        ['No bulge at L3/L4.', 'Bulge at L4/L5.']
    """
    changed = {}
    for report in tqdm(sorted(set(reports)), desc="changing facts", unit=" texts", disable=not show_progress):
        for part in parts[report]:
            texts = [text for _, text in counterfactual_reports(part)]
            if part != report:
                stated, of_part = report_facts(report), report_facts(part)
                texts = [text for text in texts if not (report_facts(text) - of_part) & stated]
            changed[report, part] = texts
    return changed
