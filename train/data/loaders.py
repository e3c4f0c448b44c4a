"""From a dataset to batches: images are decoded once, texts tokenised once, and random choices depend on the row.

Shapes: R rows of a split, B pairs of a batch, U distinct texts of a batch, T tokens, S side of the image.
"""

import difflib
import hashlib
import logging
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, List
from datasets.exceptions import DatasetNotFoundError
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from data_scripts.auditing.built_folder import read_dataset
from data_scripts.records import NO_FINDING, PAPER_LABELS, PSEUDO_MASK, paper_labels
from data_scripts.reports.text import normalise_report
from modeling_lumbarclip import LumbarCLIPProcessor
from train.data.batch_sampler import EpochAndRow, EpochBatches, Indices, TrainingSet, exclusive_or_all
from train.data.image_augmentation import vary_images
from train.data.image_cache import decode_images, normalise
from train.data.report_texts import augmented_texts, changed_parts, parts_of_texts
from train.data.statement_banks import finding_states

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]

COLUMNS = {"image", "report", "rephrasings", "labels", "grade", "patient_id", "study_id", "level", "sequence", "source"}


def open_dataset(name: str, labels: str = "findings") -> DatasetDict:
    """Read a dataset of `data_scripts.build` from its folder or the Hub, with the `labels` of `with_labels`.

    Raises:
        ValueError: If there is none, it lacks a split or a column that training needs, or has no such labels.
    """
    try:
        dataset = read_dataset(name)
    except (FileNotFoundError, DatasetNotFoundError, ConnectionError) as error:  # offline: a ConnectionError
        path, offline = Path(name), " (The Hub could not be reached.)" if isinstance(error, ConnectionError) else ""
        siblings = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
        nearest = difflib.get_close_matches(path.name, set(siblings) - {path.name}, n=1)
        hint = f" Did you mean {path.with_name(nearest[0])}?" if nearest else ""
        raise ValueError(
            f"No dataset {name!r}: make one with `python -m data_scripts.build --source ... --out {name}`."
            f"{hint}{offline}"
        ) from error
    missing = [split for split in ("train", "validation", "test") if split not in dataset]
    if missing:
        raise ValueError(f"{name} has no split {', '.join(missing)}; build it again with data_scripts.build.")
    if missing_columns := COLUMNS - set(dataset["train"].column_names):
        raise ValueError(f"{name} lacks the columns {', '.join(sorted(missing_columns))}; build it with data_scripts.")
    return with_labels(dataset, labels)


def with_labels(dataset: DatasetDict, labels: str) -> DatasetDict:
    """Show the labels of a dataset as they are (`findings`), or as the pair of the paper (`paper`).

    The pair is `LBP`, any finding, or `No Finding`; a row that was not labelled, or has none of the classes, has
    neither. A dataset without any classes stays as it is, with a warning.

    Raises:
        ValueError: If it has classes, but not `No Finding`.
    """
    names = class_names(dataset["train"])
    if labels == "findings" or tuple(names) == PAPER_LABELS:
        return dataset
    if not names:
        logger.warning("labels paper has no effect: the dataset has no labels. Build it with --labels paper.")
        return dataset
    if NO_FINDING not in names:
        raise ValueError(
            f"--labels paper needs the class {NO_FINDING!r}; the dataset has {', '.join(names)}. Set --labels "
            "findings, or build it with --labels paper --labels_from_reports."
        )
    pair = List(ClassLabel(names=list(PAPER_LABELS)))
    shown = {}
    for split, rows in dataset.items():
        named = [present and [names[index] for index in present] for present in rows["labels"][:]]
        of_rows = [None if (kept := paper_labels(present)) is None else pair.feature.str2int(kept) for present in named]
        shown[split] = rows.remove_columns("labels").add_column("labels", of_rows, feature=pair)
    return DatasetDict(shown)


def class_names(split: Dataset) -> list[str]:
    """List the classes of the column `labels`."""
    return list(split.features["labels"].feature.names)


