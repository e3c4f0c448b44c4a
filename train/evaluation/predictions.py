"""The predictions of one run, and the Parquet file that keeps them: one row per image.

Predictions are arrays with one entry per row, by name. N rows, K labels, Q questions of C choices (see `questions.py`):

    row, fold                              index in the whole dataset; the fold whose models predicted    (N,)
    probe/PROBE/FEATURES                   probability of each label; NaN where it could not be learned    (N, K)
    grade/FEATURES, ordinal_grade/FEATURES grade, by ridge regression and by proportional odds; -1 where the row
                                           has none                                                        (N,)
    decision/paper_threshold/unprojected   1 where the label is predicted, by thresholds of validation rows (N, K)
    patient_attention                      probability for the row's patient, by attention pooling         (N, K)
    zero_shot, zero_shot_first             probability of each label, by all prompts and by the first      (N, K)
    zero_shot_margins, zero_shot_first_margins      of findings: similarity to statements less to denials  (N, K)
    zero_shot/unseen, zero_shot/unseen_margins      the same by all unseen wordings of the banks           (N, K)
    single_wordings/stated, single_wordings/denied  cosine with each of ten unseen wordings, label by label (N, 10 K)
    retrieval/HITS/DIRECTION/rank, num_hits, num_candidates                                                (N,)
    uncalibrated/CLASSIFIER, calibrated/CLASSIFIER  probability of each label, before and after the
                                           temperature fitted on validation rows                           (N, K)
    sets/CLASSIFIER, marginal_sets/CLASSIFIER       whether a prediction set holds a choice, flat          (N, Q C)
    baselines/NAME/probe/..., baselines/NAME/grade/..., baselines/NAME/ordinal_grade/...      from features that no
                                           run has learned
    fine_tuned, linear_probe, majority     of a run that fine-tunes a classifier: probability of each class (N, K)

PROBE is `paper`, `logistic` or `knn`, or the paper's with an imbalance correction, `paper_balanced` and
`paper_logit_adjusted`. FEATURES: `unprojected` is z_I, what downstream tasks use; `projected` is z'_I of the shared
space. CLASSIFIER is `paper/unprojected` or `zero_shot`.

Yes or no is decided by the probability. Metrics of ranks (AUROC, average precision) rank each row within its fold,
since probabilities of differently fitted models do not compare: where a fold has more of a finding, its training
patients have less, so pooled even a constant prediction would rank below chance (AUROC 0.41 instead of 0.5 over the
SPIDER discs).

In the file each array is a column, with lists where a row has several values, next to `source`, `patient_id`, `split`,
`truth` (whether each label is present), `labelled` (whether the row was labelled) and `grade` (-1 for none).
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata

from data_scripts.system.whole_files import write_bytes
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

PREDICTIONS = "predictions.parquet"  # in the folder of a run
TRUTH = ("source", "patient_id", "split", "truth", "labelled", "grade")
FACTS = b"lumbarclip"  # key of the file's metadata: names of labels and grades, and what the writer adds

Predictions: TypeAlias = dict[str, Array]


def write_predictions(
    path: Path,
    predictions: Mapping[str, Array],
    targets: Targets,
    sources: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> None:
    """Write predictions, the truth of their rows and the source file of each row. The file is whole or absent.

    `about` is stored with the file, such as a hash of the rows.
    """
    columns = {
        "source": pa.array(list(sources), pa.string()),
        "patient_id": pa.array(targets.patient_ids.tolist(), pa.string()),
        "split": pa.array([targets.split] * len(targets)),
        "truth": _as_column(targets.labels) if targets.label_names else pa.nulls(len(targets)),
        "labelled": pa.array(targets.is_labelled),
        "grade": _as_column(targets.grades),
        **{name: _as_column(array) for name, array in predictions.items()},
    }
    facts = {
        "label_names": targets.label_names,
        "grade_names": targets.grade_names,
        "exclusive": targets.exclusive,
        "about": dict(about or {}),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({FACTS: json.dumps(facts)}), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def read_predictions(path: Path) -> tuple[Predictions, Targets]:
    """Read the predictions and the truth of their rows that `write_predictions` wrote.

    Raises:
        ValueError: If the file is damaged; the message names it.
        FileNotFoundError: If there is none.
    """
    with naming_damaged(path):
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[FACTS])
        names = tuple(facts["label_names"])
        targets = Targets(
            split=table["split"][0].as_py(),
            label_names=names,
            labels=_as_array(table["truth"]) if names else np.zeros((len(table), 0), dtype=bool),
            exclusive=facts["exclusive"],
            grade_names=tuple(facts["grade_names"]),
            grades=_as_array(table["grade"]),
            patient_ids=np.array(table["patient_id"].to_pylist()),
            labelled=_as_array(table["labelled"]) if "labelled" in table.column_names else None,
        )
        return {name: _as_array(table[name]) for name in table.column_names if name not in TRUTH}, targets


def read_about(path: Path) -> dict[str, str]:
    """Read the `about` of a file, empty if there is no file; raise `ValueError` if it is damaged."""
    if not path.exists():
        return {}
    with naming_damaged(path):
        about: dict[str, str] = json.loads(pq.read_schema(path).metadata[FACTS])["about"]
        return about


@contextmanager
def naming_damaged(path: Path) -> Iterator[None]:
    """Name a damaged file in a `ValueError`, with the way out."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        way_out = "Delete it, and rerun the command that wrote it."
        raise ValueError(f"{path} cannot be read ({reason}): it was cut off or edited. {way_out}") from error


