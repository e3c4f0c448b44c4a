"""Fill the rephrasings of a built dataset: checked paraphrases, four for each report.

    python -m data_scripts.paraphrase --dataset data/my_study --out data/my_study_rephrased --model embedded
    python -m data_scripts.paraphrase --dataset data/my_study --out data/my_study_rephrased

The second command asks LLaVA-Med v1.5 as the LumbarCLIP paper does, and needs a GPU with 16 GB or patience. Every
candidate is parsed; it is kept only if its facts equal the report's. What is still missing after `--max_attempts`
comes from the embedded rephraser. As in the paper, test reports are left alone. Earlier rephrasings of the chosen
splits are replaced. A run that was interrupted goes on where it stopped when it is given again.

The new folder holds the dataset, `paraphrase_audit.json` and `.md` (what was kept, what was not and why), and
`paraphrase_log.jsonl`, which names every candidate with its verdict.
"""

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard
from PIL import Image

from data_scripts.paraphrasing.audit import AUDIT_NAME, audit, audit_text, card_paragraph
from data_scripts.paraphrasing.loop import Rephrased, rephrase_all
from data_scripts.paraphrasing.model import Answerer, Decoding, KeptAnswers, settings_of
from data_scripts.records import SPLITS
from data_scripts.system.command_line import parse_arguments
from data_scripts.system.staging import publish, staging_folder
from data_scripts.writing.dataset_card import without_paths

EMBEDDED = "embedded"
# The paper names microsoft/llava-med-v1.5-mistral-7b, whose files need LLaVA-Med's own code (model type
# `llava_mistral`); this is a conversion of the same weights to the format of transformers.
LLAVA_MED = "chaoyinshe/llava-med-v1.5-mistral-7b-hf"
REPORT_NAME = "build_report.json"
LOG_NAME = "paraphrase_log.jsonl"