def grade_names(split: Dataset) -> list[str]:
    """List the grades of the scale, lowest first; none where the dataset has no scale."""
    return list(getattr(split.features["grade"], "names", []))


def have_pseudo_masks(split: Dataset) -> NDArray[np.bool_]:
    """Tell which masks a program computed: they may be learned from, but not measured against. Shape (R,)."""
    if "mask_origin" not in split.column_names:  # a dataset that was built before there were any
        return np.zeros(len(split), dtype=bool)
    pseudo = split.features["mask_origin"].str2int(PSEUDO_MASK)
    return np.array([origin == pseudo for origin in split["mask_origin"]], dtype=bool)


def rows_sha256(split: Dataset) -> str:
    """Identify the rows of a split, in order, by their sources and reports."""
    rows = "\n".join(f"{source}\t{report}" for source, report in zip(split["source"], split["report"], strict=True))
    return hashlib.sha256(rows.encode()).hexdigest()


def target_classes(
    dataset: Dataset, columns: Sequence[str], count_absences: bool = False, even_if_none: bool = False
) -> Tensor | None:
    """Return the classes of each row over the named columns, side by side, which the soft targets compare.

    Rows without any class, or that were not labelled, get the class "none of these", so that they resemble each other
    instead of every row.

    Args:
        dataset: A split whose columns hold `ClassLabel` or lists of them.
        columns: Columns to use.
        count_absences: False as in the paper: the overlap of two rows counts the classes that both have, so that a
            disc with one finding resembles one with six as much as another with one. True, ours: classes that both
            lack count, too, and every threshold of an ordinal grade that both pass or both miss; the overlap is then
            the number of classes minus the Hamming distance.
        even_if_none: Whether to return classes for a split in which no row has one, for the validation of a training
            split that has classes.

    Returns:
        Shape (R, K), float32; None without columns, or if no row has a class.
    """
    blocks, any_class = [], torch.zeros(len(dataset), dtype=torch.bool)
    for column in columns:
        feature = dataset.features[column]
        names = getattr(feature, "feature", feature).names
        block = torch.zeros(len(dataset), len(names))
        values = dataset[column][:]
        for row, value in enumerate(values):
            block[row, value if isinstance(value, list) else [] if value is None else [value]] = 1
        has_class = block.sum(dim=1) > 0
        any_class |= has_class
        is_known = torch.tensor([value is not None for value in values], dtype=torch.bool)
        if count_absences and column == "grade":
            passed = block.flip(1).cumsum(dim=1).flip(1)[:, 1:]  # threshold k: the grade is k or worse
            block = torch.cat([passed, 1 - passed], dim=1) * has_class[:, None]
        elif count_absences and column == "labels":
            block = torch.cat([block, 1 - block], dim=1) * is_known[:, None]
        blocks.append(block)
    if not blocks or not (any_class.any() or even_if_none):
        return None
    classes = torch.cat(blocks, dim=1)
    without_class = (classes.sum(dim=1) == 0).float()[:, None]
    return torch.cat([classes, without_class], dim=1) if without_class.any() else classes


def pair_targets(dataset: Dataset, inputs: Set[str], labels_from: str | None, even_if_none: bool = False) -> Batch:
    """Read what objectives learn besides the report, by the names in their inputs: a row for each of the R pairs.

    `classes`: multi-hot classes of the column `labels`, as in `target_classes` (R, K). `states`: whether each of the F
    classes is stated (1) or denied (0), or nothing is said (-1) (R, F). `grades`: index on the scale, -1 if not known
    (R,). `facts`: equal for pairs with the same report, labels and grade (R,).
    """
    targets: Batch = {}
    grades = [-1 if grade is None else grade for grade in dataset["grade"][:]]
    if "classes" in inputs and (classes := target_classes(dataset, ["labels"], even_if_none=even_if_none)) is not None:
        targets["classes"] = classes
    if "states" in inputs:
        targets["states"] = finding_states(dataset, class_names(dataset), labels_from)
    if "grades" in inputs:
        targets["grades"] = torch.tensor(grades)
    if "facts" in inputs:
        report_ids, _ = text_and_patient_ids(dataset)
        labels = (None if of_row is None else tuple(sorted(of_row)) for of_row in dataset["labels"][:])
        ids: dict[tuple[Any, ...], int] = {}
        facts = [ids.setdefault(fact, len(ids)) for fact in zip(report_ids.tolist(), labels, grades, strict=True)]
        targets["facts"] = torch.tensor(facts)
    return targets


