"""Training objectives: a pure loss function, and an `Objective` that feeds it."""

from torch import Tensor

from modeling_lumbarclip import LumbarCLIPModel
from train.objectives.clip import CLIPObjective
from train.objectives.convirt import ConVIRTObjective
from train.objectives.gloria import GLoRIAObjective
from train.objectives.lumbarclip import LumbarCLIPObjective
from train.objectives.medclip import MedCLIPObjective
from train.objectives.objective import ModelWithObjective, Objective
from train.objectives.siglip import SigLIPObjective
from train.objectives.supervised import SupervisedObjective

OBJECTIVES: dict[str, type[Objective]] = {
    "lumbarclip": LumbarCLIPObjective,
    "clip": CLIPObjective,
    "siglip": SigLIPObjective,
    "convirt": ConVIRTObjective,
    "gloria": GLoRIAObjective,
    "medclip": MedCLIPObjective,
    "supervised": SupervisedObjective,
}


def build_objective(
    name: str,
    model: LumbarCLIPModel,
    train_labels: Tensor | None = None,
    *,
    alpha: float = 0.5,
    label_temperature: float | None = None,
) -> Objective:
    """Make the objective of a run, on the CPU; see `Objective`.

    Raises:
        ValueError: If there is no such objective, or it needs classes and there are none.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {name!r}.")
    return OBJECTIVES[name](model, train_labels, alpha=alpha, label_temperature=label_temperature)


__all__ = ["OBJECTIVES", "ModelWithObjective", "Objective", "build_objective"]
