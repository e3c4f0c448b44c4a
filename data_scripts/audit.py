"""Audit a built dataset for leaks between splits, uneven classes, and anything that may name a person.

    python -m data_scripts.audit --dataset data/spider_discs
    python -m data_scripts.audit --dataset data/my_study --out audit.json --num_proc 2

A patient, a study, an image or a near-identical image in two splits is a leak: a model that remembers it gets inflated
test scores. A report text in two splits is only counted, since the reports of many patients read "no disc herniation".

Exit code 0: clean; 1: leaks, or the data may name a person; 2: the audit failed, for example on an unreadable dataset.
`--out` writes JSON and, next to it, the same as Markdown.
"""

import shlex
import sys
import traceback
from dataclasses import MISSING, dataclass
from pathlib import Path

from data_scripts.system.command_line import FAILED, USER_ERRORS, run, setting
from data_scripts.system.whole_files import write_json, write_text


@dataclass(kw_only=True)
class AuditArguments:
    """Look for leaks between splits, and for anything that may name a person."""

    dataset: Path = setting(MISSING, "Folder that data_scripts.build wrote.")
    out: Path | None = setting(None, "JSON file to write; Markdown is written next to it.")
    num_proc: int = setting(1, "Processes that decode images.")

    def __post_init__(self) -> None:
        if self.num_proc < 1:
            raise ValueError(f"--num_proc must be at least 1, got {self.num_proc}")
        if self.out is not None and self.out.suffix != ".json":
            raise ValueError(f"--out must name a .json file, got {self.out}")


def main(args: AuditArguments) -> int:
    """Audit, print the report, and write it."""
    from data_scripts.auditing.audit_report import audit, audit_markdown
    from data_scripts.auditing.built_folder import opened_afresh

    try:
        with opened_afresh(args.dataset) as dataset:
            result = audit(dataset, args.num_proc)
    except USER_ERRORS:
        raise
    except Exception:  # Python would exit with 1, which means leaks
        traceback.print_exc()
        return FAILED
    result["dataset"] = args.dataset.name
    result["command"] = shlex.join(["python", "-m", "data_scripts.audit", *sys.argv[1:]])
    report = audit_markdown(result)
    print(report)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, result)
        write_text(args.out.with_suffix(".md"), report)
    return 0 if result["clean"] and result["privacy"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(run(main))