@dataclass(kw_only=True)
class ParaphraseArguments:
    """What to rephrase, and how."""

    dataset: Path = field(metadata={"help": "Folder that data_scripts.build made."})
    out: Path = field(metadata={"help": "Folder to make. It must not exist, unless --overwrite is given."})
    model: str = field(
        default=LLAVA_MED,
        metadata={
            "help": "Hub id or folder of an image-text-to-text model, or `embedded`: templates filled with the parsed "
            "findings, without a model."
        },
    )
    num_rephrasings: int = field(default=4, metadata={"help": "For each report."})
    splits: list[str] = field(
        default_factory=lambda: ["train", "validation"], metadata={"help": "Splits to rephrase, as in the paper."}
    )
    max_attempts: int = field(default=3, metadata={"help": "Times a model is asked before the embedded rephraser is."})
    batch_size: int = field(default=8, metadata={"help": "Reports that a model is asked at once."})
    temperature: float = field(default=0.2, metadata={"help": "Of the sampling (paper: 0.2); 0: none."})
    top_p: float = field(default=1.0, metadata={"help": "Share of the probability to sample from (paper: not named)."})
    num_beams: int = field(default=1, metadata={"help": "Beams of the search (paper: 1)."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Longest answer, in tokens (paper: 1024)."})
    seed: int = field(default=0, metadata={"help": "Of sampling and templates."})
    overwrite: bool = field(default=False, metadata={"help": "Replace --out if it holds an earlier build."})

    def __post_init__(self) -> None:
        if self.num_rephrasings < 1 or self.max_attempts < 1 or self.batch_size < 1:
            raise ValueError(
                f"--num_rephrasings {self.num_rephrasings}, --max_attempts {self.max_attempts} and --batch_size "
                f"{self.batch_size} must be 1 or more"
            )
        if not self.splits or (unknown := sorted(set(self.splits) - set(SPLITS))):
            raise ValueError(f"--splits {self.splits}: choose of {SPLITS}; unknown: {unknown}")


def paraphrase(args: ParaphraseArguments, command: str, answerer: Answerer | None = None) -> dict[str, Any]:
    """Write the dataset anew, with rephrasings.

    Args:
        args: What to do.
        command: The command line, for the card.
        answerer: Answers instead of `args.model`.

    Returns:
        The audit, as written.

    Raises:
        ValueError: If the dataset or the model cannot be read, or `out` is taken; nothing is left at `out` then.
    """
    _check_folders(args)
    rows = _rows_of_reports(args.dataset, args.splits)
    if answerer is None and args.model != EMBEDDED:
        answerer = _load_model(args)
    with staging_folder(args.out) as staging:
        # Kept in the staging folder, where the next run finds it.
        kept = KeptAnswers(staging / "answers.jsonl", _settings(args))
        rephrased = rephrase_all(
            list(rows),
            lambda report: _image(rows[report]),
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
        shutil.rmtree(folder, ignore_errors=True)  # half-written by a run that was killed
        _write(args, folder, rephrased, result)
        publish(folder, args.out, staging)
    return result


def _check_folders(args: ParaphraseArguments) -> None:
    if not (args.dataset / REPORT_NAME).is_file():
        raise ValueError(f"--dataset {args.dataset} is no built dataset (it has no {REPORT_NAME})")
    if args.out.resolve() == args.dataset.resolve():
        raise ValueError("--out is --dataset: give another folder, so that the dataset without rephrasings stays")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"--out {args.out} exists; choose another folder, or give --overwrite")
    if args.out.exists() and not (args.out / REPORT_NAME).is_file():
        raise ValueError(f"--out {args.out} is no earlier build (it has no {REPORT_NAME}); remove it yourself")


def _rows_of_reports(folder: Path, splits: Sequence[str]) -> dict[str, tuple[datasets.Dataset, int]]:
    """Each distinct report with the first row that has it, whose image the model is shown; sorted by text."""
    dataset = datasets.load_dataset(str(folder))
    if missing := [split for split in splits if split not in dataset]:
        raise ValueError(f"--splits: {folder} has no {', '.join(missing)}; it has {', '.join(dataset)}")
    rows: dict[str, tuple[datasets.Dataset, int]] = {}
    for split in splits:
        if absent := {"report", "rephrasings", "image"} - set(dataset[split].column_names):
            raise ValueError(
                f"{folder} lacks the columns {', '.join(sorted(absent))}; build it with data_scripts.build"
            )
        for row, report in enumerate(dataset[split]["report"][:]):
            rows.setdefault(report, (dataset[split], row))
    return dict(sorted(rows.items()))


def _image(row: tuple[datasets.Dataset, int]) -> Image.Image:
    split, index = row
    return split[index]["image"]


def _load_model(args: ParaphraseArguments) -> Answerer:
    from data_scripts.paraphrasing.model import ImageTextModel  # torch: the embedded rephraser does without

    return ImageTextModel(args.model, _decoding(args), args.num_rephrasings)


def _decoding(args: ParaphraseArguments) -> Decoding:
    return Decoding(
        temperature=args.temperature,
        top_p=args.top_p,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
    )


def _settings(args: ParaphraseArguments) -> dict[str, object]:
    return settings_of(args.model, _decoding(args), args.num_rephrasings, args.batch_size)


def _write(args: ParaphraseArguments, folder: Path, rephrased: Sequence[Rephrased], result: Mapping[str, Any]) -> None:
    """The folder of the new dataset: all of the old one, with other rephrasings, and the audit."""
    shutil.copytree(args.dataset, folder, ignore=shutil.ignore_patterns("*.parquet"))
    texts = {entry.report: entry.texts for entry in rephrased}
    for shard in sorted(args.dataset.rglob("*.parquet")):
        split = re.search(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])", shard.name)
        target = folder / shard.relative_to(args.dataset)
        if split and split[1] in args.splits:
            copy_with_rephrasings(shard, target, texts)
        else:
            shutil.copyfile(shard, target)
    report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    report["rephrasings"] = {key: value for key, value in result.items() if key != "examples"}
    _write_json(folder / REPORT_NAME, report)
    _write_json(folder / f"{AUDIT_NAME}.json", result)
    (folder / f"{AUDIT_NAME}.md").write_text(audit_text(result), encoding="utf-8")
    with (folder / LOG_NAME).open("w", encoding="utf-8") as log:
        for entry in rephrased:
            for candidate in entry.candidates:
                line = {"report": entry.report, **asdict(candidate)}
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
    _write_card(folder / "README.md", texts, result)


def _write_card(path: Path, texts: Mapping[str, Sequence[str]], result: Mapping[str, Any]) -> None:
    """Say in the card how the rephrasings were made, and make its configuration tell one set of them from another.

    `load_dataset` looks a folder up in its cache by the folder's name and the head of its card, not by its files:
    without another head, a dataset that was replaced would be read as it was before.
    """
    card = DatasetCard(path.read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps([str(card.data), texts], sort_keys=True).encode()).hexdigest()
    for configuration in getattr(card.data, "configs", None) or []:
        configuration["description"] = f"rephrasings {digest[:16]}"
    before = card.text.split("\n## Rephrasings\n")[0].rstrip()
    path.write_text(f"---\n{card.data}\n---\n{before}\n{card_paragraph(result)}", encoding="utf-8")


def copy_with_rephrasings(shard: Path, target: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Copy a Parquet file with another column `rephrasings`; pixels pass as they are, a row group at a time."""
    source = pq.ParquetFile(shard)
    schema = source.schema_arrow
    column = schema.get_field_index("rephrasings")
    with pq.ParquetWriter(target, schema) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            values = [list(texts.get(report, ())) for report in table["report"].to_pylist()]
            writer.write_table(table.set_column(column, schema.field(column), pa.array(values, schema.types[column])))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, rephrase, and say what came of it."""
    argv = sys.argv[1:] if argv is None else argv
    datasets.disable_progress_bars()
    try:
        args = parse_arguments(ParaphraseArguments, argv)
        paths = ("dataset", "out", "model") if Path(args.model).is_dir() else ("dataset", "out")
        command = shlex.join(["python", "-m", "data_scripts.paraphrase", *without_paths(argv, paths)])
        result = paraphrase(args, command)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(audit_text({**result, "examples": {}}))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
