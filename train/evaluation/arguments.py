"""Settings of an evaluation. Imports nothing heavy: `--help` reads it."""

from dataclasses import dataclass
from typing import Literal

from data_scripts.system.command_line import MISSING, check_choices, setting


@dataclass
class EvaluateArguments:
    """Evaluate a LumbarCLIP checkpoint on the held-out patients of a dataset."""

    checkpoint: str = setting(MISSING, "Folder of a checkpoint, or a Hub id.")
    dataset: str = setting(MISSING, "Folder that data_scripts.build wrote, or a Hub id of such a dataset.")
    labels: Literal["findings", "paper"] | None = setting(
        None,
        "Classes to measure: those of the dataset (findings); or as in the paper, LBP for any finding, or No Finding. "
        "none: as the run trained, if the checkpoint is in its folder, else findings.",
    )
    split: str = setting("test", "Split to measure on. The probes are fitted on `train` and `validation`.")
    out: str = setting("", "Where to write; empty: the folder of the checkpoint.")
    batch_size: int = setting(64, "Images or texts per forward pass. Changes no metric.")
    baselines: bool = setting(
        True, "Probe the baselines too: untrained encoder, pixel PCA, HOG, texture, ImageNet tower, no pixels."
    )
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")
    seed: int = setting(0, "Seed of the resamples, the untrained baseline and the figures.")

    def __post_init__(self) -> None:
        """Check the values before anything is loaded."""
        check_choices(self)
        if self.split in ("train", "validation"):
            raise ValueError(f"--split {self.split}: the probes are fitted on it; name another one, such as test.")
        for name in ("batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
