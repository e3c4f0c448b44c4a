"""Fill the rephrasings of a built dataset: checked paraphrases, four for each report.

    python -m data_scripts.paraphrase --dataset data/my_study --out data/my_study_rephrased --model embedded
    python -m data_scripts.paraphrase --dataset data/my_study --out data/my_study_rephrased

The second command asks LLaVA-Med v1.5, as the LumbarCLIP paper does, and needs a GPU with 16 GB, or patience. Every
candidate is parsed, and kept only if its facts equal the report's. After `--max_attempts` the embedded rephraser fills
the gaps. As in the paper, test reports are left alone. Earlier rephrasings of the chosen splits are replaced. Rerun
after an interruption to resume.

The new folder contains the dataset, `paraphrase_audit.json` and `.md` (what was kept, and why the rest was not), and
`paraphrase_log.jsonl` (every candidate with its verdict).
"""

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_scripts.paraphrasing.audit import AUDIT_NAME, audit, audit_text, card_paragraph
from data_scripts.paraphrasing.loop import Rephrased, rephrase_all
from data_scripts.paraphrasing.model import Answerer, Decoding, ImageTextModel, KeptAnswers, settings_of
from data_scripts.records import SPLITS
from data_scripts.system.command_line import check_choices, run, setting
from data_scripts.system.staging import publish, staging_folder
from data_scripts.system.whole_files import read_json, write_json, write_private_json, write_text

if TYPE_CHECKING:  # takes seconds to import, which --help should not
    from datasets import Dataset

EMBEDDED = "embedded"
# The paper names microsoft/llava-med-v1.5-mistral-7b, whose files need LLaVA-Med's own code (model type
# `llava_mistral`); this is a conversion of the same weights to the format of transformers.
LLAVA_MED = "chaoyinshe/llava-med-v1.5-mistral-7b-hf"
REPORT_NAME = "build_report.json"
LOG_NAME = "paraphrase_log.jsonl"


@dataclass(kw_only=True)
class ParaphraseArguments:
    """Fill the rephrasings of a built dataset."""

    dataset: Path = setting(MISSING, "Folder that data_scripts.build made.")
    out: Path = setting(MISSING, "Folder to make. It must not exist, unless --overwrite is given.")
    model: str = setting(
        LLAVA_MED,
        "Hub id or folder of an image-text-to-text model, or `embedded`: templates filled with the parsed findings.",
    )
    num_rephrasings: int = setting(4, "Rephrasings for each report.")
    splits: list[Literal["train", "validation", "test"]] = setting(
        ["train", "validation"], "Splits to rephrase; the default is the paper's."
    )
    max_attempts: int = setting(3, "Attempts with the model before the embedded rephraser fills the gaps.")
    batch_size: int = setting(8, "Reports in one request to the model.")
    temperature: float = setting(0.2, "Temperature of the sampling (paper: 0.2); 0 does not sample.")
    top_p: float = setting(1.0, "Share of the probability to sample from (not stated in the paper).")
    num_beams: int = setting(1, "Beams of the search (paper: 1).")
    max_new_tokens: int = setting(1024, "Length limit of an answer, in tokens (paper: 1024).")
    seed: int = setting(0, "Seed of sampling and templates.")
    overwrite: bool = setting(False, "Replace --out if it contains an earlier build.")

    def __post_init__(self) -> None:
        for name in ("num_rephrasings", "max_attempts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        check_choices(self)
        if not self.splits:
            raise ValueError("--splits names no split; give train, validation or test")

    @property
    def decoding(self) -> Decoding:
        """The decoding settings of the model."""
        return Decoding(**{field.name: getattr(self, field.name) for field in fields(Decoding)})


def main(args: ParaphraseArguments) -> None:
    """Rephrase, and print the audit."""
    import datasets

    from data_scripts.writing.dataset_card import without_paths

    datasets.disable_progress_bars()
    paths = ("dataset", "out", "model") if Path(args.model).is_dir() else ("dataset", "out")
    command = shlex.join(["python", "-m", "data_scripts.paraphrase", *without_paths(sys.argv[1:], paths)])
    result = paraphrase(args, command)
    print(audit_text({**result, "examples": {}}))
    print(f"written to {args.out}")


def paraphrase(args: ParaphraseArguments, command: str, answerer: Answerer | None = None) -> dict[str, Any]:
    """Write a copy of the dataset with rephrasings by `args.model`, or by `answerer`, and return the audit.

    Raises:
        ValueError: If the dataset or the model cannot be read, or `out` is taken. `out` is not written then.
    """
    _check_folders(args)
    rows = _rows_of_reports(args.dataset, args.splits)
    if answerer is None and args.model != EMBEDDED:
        answerer = ImageTextModel(args.model, args.decoding, args.num_rephrasings)
    with staging_folder(args.out) as staging:
        # In the staging folder, where a rerun finds it.
        settings = settings_of(args.model, args.decoding, args.num_rephrasings, args.batch_size)
        kept = KeptAnswers(staging / "answers.jsonl", settings)
        rephrased = rephrase_all(
            list(rows),
            lambda report: rows[report][0][rows[report][1]]["image"],
            answerer,
            kept,
            num_rephrasings=args.num_rephrasings,
            max_attempts=args.max_attempts,
            batch_size=args.batch_size,
            seed=args.seed,
        )
        result = audit(
            rephrased,
            model=Path(args.model).name if Path(args.model).is_dir() else args.model,
            num_rephrasings=args.num_rephrasings,
            splits=args.splits,
            command=command,
        )
        folder = staging / "dataset"
        shutil.rmtree(folder, ignore_errors=True)  # left half-written by a killed run
        _write(args, folder, rephrased, result)
        publish(folder, args.out, staging)
    return result


def _check_folders(args: ParaphraseArguments) -> None:
    if not (args.dataset / REPORT_NAME).is_file():
        raise ValueError(f"--dataset {args.dataset} is not a built dataset (no {REPORT_NAME}); run data_scripts.build")
    if args.out.resolve() == args.dataset.resolve():
        raise ValueError("--out equals --dataset: give another folder, so that the dataset without rephrasings stays")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"--out {args.out} exists; choose another folder, or give --overwrite")
    if args.out.exists() and not (args.out / REPORT_NAME).is_file():
        raise ValueError(f"--out {args.out} is not an earlier build (no {REPORT_NAME}); remove it yourself")


