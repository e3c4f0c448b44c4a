"""What an experiment asks of a kind of system; folds, progress, resume, comparison and reports are the same for all."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from accelerate import Accelerator
from datasets import Dataset

from train.evaluation.predictions import Predictions
from train.evaluation.targets import Targets

if TYPE_CHECKING:
    from train.experiments.data import Fold
    from train.experiments.spec import ExperimentRun


class Kind(ABC):
    """A kind of system, without a state.

    Attributes:
        asks_labels: Whether rows without labels lack something.
    """

    asks_labels: ClassVar[bool]

    def measurable(self, rows: Dataset) -> Dataset:
        """Select the rows that can be measured, in their order."""
        return rows

    @abstractmethod
    def learn(self, run: "ExperimentRun", fold: "Fold", accelerator: Accelerator) -> Any:
        """Train the model of a run from its last state; or build it, if it is not trained."""

    @abstractmethod
    def predict(self, learned: Any, run: "ExperimentRun", fold: "Fold", path: Path) -> dict[str, Any]:
        """Predict the test rows of a fold with what `learn` returned, and write the predictions.

        Returns:
            What the summary of the run says of its model, such as `num_parameters`.
        """

    @abstractmethod
    def read_predictions(self, path: Path) -> tuple[Predictions, Targets | None]:
        """Read the predictions of a run, and the truth of their rows if the file has it.

        Raises:
            ValueError: If the file is damaged; the message names it.
        """

    @abstractmethod
    def quick_name(self, headline: str, exclusive: bool) -> str:
        """Name the metric of `quick_metric`."""

    @abstractmethod
    def quick_metric(self, path: Path, headline: str) -> float | None:
        """Measure the predictions of one run, without an interval; None where they do not define the metric."""

    @abstractmethod
    def baselines_of(
        self, run: "ExperimentRun", fold: "Fold", names: Sequence[str], folder: Path
    ) -> dict[str, Predictions]:
        """Predict a fold's rows with each baseline, or read the predictions of an earlier start for the same rows.

        `run` is any run on the fold, for baselines that depend on the settings which all runs share.
        """

    @abstractmethod
    def describe_settings(self, run: "ExperimentRun") -> dict[str, Any]:
        """Describe the model behind a title: `system`, `vision`, `projection`, `projection_dim` and more."""

    @abstractmethod
    def speed_of(self, run: "ExperimentRun") -> str:
        """Name what decides how long an update takes; equal for runs of one speed."""

    @abstractmethod
    def steps_of_epoch(self, run: "ExperimentRun", fold: "Fold", accelerator: Accelerator) -> int:
        """Count the steps of an epoch."""

    @abstractmethod
    def pairs_per_second(self, run: "ExperimentRun", fold: "Fold", accelerator: Accelerator) -> float:
        """Time a few updates of a run: rows per second of all processes together."""
