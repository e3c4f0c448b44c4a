"""Loss and gradients of each objective; run by torchrun, those of a batch shared between its processes."""

import argparse
import math
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import BertTokenizer

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import WORDS
from train.objectives import OBJECTIVES, ModelWithObjective, TrainingTargets, build_objective
from train.objectives.wordings import StepWordings


def targets_of(labels):
    """Targets of any objective; two findings, the second of which half of the pairs do not speak of."""
    states = labels[:, :2].clone()
    states[::2, 1] = -1
    return {"labels": labels, "classes": labels, "states": states, "grades": labels.argmax(dim=1)}


def wordings(shape):
    """Wordings of statements, of one to three words."""
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    texts = [[" ".join(WORDS[5 + (s + w) % 9 :][: 1 + w]) for w in range(3)] for s in range(math.prod(shape))]
    return StepWordings(texts, shape, tokenizer, 8, seed=0)


def load_trained(name, config, labels):
    """The same weights for the same objective, in float64 and without dropout."""
    torch.manual_seed(0)
    model = LumbarCLIPModel(config)
    names = {"findings": ("a", "b"), "grade_names": ("1", "2", "3"), "num_counterfactuals": 3}
    objective = build_objective(name, model, TrainingTargets(**targets_of(labels), **names))
    statements = wordings((2, 2)) if "states" in objective.inputs else None
    grade_prompts = wordings((3,)) if "grade_prompts" in objective.inputs else None
    return ModelWithObjective(model, objective, statements, grade_prompts).double().train()


def gradients_of(trained, batch, labels):
    loss, _ = trained({**batch, **targets_of(labels)})
    loss.backward()
    of_parameters = {name: parameter.grad for name, parameter in trained.named_parameters() if parameter.requires_grad}
    return loss.item(), {name.removeprefix("module."): gradient for name, gradient in of_parameters.items()}


def main(folder):
    dist.init_process_group("gloo")
    inputs = torch.load(folder / "inputs.pt")
    config, labels = LumbarCLIPConfig.from_dict(inputs["config"]), inputs["labels"]
    own = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    batch = {name: value[own] for name, value in inputs["batch"].items() if not name.startswith("counterfactual")}
    rows = inputs["batch"]["counterfactual_rows"] - own.start
    is_own = (rows >= 0) & (rows < 4)  # two counterfactuals here, one there
    batch |= {
        name: inputs["batch"][name][is_own] for name in ("counterfactual_input_ids", "counterfactual_attention_mask")
    }
    batch["counterfactual_rows"] = rows[is_own]
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
