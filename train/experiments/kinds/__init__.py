"""The kinds of systems that experiments compare: how one is trained, predicts, and is described."""

from train.experiments.kinds.kind import Kind


def kind_named(name: str) -> Kind:
    """Load a kind: `pretraining` or `segmentation`."""
    if name == "segmentation":
        from train.experiments.kinds.segmentation import Segmentation

        return Segmentation()
    from train.experiments.kinds.pretraining import Pretraining

    return Pretraining()
