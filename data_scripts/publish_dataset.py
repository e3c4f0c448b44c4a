"""Publish a built dataset on the Hugging Face Hub, unless it may name a person, leaks, or must not be shared.

    python -m data_scripts.build --source synthetic --out data/synthetic --push_to_hub me/lumbar-synthetic
    python -m data_scripts.publish_dataset --dataset data/synthetic --repo_id me/lumbar-synthetic --dry_run
    python -m data_scripts.publish_dataset --dataset data/synthetic --repo_id me/lumbar-synthetic --public

Sends shards and card in one commit, but not `build_report.json`, which names rows as the source does. The repository
is private unless you give --public. The token comes from `hf auth login` or HF_TOKEN.
"""

import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

from data_scripts.system.command_line import run, setting


@dataclass(kw_only=True)
class PublishDatasetArguments:
    """Publish a built dataset on the Hub."""

    dataset: Path = setting(MISSING, "Folder that data_scripts.build wrote.")
    repo_id: str = setting(MISSING, "owner/name of the repository, created if missing.")
    public: bool = setting(False, "Let everybody see it; by default only its owner can.")
    tag: str = setting("v0.1", "Name of this version, unique in the repository.")
    num_proc: int = setting(1, "Processes that decode images for the checks.")
    dry_run: bool = setting(False, "Check, and list what would be sent, without contacting the Hub.")

    def __post_init__(self) -> None:
        if self.num_proc < 1:
            raise ValueError(f"--num_proc must be at least 1, got {self.num_proc}")


def main(args: PublishDatasetArguments) -> None:
    """Check and publish."""
    from huggingface_hub import HfApi

    from data_scripts.hub.dataset_publication import check_publishable, files_to_send, publish_dataset
    from data_scripts.hub.upload import Destination

    destination = Destination(repo_id=args.repo_id, kind="dataset", private=not args.public, tag=args.tag)
    if args.dry_run:
        check_publishable(args.dataset, args.num_proc)
        print(f"Dry run: nothing was sent to {args.repo_id}. It would get:", *files_to_send(args.dataset), sep="\n")
        return
    address = publish_dataset(HfApi(), args.dataset, destination, args.num_proc)
    print(f"Published as {args.tag}: {address}")


if __name__ == "__main__":
    sys.exit(run(main))