def of_labelled_rows(predictions: Mapping[str, Array], targets: Targets) -> tuple[Predictions, Targets]:
    """Select the rows that were labelled, which metrics of labels are measured on."""
    rows = targets.is_labelled
    if rows.all():
        return dict(predictions), targets
    return {name: array[rows] for name, array in predictions.items()}, targets.select(rows, targets.split)


def of_baselines(predictions: Mapping[str, Array]) -> dict[str, Predictions]:
    """Pick the predictions of the baselines.

    Example:
        >>> of_baselines({"row": np.array([0]), "baselines/hog/grade/unprojected": np.array([2])})
        {'hog': {'grade/unprojected': array([2])}}
    """
    found: dict[str, Predictions] = {}
    for name, array in predictions.items():
        if name.startswith("baselines/"):
            _, baseline, rest = name.split("/", 2)
            found.setdefault(baseline, {})[rest] = array
    return found


def pool(folds: Sequence[Predictions]) -> tuple[Predictions, list[str]]:
    """Join the predictions of all folds, in the order of the dataset.

    Returns:
        One prediction for each row, and the names that were left out because a fold lacks them, such as a grade.

    Raises:
        ValueError: If the folds do not predict every row exactly once.

    Example:
        >>> folds = [{"row": np.array([1]), "x": np.array([5])}, {"row": np.array([0])}]
        >>> pool(folds)
        ({'row': array([0, 1])}, ['x'])
    """
    shared = [name for name in folds[0] if all(name in of_fold for of_fold in folds)]
    joined = {name: np.concatenate([of_fold[name] for of_fold in folds]) for name in shared}
    order = np.argsort(joined["row"], kind="stable")
    if not np.array_equal(joined["row"][order], np.arange(len(order))):
        raise ValueError(
            f"The folds predict {len(order)} rows but not each row once: they come from different cuts of the data. "
            "Start again with --overwrite."
        )
    left_out = sorted({name for of_fold in folds for name in of_fold} - set(shared))
    return {name: array[order] for name, array in joined.items()}, left_out


def ranks_within_folds(scores: Array, fold_of_row: Array) -> Array:
    """Replace scores, shape (N, K), by their rank within the fold, as a share in (0, 1); ties share a rank.

    A column that is NaN in a fold stays NaN there.

    Example:
        >>> ranks_within_folds(np.array([[0.2], [0.9], [0.1], [0.1]]), np.array([0, 0, 1, 1])).tolist()
        [[0.25], [0.75], [0.5], [0.5]]
    """
    ranks = np.empty(scores.shape)
    for fold in np.unique(fold_of_row):
        rows = fold_of_row == fold
        ranks[rows] = (rankdata(scores[rows], axis=0, nan_policy="propagate") - 0.5) / rows.sum()
    return ranks


def _as_column(array: Array) -> pa.Array:
    """One value per row, or a list of fixed length. Shape (N,) or (N, M)."""
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, array.shape[1])


def _as_array(column: pa.ChunkedArray) -> Array:
    values = column.combine_chunks()
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