def text_and_patient_ids(dataset: Dataset) -> tuple[Indices, Indices]:
    """Number the reports, ignoring blanks and case, and the patients of a split: two arrays of shape (R,)."""
    distinct, text_of_row = np.unique(dataset["report"][:], return_inverse=True)
    _, id_of_text = np.unique([normalise_report(text).casefold() for text in distinct], return_inverse=True)
    _, patient_ids = np.unique(dataset["patient_id"][:], return_inverse=True)
    return id_of_text[text_of_row], patient_ids


def plan_batches(
    dataset: Dataset,
    training_set: TrainingSet,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> EpochBatches:
    """Plan the batches of a training split.

    Raises:
        ValueError: If the rows do not fill a batch.
    """
    texts, balance = training_set.texts_per_pair, training_set.balance
    classes = classes_to_balance(dataset) if "upsample" in balance else None
    upsampling = None if classes is None else training_set.upsampling(classes)
    ids = None
    if "sampler" in balance:
        text_ids, patient_ids = text_and_patient_ids(dataset)
        ids = np.tile(text_ids, texts), np.tile(patient_ids, texts)
    return EpochBatches(texts * len(dataset), batch_size, seed, process_index, num_processes, upsampling, ids)


def draws_of_pairs(dataset: Dataset, training_set: TrainingSet) -> Tensor | None:
    """Tell how often an epoch draws each pair, with any of its texts, on average, (R,); None: all alike."""
    classes = classes_to_balance(dataset) if "upsample" in training_set.balance else None
    if classes is None:
        return None
    draws = training_set.upsampling(classes).draws.reshape(training_set.texts_per_pair, len(dataset))
    return torch.from_numpy(draws.sum(axis=0)).float()


def classes_to_balance(dataset: Dataset) -> NDArray[np.bool_] | None:
    """Return the classes that upsampling balances (R, K): the paper's pair if each row has one of it, else all labels.

    A row that was not labelled counts for the commonest class, so that it is not repeated. None, with a warning, if no
    row has a label.
    """
    names = class_names(dataset)
    labels = dataset["labels"][:]
    is_labelled = np.array([of_row is not None for of_row in labels], dtype=bool)
    labelled = dataset.select(np.flatnonzero(is_labelled))
    of_labelled = target_classes(labelled, ["labels"]) if len(labelled) else None
    if of_labelled is None:
        logger.warning(
            "balance upsample has no effect: none of the %d training pairs has a label. Build with "
            "--labels_from_reports to read labels from the reports.",
            len(dataset),
        )
        return None
    kept = exclusive_or_all(of_labelled.numpy() > 0, names)
    classes = np.zeros((len(dataset), kept.shape[1]), dtype=bool)
    classes[is_labelled] = kept
    classes[~is_labelled, kept.sum(axis=0).argmax()] = True
    return classes


class PairedRows(TorchDataset):
    """The pairs of a split, in memory, indexed by (epoch, row); these and the seed decide every random choice.

    Row `R * k + row` is `row` with its augmented text k, as in `TrainingSet`. `target_classes` explains the options of
    classes, `parts_of_texts` and `augmented_texts` those of texts. `inputs` names what else the objectives of the run
    read, as `Objective` does: classes, states, grades, facts, counterfactuals, flipped_images, image_views. Where the
    labels are from decides the states, see `finding_states`. A pair whose text has counterfactuals shows one of them in
    this share of its draws.
    """

    def __init__(
        self,
        dataset: Dataset,
        processor: LumbarCLIPProcessor,
        target_columns: Sequence[str],
        seed: int,
        count_absences: bool = False,
        classes_even_if_none: bool = False,
        augment: bool = False,
        text_unit: str = "report",
        text_augmentation: str = "rephrasings",
        texts_per_pair: int = 1,
        show_progress: bool = True,
        inputs: Set[str] = frozenset(),
        labels_from: str | None = None,
        counterfactual_share: float = 1.0,
    ) -> None:
        self.processor, self.seed, self.augment, self.texts_per_pair = processor, seed, augment, texts_per_pair
        self.inputs, self.counterfactual_share = inputs, counterfactual_share
        self.images = decode_images(dataset, processor.image_processor, show_progress)
        self.labels = target_classes(dataset, target_columns, count_absences, classes_even_if_none)
        self.targets = pair_targets(dataset, inputs, labels_from, classes_even_if_none)
        self.finding_names, self.grade_names = class_names(dataset), grade_names(dataset)
        self.sources: list[str] = dataset["source"][:]
        self.reports: list[str] = dataset["report"][:]
        rephrasings = dataset["rephrasings"][:]
        self.num_rephrased = sum(map(bool, rephrasings))  # pairs with a rephrasing
        self.augmented_texts = augmented_texts(
            self.reports, rephrasings, text_augmentation, seed, texts_per_pair, show_progress
        )
        self.num_augmented = sum(  # pairs with another text than their report
            any(text != report for wordings in texts for text in wordings)
            for report, texts in zip(self.reports, self.augmented_texts, strict=True)
        )
        texts = {*self.reports, *(text for of_row in self.augmented_texts for wordings in of_row for text in wordings)}
        self.parts = parts_of_texts(texts, text_unit)
        changed = changed_parts(self.reports, self.parts, show_progress) if "counterfactuals" in inputs else {}
        parts = {part for parts in self.parts.values() for part in parts}
        distinct = sorted(parts.union(*changed.values()))
        token_ids = processor.tokenizer(distinct, truncation=True, max_length=processor.max_length)["input_ids"]
        self.token_ids: dict[str, list[int]] = dict(zip(distinct, token_ids, strict=True))
        # Of each report and part of it. What is changed beyond the last token, or in an unknown word, changes nothing.
        self.counterfactuals = {
            (report, part): [text for text in texts if self.token_ids[text] != self.token_ids[part]]
            for (report, part), texts in changed.items()
        }

    def __len__(self) -> int:
        """Pairs, each counted once."""
        return len(self.reports)

    @property
    def num_counterfactual(self) -> int:
        """Pairs whose text has a counterfactual."""
        has_any = {report for (report, _), texts in self.counterfactuals.items() if texts}
        return sum(report in has_any for report in self.reports)

    def __getitems__(self, rows: list[EpochAndRow]) -> Batch:
        """Make a batch of the rows.

        Returns:
            `pixel_values` (B, 3, S, S); `input_ids`, `attention_mask` (U, T) and `text_index` (B,), the row of
            `input_ids` for each pair; with augmented texts the same with the prefix `augmented_`; with classes
            `labels` (B, K); `rows` (B,). And of the `inputs`: `classes` (B, K), `states` (B, F), `grades` and `facts`
            (B,); `counterfactual_input_ids` and `_attention_mask` (m, T), and `counterfactual_rows` (m,), the place of
            the pair that each is of; `flipped_pixel_values` and `view_pixel_values` (B, 3, S, S).
        """
        pairs = [row % len(self) for _, row in rows]
        index = torch.tensor(pairs)
        images = self.images[index]
        generators = self._generators(rows)
        if self.augment:
            images = vary_images(images.float(), generators)
        pixel_values = normalise(images[:, None], self.processor.image_processor)
        batch = {"pixel_values": pixel_values.contiguous(memory_format=torch.channels_last), "rows": index}
        # In this order, an additional option leaves the earlier draws unchanged.
        if self.num_augmented:
            batch |= self._augmented_texts(rows, generators)
        reports = [self._part(self.reports[pair], random) for pair, random in zip(pairs, generators, strict=True)]
        batch |= self._distinct_texts(reports, "")
        if self.labels is not None:
            batch["labels"] = self.labels[index]
        batch |= {name: of_rows[index] for name, of_rows in self.targets.items()}
        if "counterfactuals" in self.inputs:
            batch |= self._changed_texts(pairs, reports, generators)
        return batch | self._views(images, index, generators)

    def _changed_texts(self, pairs: list[int], texts: list[str], generators: list[np.random.Generator]) -> Batch:
        """Draw a counterfactual of some of the texts; each depends on its own pair alone."""
        chosen = []
        for place, (pair, text, random) in enumerate(zip(pairs, texts, generators, strict=True)):
            changed = self.counterfactuals[self.reports[pair], text]
            is_shown = random.random() < self.counterfactual_share
            if is_shown and changed:
                chosen.append((place, changed[random.integers(len(changed))]))
        token_ids = [self.token_ids[text] for _, text in chosen]
        padded = self.processor.tokenizer.pad({"input_ids": token_ids}, return_tensors="pt") if chosen else {}
        none = torch.zeros((0, 1), dtype=torch.long)
        return {
            **{f"counterfactual_{name}": padded.get(name, none) for name in ("input_ids", "attention_mask")},
            "counterfactual_rows": torch.tensor([place for place, _ in chosen], dtype=torch.long),
        }

    def _views(self, images: Tensor, index: Tensor, generators: list[np.random.Generator]) -> Batch:
        """Flip the images, and augment them a second time."""
        views = {}
        if "flipped_images" in self.inputs:
            views["flipped_pixel_values"] = images.flip(-1)
        if "image_views" in self.inputs:
            views["view_pixel_values"] = vary_images(self.images[index].float(), generators)
        return {
            name: normalise(view[:, None], self.processor.image_processor).contiguous(memory_format=torch.channels_last)
            for name, view in views.items()
        }

    def augmented_batch(self, rows: list[EpochAndRow]) -> Batch:
        """Make the part of a batch that holds the augmented texts; image augmentation draws nothing before them."""
        return self._augmented_texts(rows, self._generators(rows))

    def _generators(self, rows: list[EpochAndRow]) -> list[np.random.Generator]:
        return [np.random.default_rng([self.seed, epoch, row]) for epoch, row in rows]

    def _augmented_texts(self, rows: list[EpochAndRow], generators: list[np.random.Generator]) -> Batch:
        texts = [self._augmented(*row, random) for row, random in zip(rows, generators, strict=True)]
        return self._distinct_texts(texts, "augmented_")

    def _augmented(self, epoch: int, row: int, random: np.random.Generator) -> str:
        place, pair = divmod(row, len(self))
        texts = self.augmented_texts[pair]
        if not texts:
            return self._part(self.reports[pair], random)
        # If a pair has more texts than an epoch shows, the next epoch goes on with the others.
        wordings = texts[(epoch * self.texts_per_pair + place) % len(texts)]
        return self._part(wordings[random.integers(len(wordings))], random)

    def _part(self, text: str, random: np.random.Generator) -> str:
        parts = self.parts[text]
        return parts[random.integers(len(parts))] if len(parts) > 1 else parts[0]

    def _distinct_texts(self, texts: list[str], prefix: str) -> Batch:
        # T1 and T2 of one level share their report: encode it once.
        row_of_text = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        token_ids = [self.token_ids[text] for text in row_of_text]
        padded = self.processor.tokenizer.pad({"input_ids": token_ids}, return_tensors="pt")
        return {
            f"{prefix}input_ids": padded["input_ids"],
            f"{prefix}attention_mask": padded["attention_mask"],
            f"{prefix}text_index": torch.tensor([row_of_text[text] for text in texts]),
        }
