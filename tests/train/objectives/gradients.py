"""Loss and gradients of each objective; run by torchrun, those of a batch shared between its processes."""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from train.objectives import OBJECTIVES, ModelWithObjective, TrainingTargets, build_objective


def load_trained(name, config, labels):
    """The same weights for the same objective, in float64 and without dropout."""
    torch.manual_seed(0)
    model = LumbarCLIPModel(config)
    targets = TrainingTargets(labels=labels, classes=labels)
    return ModelWithObjective(model, build_objective(name, model, targets)).double().train()


def gradients_of(trained, batch, labels):
    loss, _ = trained({**batch, "labels": labels, "classes": labels})
    loss.backward()
    of_parameters = {name: parameter.grad for name, parameter in trained.named_parameters() if parameter.requires_grad}
    return loss.item(), {name.removeprefix("module."): gradient for name, gradient in of_parameters.items()}


def main(folder):
    dist.init_process_group("gloo")
    inputs = torch.load(folder / "inputs.pt")
    config, labels = LumbarCLIPConfig.from_dict(inputs["config"]), inputs["labels"]
    own = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    batch = {name: value[own] for name, value in inputs["batch"].items()}
    longest = batch["attention_mask"].sum(dim=1).max()
    batch |= {name: batch[name][:, :longest] for name in ("input_ids", "attention_mask")}
    found = {}
    for name in OBJECTIVES:
        found[name] = gradients_of(DistributedDataParallel(load_trained(name, config, labels)), batch, labels[own])
    if dist.get_rank() == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of inputs.pt, and of the results")
    main(parser.parse_args().folder)
