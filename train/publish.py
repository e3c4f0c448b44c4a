"""Publish a run on the Hugging Face Hub: its checkpoint, a card written from its files and, on request, an app.

    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo --dry_run
    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo
    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo --tag v0.2 --space --index embeddings.parquet
    python train/publish.py --run runs/lora --repo_id me/lumbarclip-lora --adapter --adapter_base me/lumbarclip-demo

Needs a token: `hf auth login` or HF_TOKEN. Repositories are private unless --public. RUN/hub contains exactly what is
sent; a --dry_run writes it, too, with the card as a page, card.html, next to it. Each repository gets all files in one
commit, or none, and then the tag. Rerun the command to resume an interrupted upload.
"""

import sys
from pathlib import Path

from data_scripts.system.command_line import run
from data_scripts.system.staging import only_process
from train.publishing.arguments import PublishArguments

WHEN_INTERRUPTED = "Rerun to send the rest."  # what Ctrl-C says


def main(args: PublishArguments) -> None:
    """Check the run, write the folders, and send them."""
    from train.publishing.publication import HUB, publish

    with only_process(Path(args.run) / HUB):
        publish(args)


if __name__ == "__main__":
    sys.exit(run(main))
