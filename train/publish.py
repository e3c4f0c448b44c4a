"""Publish a run on the Hugging Face Hub: its checkpoint, a card written from its files, and, if asked for, an app.

    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo --dry_run
    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo
    python train/publish.py --run runs/demo --repo_id me/lumbarclip-demo --tag v0.2 --space --index embeddings.parquet
    python train/publish.py --run runs/lora --repo_id me/lumbarclip-lora --adapter --adapter_base me/lumbarclip-demo

The token is that of `hf auth login` or of HF_TOKEN. Private unless --public. What is sent lies in RUN/hub, which
--dry_run writes, too, and beside it, until the card is sent, the card as a page, card.html. Each repository gets one
commit with all files or none, and the tag last; a publication that was interrupted goes on with the same command.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, ModelCard

from data_scripts.hub.upload import Destination, check_destination, files_below, upload
from data_scripts.system.command_line import run, setting
from data_scripts.system.whole_files import write_text
from train.publishing.publication import HUB, prepare_adapter, prepare_app, prepare_model
from train.reporting.experiment.html import html_page

CARD_PAGE = "card.html"


@dataclass
class PublishArguments:
    """Settings of `train/publish.py`."""

    run: str = setting("", "Folder of the run: checkpoint, run.json, metrics.json.")
    repo_id: str = setting("", "owner/name of the repository, made if it does not exist. The owner: you or your team.")
    public: bool = setting(False, "Let everybody see it. Without: only its owner.")
    tag: str = setting("v0.1", "Name of this version; a repository has each once.")
    experiment: str = setting("", "Folder of an experiment of these systems, whose result the card tells, too.")
    allow_unmeasured: bool = setting(False, "Publish a model without metrics.json; the card says so in front.")
    adapter: bool = setting(False, "Publish the adapters of a run with --lora_rank, without the weights they adapt.")
    adapter_base: str = setting(
        "", "Hub id of the checkpoint that these adapters were trained on, if that was a folder of this machine."
    )
    space: bool = setting(False, "Publish a Space of the same id, too: the app, on this model.")
    index: str = setting("", "Parquet that train/encode.py wrote of a data set: the app shows its nearest reports.")
    dry_run: bool = setting(False, "Check, and write what would be sent, and card.html, to RUN/hub; send nothing.")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        if not self.run:
            raise ValueError("run is empty: name the folder of a finished run, such as runs/demo.")
        if not self.repo_id:
            raise ValueError("repo_id is empty: name the repository, such as me/lumbarclip-demo.")
        if self.index and not self.space:
            raise ValueError(f"--index {self.index} is for the app: give --space, too.")
        if self.adapter_base and not self.adapter:
            raise ValueError(f"--adapter_base {self.adapter_base} is the base of adapters: give --adapter, too.")
        if self.adapter and self.space:
            raise ValueError("The app loads whole checkpoints: publish one with --space, or --adapter without it.")


def main(args: PublishArguments) -> None:
    """Check, write the folders, and send them."""
    run = Path(args.run)
    model = Destination(repo_id=args.repo_id, private=not args.public, tag=args.tag)
    api = HfApi()
    if not args.dry_run:
        check_destination(api, model)  # a wrong token is told before minutes of checks
    prepare = partial(prepare_adapter, api=api, base=args.adapter_base) if args.adapter else prepare_model
    experiment = Path(args.experiment) if args.experiment else None
    (run / HUB / CARD_PAGE).unlink(missing_ok=True)  # of a dry run before, whose card may have been another
    folders = {
        model: prepare(
            run, args.repo_id, public=args.public, experiment=experiment, allow_unmeasured=args.allow_unmeasured
        )
    }
    if args.space:
        app = replace(model, kind="space")
        folders[app] = prepare_app(run, args.repo_id, Path(args.index) if args.index else None, args.tag)
    files = {destination: files_below(folder) for destination, folder in folders.items()}
    for destination, folder in folders.items():
        size = sum(path.stat().st_size for path in files[destination].values())
        print(f"{destination.kind} {destination.repo_id}: {folder}, {size / 1e6:.1f} MB")
    if args.dry_run:
        page = card_page(folders[model], args.repo_id)
        print(f"Dry run: nothing was sent. The card as a page, which is not of the repository: {page}")
        return
    for destination, address in zip(files, upload(api, files), strict=True):
        print(f"Published {destination.kind} {args.tag}: {address}")


def card_page(model: Path, title: str) -> Path:
    """Write the card of a prepared folder as `CARD_PAGE` beside that folder, to be looked at; give its path."""
    page = model.with_name(CARD_PAGE)
    write_text(page, html_page(ModelCard.load(model / "README.md").text, title, model))
    return page


if __name__ == "__main__":
    sys.exit(run(main, interrupted="Rerun to send what has not arrived."))
