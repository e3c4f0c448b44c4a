"""Settings of `train/publish.py`; imports nothing heavy, so that `--help` answers at once."""

from dataclasses import dataclass

from data_scripts.system.command_line import setting


@dataclass
class PublishArguments:
    """Publish a run on the Hugging Face Hub: its checkpoint, a card written from its files and, on request, an app."""

    run: str = setting("", "Folder of the run: checkpoint, run.json, metrics.json.")
    repo_id: str = setting(
        "", "owner/name of the repository, created if it does not exist. The owner is you or your team."
    )
    public: bool = setting(False, "Let everybody see it; otherwise only its owner does.")
    tag: str = setting("v0.1", "Name of this version, new in the repository.")
    experiment: str = setting("", "Folder of an experiment whose result the card also shows.")
    allow_unmeasured: bool = setting(False, "Publish a model without metrics.json; its card says so at the top.")
    adapter: bool = setting(False, "Publish the adapters of a run with --lora_rank, without the weights they adapt.")
    adapter_base: str = setting(
        "", "Hub id of the checkpoint that these adapters were trained on, if that was a folder on this machine."
    )
    space: bool = setting(False, "Also publish a Space of the same id: the app with this model.")
    index: str = setting("", "Parquet of a dataset from train/encode.py: the app shows its nearest reports.")
    dry_run: bool = setting(False, "Check, and write what would be sent, and card.html, to RUN/hub; send nothing.")

    def __post_init__(self) -> None:
        """Check what can be checked before anything is loaded."""
        if not self.run:
            raise ValueError("run is empty: name the folder of a finished run, such as runs/demo.")
        if not self.repo_id:
            raise ValueError("repo_id is empty: name the repository, such as me/lumbarclip-demo.")
        if self.index and not self.space:
            raise ValueError(f"--index {self.index} is for the app: add --space.")
        if self.adapter_base and not self.adapter:
            raise ValueError(f"--adapter_base {self.adapter_base} is the base of adapters: add --adapter.")
        if self.adapter and self.space:
            raise ValueError("The app loads whole checkpoints: drop --space or --adapter.")
