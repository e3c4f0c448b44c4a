"""Some epochs of a tiny segmenter; run by torchrun, each process has half of every batch."""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from train.objectives.overlap import IGNORED
from train.objectives.segmentation import SEGMENTATION_LOSSES, SegmentationLoss

NAMES = ("background", "disc", "canal")
NUM_EPOCHS, STEPS_OF_EPOCH, BATCH_SIZE = 3, 2, 4


class Trained(nn.Module):
    """What is trained, as a task holds it: a model, and the loss with its state."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Conv2d(len(NAMES), len(NAMES), 3, padding=1).double()
        self.loss = loss

    def forward(self, images):
        return self.model(images)


def batches():
    """Images and labels; processes differ in classes and in ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(STEPS_OF_EPOCH):
        labels = torch.randint(0, len(NAMES), (BATCH_SIZE, 6, 7), generator=generator)
        labels[:2][labels[:2] == 2] = 1  # the first process sees no canal
        labels[3, :3] = IGNORED
        noise = torch.randn(BATCH_SIZE, len(NAMES), 6, 7, generator=generator, dtype=torch.float64)
        shown = nn.functional.one_hot(labels.clamp(max=2), len(NAMES)).movedim(-1, 1)
        made.append((0.5 * shown + noise, labels))
    return made


def train_steps(loss, own=slice(None), wrap=lambda trained: trained):
    """Train for some epochs; return losses and what each epoch says, and the weights of the model."""
    trained = Trained(loss).train()
    prepared, history = wrap(trained), []
    optimizer = torch.optim.SGD(trained.model.parameters(), lr=0.5)
    for _ in range(NUM_EPOCHS):
        for images, labels in batches():
            value = trained.loss(prepared(images[own]), labels[own])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            history.append({"loss": value.item()})
        history.append(trained.loss.end_epoch())
    return history, trained.model.weight.detach()


def main(folder):
    dist.init_process_group("gloo")
    size = BATCH_SIZE // dist.get_world_size()
    own = slice(size * dist.get_rank(), size * (dist.get_rank() + 1))
    found = {
        name: train_steps(SegmentationLoss(name, NAMES).double(), own, DistributedDataParallel)
        for name in SEGMENTATION_LOSSES
    }
    torch.save(found, folder / f"process-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the results")
    main(parser.parse_args().folder)
