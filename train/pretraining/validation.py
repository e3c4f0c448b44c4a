"""The loss of a run's own objective on the validation pairs."""

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPOutput
from train.data.loaders import PairedRows
from train.objectives.objective import ModelWithObjective, keep_local


@torch.no_grad()
def validation_loss(trained: ModelWithObjective, rows: PairedRows, batch_size: int, accelerator: Accelerator) -> float:
    """Compute the objective on the reports of the validation pairs, the same on every process.

    All pairs make one batch, so that the figure depends neither on the batch size nor on the processes. An objective
    that compares patches with tokens could not hold all pairs of a large split at once: its loss is the mean over
    batches of as many pairs as a step of the run has, in the order of the split, each weighted by its pairs.

    Args:
        trained: Model and objective; both are left in evaluation mode.
        rows: Validation pairs.
        batch_size: Pairs of a step in each process.
        accelerator: Knows device, precision and processes.

    Returns:
        The loss in nats. Of different objectives it is not comparable.
    """
    trained.eval()
    objective = trained.objective
    pairs_at_once = batch_size * accelerator.num_processes if "local_features" in objective.inputs else batch_size
    labels = None if rows.labels is None else rows.labels.to(accelerator.device)
    outputs, losses = [], []
    for start in range(0, len(rows), pairs_at_once):
        indices = range(start, min(start + pairs_at_once, len(rows)))
        batch = send_to_device(rows.__getitems__([(0, row) for row in indices]), accelerator.device)
        inputs = {name: value for name, value in batch.items() if name not in ("rows", "labels")}
        with accelerator.autocast():
            outputs.append(trained.encode(inputs))
            if "local_features" in objective.inputs:
                of_batch = None if labels is None else labels[indices.start : indices.stop]
                losses.append(len(indices) * objective(outputs.pop(), of_batch, gather=keep_local))
    if "local_features" in objective.inputs:
        return (torch.stack(losses).sum() / len(rows)).item()
    with accelerator.autocast():  # an objective may have a layer of its own, for features in half precision
        return objective(_join(outputs), labels, gather=keep_local).item()


def _join(outputs: list[LumbarCLIPOutput]) -> LumbarCLIPOutput:
    def joined(name: str) -> Tensor:
        return torch.cat([output[name] for output in outputs])

    return LumbarCLIPOutput(
        image_embeds=joined("image_embeds"),
        text_embeds=joined("text_embeds"),
        image_features=joined("image_features"),
        inverse_temperature=outputs[0].inverse_temperature,
    )
