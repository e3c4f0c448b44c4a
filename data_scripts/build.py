"""Build a dataset folder that `datasets.load_dataset` reads, from one source of paired images and reports.

    python -m data_scripts.build --list
    python -m data_scripts.build --source synthetic --out data/synthetic
    python -m data_scripts.build --source folder --raw my_study --out data/my_study --num_proc 4
    python -m data_scripts.build --source spider --raw raw/spider_discs --out data/spider_discs
    python -m data_scripts.build --source synthetic --out data/synthetic --push_to_hub me/lumbar-synthetic

The folder contains Parquet shards, a dataset card and `build_report.json`. It appears whole or not at all: it is built
in a hidden folder next to it, `.NAME.partial`. Rerun to resume an interrupted build; delete that folder to start over.
Each row of the source is written, or listed in the report with the reason it was left out. Where ids are replaced, rows
go by pseudonyms there, and `OUT.rows.json` next to the folder gives their names: keep it to yourself.

From Python, `load_folder` does the same and loads the result.
"""

import shlex
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data_scripts.system.command_line import INTERRUPTED, run
from data_scripts.system.markdown import printable
from data_scripts.writing.build_arguments import BuildArguments

if TYPE_CHECKING:  # takes seconds to import, too long for --help
    from datasets import DatasetDict

    from data_scripts.hub.upload import Destination


def main(args: BuildArguments) -> int | None:
    """Build, and print what was built."""
    from data_scripts.sources import SOURCES, list_sources

    if args.list:
        print(list_sources())
        return None

    from huggingface_hub import HfApi

    from data_scripts.hub.dataset_publication import check_publishable_build
    from data_scripts.hub.upload import Destination, check_destination
    from data_scripts.writing.build_report import summary_lines
    from data_scripts.writing.dataset_build import build
    from data_scripts.writing.dataset_card import without_paths

    destination = None
    if args.push_to_hub:  # checked now, not after hours
        check_publishable_build(args, SOURCES[args.source].ABOUT)
        public_option = "data_scripts.publish_dataset --public"
        destination = Destination(repo_id=args.push_to_hub, kind="dataset", tag=args.tag, public_option=public_option)
        check_destination(HfApi(), destination, is_new=True)
    report = build(args, command=shlex.join(["python", "-m", "data_scripts.build", *without_paths(sys.argv[1:])]))
    print(printable("\n".join(summary_lines(report, args.out))))
    return _publish(args, destination) if destination else None


def load_folder(
    raw: str | Path, out: str | Path | None = None, source: str = "folder", **settings: Any
) -> "DatasetDict":
    """Load a folder of raw studies as a dataset, de-identified and split as the command builds it.

    Args:
        raw: Folder of the raw studies, in the layout of `source`.
        out: Folder to keep the built dataset in; None: it is only held in memory.
        source: As `--source`.
        settings: Other options of the command, such as `split_fractions=[1, 0, 0]` for fewer than three patients.

    Raises:
        ValueError: If nothing can be built.

    Warns:
        UserWarning: If rows were left out, or may still name a person.
    """
    from datasets import load_dataset

    from data_scripts.writing.build_report import summary_lines
    from data_scripts.writing.dataset_build import build

    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "dataset") if out is None else Path(out)
        args = BuildArguments(source=source, raw=Path(raw), out=folder, **settings)  # type: ignore[arg-type]
        report = build(args, command=f"data_scripts.build.load_folder(..., source={source!r})")
        if report["exclusions"] or not report["deidentification"]["passed"]:
            lines = ["Rows were left out, or may name a person.", *summary_lines(report, out or "memory")]
            warnings.warn("\n".join(lines), stacklevel=2)
        if out is None:
            return load_dataset(str(folder), cache_dir=scratch, keep_in_memory=True)
        return load_dataset(str(folder))


def _publish(args: BuildArguments, destination: "Destination") -> int:
    from huggingface_hub import HfApi

    from data_scripts.hub.dataset_publication import publish_dataset

    words = ["--dataset", str(args.out), "--repo_id", destination.repo_id, "--tag", args.tag]
    again = shlex.join(["python", "-m", "data_scripts.publish_dataset", *words])
    try:
        address = publish_dataset(HfApi(), args.out, destination, args.num_proc)
    except ValueError as error:
        raise ValueError(
            f"{args.out} is built, but was not published: {error} Once that is fixed, run `{again}`."
        ) from error
    except KeyboardInterrupt:
        print(f"Interrupted. {args.out} is built; run `{again}` to resume publishing.", file=sys.stderr)
        return INTERRUPTED
    print(f"Published as {args.tag}: {address}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
