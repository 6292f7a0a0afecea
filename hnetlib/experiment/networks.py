"""The networks of chapter 8: of many kinds, each with a stream that suits it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hnetlib.experiment.data import ImageData
from hnetlib.experiment.loop import fit
from hnetlib.experiment.streams import (
    RelabelledTasks,
    RotatedTasks,
    SplitTasks,
    Stream,
    drawn_classes,
)
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork
from hnetlib.targets import MLP, ConvLeNet, DepthwiseCNN, PatchTransformer, RowReader

PRETRAINING_LR = 3e-3


def make_streams(data: ImageData, num_tasks: int, permutation_seed: int = 0) -> dict[str, Stream]:
    """Four streams of one data set, by name; the seed draws what is drawn."""
    sizes = [2 + task % 2 for task in range(num_tasks)]
    return {
        "permuted": PermutedTasks(data, num_tasks, permutation_seed),
        "rotated": RotatedTasks(data, tuple(180 * i / num_tasks for i in range(num_tasks))),
        "relabelled": RelabelledTasks(data, num_tasks, permutation_seed),
        "split": SplitTasks(data, drawn_classes(sizes, data.num_classes, permutation_seed)),
    }


@dataclass(frozen=True)
class Case:
    """A network, the stream that it learns, and which of its parameters are generated."""

    make: Callable[[], nn.Module]
    stream: str  # one of `make_streams`
    generate: str = "*"


def make_cases(pretrained: nn.Module) -> dict[str, Case]:
    """All networks by name; `pretrained` is what `pretrained_lenet` made."""
    both_ways = {"hidden": 32, "bidirectional": True}
    return {
        "dense": Case(lambda: MLP((784, 100, 10)), "permuted"),
        "dense, tied layers": Case(tied_mlp, "permuted"),
        "convolutional LeNet": Case(ConvLeNet, "rotated"),
        "LeNet, frozen convolutions": Case(lambda: pretrained, "rotated", "classifier.*"),
        "depthwise CNN, GroupNorm": Case(DepthwiseCNN, "rotated"),
        "CNN, BatchNorm": Case(batch_norm_cnn, "rotated"),
        "GRU on rows": Case(lambda: RowReader(nn.GRU), "relabelled"),
        "transformer on patches": Case(PatchTransformer, "relabelled"),
        "bidirectional LSTM on rows": Case(lambda: RowReader(nn.LSTM, **both_ways), "split"),
    }


def build(
    case: Case, num_tasks: int, num_chunks: int, hnet_hidden: Sequence[int], seed: int = 0
) -> Hypernetwork:
    """The untrained hypernetwork of a case; its starting values depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {"num_chunks": num_chunks, "hnet_hidden": hnet_hidden}
        return Hypernetwork(case.make(), num_tasks, generate=case.generate, **settings)


def pretrained_lenet(data: ImageData, steps: int, batch_size: int, seed: int = 0) -> ConvLeNet:
    """A LeNet trained on the data as it is, whose convolutions are frozen then."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvLeNet(data.image_size, data.num_classes)
    settings = {"steps": steps, "batch_size": batch_size, "lr": PRETRAINING_LR, "points": 1}
    fit(network, network.parameters(), data, seed=seed, **settings)
    network.features.requires_grad_(False)
    return network


def tied_mlp() -> nn.Module:
    """A dense network whose second and third layer are one tensor under two names."""
    network = MLP((784, 100, 100, 100, 10))
    network.layers[4].weight = network.layers[2].weight
    return network


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
