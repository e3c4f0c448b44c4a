"""Training objectives: a pure loss function, and an `Objective` that feeds it."""

from collections.abc import Mapping

from modeling_lumbarclip import LumbarCLIPModel
from train.objectives.clip import CLIPObjective
from train.objectives.convirt import ConVIRTObjective
from train.objectives.counterfactual import CounterfactualObjective
from train.objectives.gloria import GLoRIAObjective
from train.objectives.instance import InstanceObjective
from train.objectives.koa import (
    ConsistencyObjective,
    GradePromptsObjective,
    ImageGradesObjective,
    SymmetryObjective,
)
from train.objectives.lumbarclip import LumbarCLIPObjective
from train.objectives.medclip import MedCLIPObjective
from train.objectives.objective import (
    DEFAULT_SETTINGS,
    NO_TARGETS,
    CombinedObjective,
    ModelWithObjective,
    Objective,
    ObjectiveSettings,
    Pairs,
    TrainingTargets,
)
from train.objectives.polarity import PolarityObjective
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
    "image_grades": ImageGradesObjective,
    "grade_prompts": GradePromptsObjective,
    "symmetry": SymmetryObjective,
    "consistency": ConsistencyObjective,
    "polarity": PolarityObjective,
    "instance": InstanceObjective,
    "counterfactual": CounterfactualObjective,
}


def inputs_of(objectives: Mapping[str, float]) -> frozenset[str]:
    """Return what some objectives read together; see `Objective.inputs`."""
    return frozenset().union(*(OBJECTIVES[name].inputs for name in objectives))


def build_objective(
    objectives: Mapping[str, float] | str,
    model: LumbarCLIPModel,
    targets: TrainingTargets = NO_TARGETS,
    settings: ObjectiveSettings = DEFAULT_SETTINGS,
) -> CombinedObjective:
    """Make the objective of a run, on the CPU: the weighted sum of one or several.

    Args:
        objectives: Weight of each, by name; or the name of the only one.
        model: The model to train; what no objective trains is frozen.
        targets: What the training split teaches.
        settings: Settings of the run.

    Raises:
        ValueError: If the training split lacks what one of them learns from.
    """
    weights = {objectives: 1.0} if isinstance(objectives, str) else dict(objectives)
    terms = {name: OBJECTIVES[name](model, targets, settings) for name in weights}
    return CombinedObjective(terms, weights, model)


__all__ = [
    "OBJECTIVES",
    "CombinedObjective",
    "ModelWithObjective",
    "Objective",
    "ObjectiveSettings",
    "Pairs",
    "TrainingTargets",
    "build_objective",
    "inputs_of",
]
