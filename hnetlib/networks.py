"""The networks of chapter 8: of many kinds, each with a stream that suits it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hnetlib.data import ImageData
from hnetlib.streams import RelabelledTasks, RotatedTasks, SplitTasks, Stream, drawn_classes
from hnetlib.targets import MLP, ConvLeNet, DepthwiseCNN, PatchTransformer, RowReader
from hnetlib.tasks import PermutedTasks


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


@dataclass(frozen=True)
class Case:
    """A network, the stream it learns, and which of its parameters are generated."""

    make: Callable[[], nn.Module]
    stream: str  # one of `make_streams`
    generate: str = "*"


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
