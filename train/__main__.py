# PYTHON_ARGCOMPLETE_OK
"""One command line: `lumbarclip NAME ...`, or `python -m train NAME ...`.

    lumbarclip build --source synthetic --out data/synthetic
    lumbarclip pretrain train/configs/demo.yaml
    lumbarclip evaluate --help

Each name is an entry that also runs by its path. For several processes: `accelerate launch train/pretrain.py ...`.
For completion with Tab: `pip install argcomplete`, then `eval "$(register-python-argcomplete lumbarclip)"`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from data_scripts.system.command_line import FAILED, arguments_class_of, build_parser, is_settings_file, run

# Name: module with `main(args)`, and what it does.
COMMANDS = {
    "build": ("data_scripts.build", "Build a dataset from raw studies."),
    "audit": ("data_scripts.audit", "Look for leaks between splits, and for anything that may name a person."),
    "deidentify": ("data_scripts.deidentify", "Copy DICOM files without anything that identifies patients."),
    "paraphrase": ("data_scripts.paraphrase", "Rephrase reports and check the facts."),
    "parse_reports": ("data_scripts.parse_reports", "Read the findings that reports state."),
    "publish_dataset": ("data_scripts.publish_dataset", "Publish a dataset on the Hub."),
    "pretrain": ("train.pretrain", "Pretrain LumbarCLIP on images and reports."),
    "finetune": ("train.finetune_classification", "Fine-tune a classifier from a checkpoint."),
    "segment": ("train.finetune_segmentation", "Train a segmenter on masks."),
    "evaluate": ("train.evaluate_model", "Evaluate a checkpoint on held-out patients."),
    "compare": ("train.compare_systems", "Compare systems in an experiment."),
    "encode": ("train.encode", "Embed many images or reports."),
    "explain": ("train.explain", "Score maps of where a model looks."),
    "verify": ("train.verify", "Verify that a checkpoint is what was saved."),
    "export": ("train.export", "Export a checkpoint to ONNX."),
    "publish": ("train.publish", "Publish a run on the Hub."),
    "app": ("app", "Try a checkpoint in the browser."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    sys.path.append(str(Path(__file__).parents[1]))  # app.py is next to the packages, not in one
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    if not words or words[0] in ("-h", "--help"):
        print(describe())
        return 0
    name = words[0].replace("-", "_")
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        if is_settings_file(words[0]):
            hint = f" Name the command first, such as lumbarclip pretrain {words[0]}."
        print(f"error: {words[0]!r} is not a command.{hint} lumbarclip --help lists all.", file=sys.stderr)
        return FAILED
    sys.argv = [f"lumbarclip {name}", *words[1:]]  # what help and records of a run show
    return run(import_module(COMMANDS[name][0]).main)


def describe() -> str:
    """List the commands, a line each."""
    lines = [f"  {name:<16} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        ["usage: lumbarclip NAME ...", "", *lines, "", "lumbarclip NAME --help explains a command. Research use only."]
    )


def _complete() -> None:
    import argcomplete

    parser = argparse.ArgumentParser("lumbarclip")
    of_commands = parser.add_subparsers()
    typed = os.environ["COMP_LINE"].replace("-", "_").split()
    for name, (module, about) in COMMANDS.items():
        parser_of_command = of_commands.add_parser(name, help=about)
        if name in typed:
            build_parser(arguments_class_of(import_module(module).main), parser_of_command)
    argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