def _rows_of_reports(folder: Path, splits: Sequence[str]) -> "dict[str, tuple[Dataset, int]]":
    """Find the first row of each distinct report, sorted by text. Its image is shown to the model."""
    from data_scripts.auditing.built_folder import read_dataset

    dataset = read_dataset(folder)
    if missing := [split for split in splits if split not in dataset]:
        raise ValueError(f"--splits: {folder} has no {', '.join(missing)}; it has {', '.join(dataset)}")
    rows: dict[str, tuple[Dataset, int]] = {}
    for split in splits:
        if absent := {"report", "rephrasings", "image"} - set(dataset[split].column_names):
            raise ValueError(f"{folder} lacks columns: {', '.join(sorted(absent))}; build it with data_scripts.build")
        for row, report in enumerate(dataset[split]["report"][:]):
            rows.setdefault(report, (dataset[split], row))
    return dict(sorted(rows.items()))


def _write(args: ParaphraseArguments, folder: Path, rephrased: Sequence[Rephrased], result: Mapping[str, Any]) -> None:
    """Copy the dataset with new rephrasings, and add audit and log."""
    shutil.copytree(args.dataset, folder, ignore=shutil.ignore_patterns("*.parquet", REPORT_NAME))
    texts = {entry.report: entry.texts for entry in rephrased}
    for shard in sorted(args.dataset.rglob("*.parquet")):
        split = re.search(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])", shard.name)
        target = folder / shard.relative_to(args.dataset)
        if split and split[1] in args.splits:
            copy_with_rephrasings(shard, target, texts)
        else:
            shutil.copyfile(shard, target)
    report = read_json(args.dataset / REPORT_NAME, "Build the dataset again with data_scripts.build.")
    report["rephrasings"] = {key: value for key, value in result.items() if key != "examples"}
    write_private_json(folder / REPORT_NAME, report)
    write_json(folder / f"{AUDIT_NAME}.json", result)
    write_text(folder / f"{AUDIT_NAME}.md", audit_text(result))
    log = [{"report": entry.report, **asdict(candidate)} for entry in rephrased for candidate in entry.candidates]
    write_text(folder / LOG_NAME, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in log))
    write_text(folder / "README.md", _card((folder / "README.md").read_text(encoding="utf-8"), texts, result))


def _card(before: str, texts: Mapping[str, Sequence[str]], result: Mapping[str, Any]) -> str:
    """Describe in the card how the rephrasings were made, and change its head.

    `load_dataset` caches by the folder's name and the head of its card, not by its files: with the same head, it would
    read a replaced dataset from its cache.
    """
    from huggingface_hub import DatasetCard

    card = DatasetCard(before)
    digest = hashlib.sha256(json.dumps([str(card.data), texts], sort_keys=True).encode()).hexdigest()
    for configuration in getattr(card.data, "configs", None) or []:
        configuration["description"] = f"rephrasings {digest[:16]}"
    prose = card.text.split("\n## Rephrasings\n")[0].rstrip()
    return f"---\n{card.data}\n---\n{prose}\n{card_paragraph(result)}"


def copy_with_rephrasings(shard: Path, target: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Copy a Parquet file and replace the column `rephrasings`, one row group at a time; pixels stay as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(shard)
    schema = source.schema_arrow
    column = schema.get_field_index("rephrasings")
    with pq.ParquetWriter(target, schema) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            values = [list(texts.get(report, ())) for report in table["report"].to_pylist()]
            writer.write_table(table.set_column(column, schema.field(column), pa.array(values, schema.types[column])))


if __name__ == "__main__":
    sys.exit(run(main))
