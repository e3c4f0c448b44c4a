"""The paper's probe: one linear layer on frozen features, trained by AdamW.

50 epochs at a learning rate of 1e-4 on only the training split; the validation split chooses nothing, and is predicted
so that a decision threshold or a temperature can be chosen on it. Features are not standardised. An epoch passes over
the rows that pretraining did: in the paper each image five times, once for each of its texts, and those of the rare
class more often. The features of an image do not depend on its text, so they are repeated, not computed again.

Source:
    LumbarCLIP, section 4.2. The paper states the linear layer, the epochs, the learning rate, and that the set is
    augmented for its own models only. The batch of 128, AdamW and its weight decay of 1e-4 are those of its
    pretraining, and the rate stays constant. It has two exclusive classes; findings that do not exclude each other get
    one sigmoid output each, all learned in one pass.

Relations:
    `linear_probe` finds the optimum of a standardised logistic regression, whatever the scale of the features. This
    probe takes steps of 1e-4 and stops short of it where features are small or rows few: without the augmented set it
    takes a fifth of the paper's steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor, nn

from train.data.batch_sampler import EACH_PAIR_ONCE, Indices, TrainingSet, exclusive_or_all
from train.evaluation.protocols.probe_inputs import check_features, unlearnable_findings
from train.evaluation.protocols.probe_losses import PROBE_LOSSES, Loss, ProbeLoss
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-4
EPOCHS = 50
BATCH_SIZE = 128


@dataclass(frozen=True)
class PaperProbe:
    """The predictions of the paper's probe."""

    # of `validation` and `test`, (N, K); -inf for a class without a training row, NaN for an unlearned finding
    logits: dict[str, Floats]
    exclusive: bool

    @property
    def probabilities(self) -> dict[str, Floats]:
        """Of each label, by split: softmax of exclusive classes, sigmoid of findings. Shape (N, K)."""
        return {
            split: softmax(logits, axis=1) if self.exclusive else expit(logits) for split, logits in self.logits.items()
        }


def paper_probe(
    features: Mapping[str, Array],
    targets: Mapping[str, Targets],
    loss: ProbeLoss = PROBE_LOSSES["paper"],
    training_set: TrainingSet = EACH_PAIR_ONCE,
    *,
    seed: int,
) -> PaperProbe:
    """Fit the paper's probe on the training split and predict the other two.

    Args:
        features: Splits `train`, `validation` and `test`, shape (N, D); projected or not.
        targets: By split, row by row with the features.
        loss: The paper's, or an imbalance correction of `PROBE_LOSSES`.
        training_set: How often an epoch repeats which rows.
        seed: Seed of the initial weights and the order of rows, the same for all losses.

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    check_features(features, targets)
    train_labels, exclusive = targets["train"].labels, targets["test"].exclusive
    label_names = targets["train"].label_names
    unlearnable = {} if exclusive else unlearnable_findings(train_labels, label_names)
    learned = [k for k in range(len(label_names)) if train_labels[:, k].any() and k not in unlearnable]
    logits_of = {
        split: np.full((len(targets[split]), len(label_names)), -np.inf if exclusive else np.nan)
        for split in ("validation", "test")
    }
    if learned:
        layer = fit_linear_layer(
            torch.as_tensor(features["train"], dtype=torch.float32),
            torch.as_tensor(train_labels[:, learned], dtype=torch.float32),
            loss.of_classes if exclusive else loss.of_findings,
            seed,
            training_set.rows(exclusive_or_all(train_labels, label_names), seed),
        )
        weight, bias = (parameter.detach().double().numpy() for parameter in (layer.weight, layer.bias))
        for split, logits in logits_of.items():
            logits[:, learned] = features[split] @ weight.T + bias
    return PaperProbe(logits_of, exclusive)


def fit_linear_layer(features: Tensor, labels: Tensor, loss: Loss, seed: int, rows: Indices | None = None) -> nn.Linear:
    """Train one linear layer, all labels at once. The global random state is unchanged.

    Args:
        features: Shape (N, D).
        labels: 0.0 or 1.0, and each in at least one row. Shape (N, K).
        loss: A loss of `PROBE_LOSSES`.
        seed: Seed of the initial weights and the order of rows.
        rows: The rows of an epoch, with repetitions. Shape (M,); None: each once.
    """
    of_epoch = torch.arange(len(labels)) if rows is None else torch.from_numpy(rows)
    counts, num_rows = labels[of_epoch].sum(0), len(of_epoch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(features.shape[1], labels.shape[1])
        optimizer = torch.optim.AdamW(layer.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(EPOCHS):
            for batch in of_epoch[torch.randperm(num_rows)].split(BATCH_SIZE):
                optimizer.zero_grad()
                loss(layer(features[batch]), labels[batch], counts, num_rows).backward()
                optimizer.step()
    return layer
