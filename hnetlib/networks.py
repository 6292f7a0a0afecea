"""Networks of many kinds, each with a stream that suits it, and the loop that learns them all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib.data import ImageData
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer
from hnetlib.streams import (
    RelabelledTasks,
    RotatedTasks,
    SplitTasks,
    Stream,
    accuracy_on,
    drawn_classes,
)
from hnetlib.targets import MLP, ConvLeNet, DepthwiseCNN, PatchTransformer, RowReader
from hnetlib.tasks import PermutedTasks, seeded_generator


@dataclass(frozen=True)
class Case:
    """A network, the stream it learns, and which of its parameters are generated."""

    make: Callable[[], nn.Module]
    stream: str  # one of STREAMS
    generate: str | tuple[str, ...] = "*"


def make_streams(data: ImageData, num_tasks: int, permutation_seed: int = 0) -> dict[str, Stream]:
    """Five streams of one data set, by name."""
    sizes = [2 + task % 2 for task in range(num_tasks)]
    return {
        "permuted": PermutedTasks(data, num_tasks, permutation_seed),
        "rotated": RotatedTasks(data, tuple(180 * i / num_tasks for i in range(num_tasks))),
        "relabelled": RelabelledTasks(data, num_tasks, permutation_seed),
        "split": SplitTasks(data, drawn_classes(sizes, data.num_classes, permutation_seed)),
    }


def batch_norm_cnn() -> nn.Module:
    """Two convolutions with batch normalisation, for flat images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


def tied_mlp() -> nn.Module:
    """A dense network whose second and third layer are one tensor under two names."""
    network = MLP((784, 100, 100, 100, 10))
    network.layers[4].weight = network.layers[2].weight
    return network


CASES = {
    "dense": Case(lambda: MLP((784, 100, 10)), "permuted"),
    "tied weights": Case(tied_mlp, "permuted"),
    "convolutional LeNet": Case(ConvLeNet, "rotated"),
    "depthwise CNN": Case(DepthwiseCNN, "rotated"),
    "BatchNorm CNN": Case(batch_norm_cnn, "rotated"),
    "GRU on rows": Case(lambda: RowReader(nn.GRU), "relabelled"),
    "transformer on patches": Case(PatchTransformer, "relabelled"),
    "bidirectional LSTM on rows": Case(
        lambda: RowReader(nn.LSTM, hidden=32, bidirectional=True), "split"
    ),
}


def learn(
    hnet: Hypernetwork,
    stream: Stream,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    beta: float,
    seed: int = 0,
    most: int | None = None,
) -> np.ndarray:
    """Learns a stream's tasks in turn; R: accuracy right after training, and a whole last row.

    Accuracy is of the first `most` evaluation images; the other entries of R are NaN.
    """
    T = stream.num_tasks
    R, keep = np.full((T, T), np.nan), TaskRegularizer(hnet, penalty="all")
    for task in range(T):
        optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        batches = stream.train_batches(task, batch_size, steps, seeded_generator(seed, task))
        with keep.learning(task):
            for x, y in batches:
                logits = hnet.run(x, task=task)[:, : stream.num_classes(task)]
                loss = cross_entropy(logits, y) + beta * keep.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        R[task, task] = accuracy_on(hnet, stream, task, most)
    R[-1] = [accuracy_on(hnet, stream, task, most) for task in range(T)]
    return R
