"""The accuracy matrix `R`, the field's metrics of it, and the evaluation that knows the task."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from hnetlib.checks import expect_a
from hnetlib.experiment.plain import PlainNetwork
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork

EVAL_BATCH = 1000
TASKS_AT_ONCE = 10  # evaluated together
Network = Hypernetwork | PlainNetwork


@contextmanager
def in_eval_mode(network: Network) -> Iterator[None]:
    """The network and its module evaluate; then each part is in its own mode again."""
    parts = [*network.modules(), *network.target.modules()]
    modes = [part.training for part in parts]
    network.eval()
    try:
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            part.training = training


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Fraction of `images` [M, D] that `classify`, from images to logits, labels right."""
    return float(_right(classify, images, labels)) / len(labels)


@torch.no_grad()
def evaluate_task_aware(
    network: Network,
    tasks: PermutedTasks,
    num_learned: int,
    first: int = 0,
    at_once: int = TASKS_AT_ONCE,
) -> np.ndarray:
    """Accuracy on each task from `first` to before `num_learned`: [num_learned - first].

    This is the evaluation that cheats: it knows which task an image comes from (the
    task-incremental scenario of arXiv 1904.07734). A hypernetwork takes that task's token, a plain
    network its head, where it has one for each task.
    """
    expect_a(PermutedTasks, tasks=tasks)  # of other streams `stream_learner.accuracy_on`
    correct = []
    with in_eval_mode(network):
        for group in torch.arange(first, num_learned).split(at_once):
            weights = {
                name: value.expand(len(group), *value.shape) if name in network.shared else value
                for name, value in network.weights_of(group).items()
            }  # by name, each [G, *shape]
            correct.append(_count_right(network, weights, tasks, group.tolist()))
    return torch.cat(correct).double().cpu().numpy() / len(tasks.data.eval_labels)


def _count_right(
    network: Network, weights: dict[str, Tensor], tasks: PermutedTasks, group: list[int]
) -> Tensor:
    """How many evaluation images each of these tasks' networks labels right: [G].

    Where the target's first layer multiplies pixels one by one, its columns are put in the images'
    order instead of 10,000 images in the task's, and all tasks share one copy of the images.
    """
    images, labels = tasks.data.eval_images, tasks.data.eval_labels
    classes = tasks.data.num_classes  # a class "none" behind them is no answer
    name = getattr(network.target, "pixel_weight", None)
    if name is None:
        correct = [
            _right(
                partial(network.run_target, {n: w[i] for n, w in weights.items()}), *some, classes
            )
            for i, task in enumerate(group)
            for some in [tasks.eval_set(task)]
        ]
        return torch.stack(correct)
    lit, images = tasks.lit_eval_pixels  # pixels that are 0 in every image add nothing
    orders = torch.stack([tasks.permutation(task).argsort()[lit] for task in group])  # [G, L]
    columns = orders[:, None].expand(-1, weights[name].shape[1], -1)  # [G, out, L]
    weights = weights | {name: weights[name].gather(2, columns)}
    run_all = vmap(network.run_target, in_dims=(0, None))
    return _right(lambda some: run_all(weights, some), images, labels, classes)


def _right(
    classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, classes: int | None = None
) -> Tensor:
    """How many `images` [M, D] `classify` labels right; leading dimensions of logits are kept."""
    return sum(
        are_right(classify(some)[..., :classes], true).sum(-1)
        for some, true in zip(images.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)
    )


def are_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether logits [..., B, classes] are highest at the labels [B]; not where one is no number.

    The highest of those would be the first one.
    """
    return (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)


def average_accuracy(R: np.ndarray) -> float:
    """ACC: mean accuracy over all tasks after the last one, mean_j R[T, j]."""
    return float(_square(R)[-1].mean())


def learning_accuracy(R: np.ndarray) -> float:
    """Mean accuracy on each task right after it was learned, mean_j R[j, j]."""
    return float(_square(R).diagonal().mean())


def backward_transfer(R: np.ndarray) -> float:
    """BWT: mean over all tasks but the last of R[T, j] - R[j, j] (Lopez-Paz & Ranzato, 1706.08840).

    Negative where tasks are forgotten; 0 by definition with a single task.
    """
    return float((_square(R)[-1, :-1] - R.diagonal()[:-1]).mean()) if len(R) > 1 else 0.0


def forgetting(R: np.ndarray) -> float:
    """Mean over all tasks but the last of max_{l<T} R[l, j] - R[T, j] (Chaudhry, 1801.10112).

    A maximum over noisy evaluations, so never quite 0, and over those there are: R may lack some.
    0 by definition with a single task.
    """
    return (
        float((np.nanmax(_square(R)[:-1, :-1], axis=0) - R[-1, :-1]).mean()) if len(R) > 1 else 0.0
    )


def metrics(R: np.ndarray) -> dict[str, float]:
    """All of the above, by the names used in files and logs."""
    return {
        "acc": average_accuracy(R),
        "learning_acc": learning_accuracy(R),
        "bwt": backward_transfer(R),
        "forgetting": forgetting(R),
    }


def _square(R: np.ndarray) -> np.ndarray:
    if R.ndim != 2 or R.shape[0] != R.shape[1] or len(R) == 0:
        raise ValueError(f"R: expected a square matrix, tasks by tasks, got shape {R.shape}")
    return R
