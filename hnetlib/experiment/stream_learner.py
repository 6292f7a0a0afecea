"""A hypernetwork of a module learns a stream of tasks, with the penalty and Adam alone.

Two tasks of one's own data, the second with three classes; the module has outputs for the most:

>>> import torch
>>> from torch import nn
>>> from torch.utils.data import DataLoader, TensorDataset
>>> from hnetlib import Hypernetwork
>>> from hnetlib.experiment.evaluation import metrics
>>> from hnetlib.experiment.streams import LoaderTasks
>>> _ = torch.manual_seed(0)
>>> def sectors(num_classes):  # points in the plane, and in which of equal sectors each one is
...     x = torch.randn(500, 2)
...     angle = torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi) + 0.5
...     return TensorDataset(x, (num_classes * angle).long().clamp(max=num_classes - 1))
>>> loaders = [(DataLoader(sectors(n), 50), DataLoader(sectors(n), 500)) for n in (2, 3)]
>>> stream = LoaderTasks(loaders, num_classes=[2, 3])
>>> hnet = Hypernetwork(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)), 2)
>>> R = learn(hnet, stream, steps=150, batch_size=50, lr=1e-2, beta=0.1)  # [2, 2], see `metrics`
>>> bool(R[-1].min() > 0.9)  # of each task, after both
True
>>> sorted(metrics(R))
['acc', 'bwt', 'forgetting', 'learning_acc']
"""

import math
from collections.abc import Iterable
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hnetlib.checks import expect_a, expect_at_least
from hnetlib.experiment.evaluation import accuracy, in_eval_mode
from hnetlib.experiment.loop import DivergedError
from hnetlib.experiment.streams import Batch, Stream
from hnetlib.experiment.tasks import seeded_generator
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer


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
    """Learns the tasks in turn, `steps` each; returns R [T, T], NaN where nothing is measured.

    Measured is what ACC, learning accuracy and BWT need, the diagonal and the last row, on the
    first `most` evaluation inputs of each task. ValueError for what can't be learned so, before
    anything is; DivergedError where a loss is no finite number.
    """
    expect_a(Hypernetwork, hnet=hnet)
    expect_a(Stream, stream=stream)
    expect_at_least(1, steps=steps, batch_size=batch_size, most=1 if most is None else most)
    expect_at_least(1, num_tasks=stream.num_tasks)
    expect_at_least(0, seed=seed)
    expect_a(Real, lr=lr, beta=beta)
    if hnet.num_tasks < stream.num_tasks:
        expected = f"one with a token for each of the stream's {stream.num_tasks} tasks"
        raise ValueError(f"hnet: expected {expected}, got {hnet.num_tasks}")
    if not (lr > 0 and beta >= 0 and math.isfinite(lr) and math.isfinite(beta)):
        raise ValueError(f"expected lr above 0 and beta of at least 0, got {lr} and {beta}")
    for task in range(stream.num_tasks):  # draws nothing yet
        stream.train_batches(task, batch_size, steps, seeded_generator(seed, task))
        _check_task(hnet, stream, task)
    keep = TaskRegularizer(hnet, penalty="all")
    R = np.full((stream.num_tasks, stream.num_tasks), np.nan)
    for task in range(stream.num_tasks):
        batches = stream.train_batches(task, batch_size, steps, seeded_generator(seed, task))
        learn_task(hnet, keep, task, batches, stream.num_classes(task), steps, lr, beta)
        R[task, task] = accuracy_on(hnet, stream, task, most)
    R[-1] = [accuracy_on(hnet, stream, task, most) for task in range(stream.num_tasks)]
    return R


@torch.no_grad()
def _check_task(hnet: Hypernetwork, stream: Stream, task: int) -> None:
    """ValueError where a task can't be evaluated, or the module has no output for a class."""
    classes, (inputs, labels) = stream.num_classes(task), stream.eval_set(task)
    if not len(labels):
        raise ValueError(f"task {task}: expected inputs to evaluate with, got none")
    weights = {name: value.clone() for name, value in hnet(task).items()}  # buffers stay
    try:
        with in_eval_mode(hnet):
            outputs = hnet.run_target(weights, inputs[:2])
    except RuntimeError as error:
        got = f"{list(inputs[:2].shape)} of {inputs.dtype}"
        raise ValueError(f"task {task}: the module can't compute inputs {got}: {error}") from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < classes:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"hnet: expected a module with logits [{len(inputs[:2])}, at least {classes}] for task "
            f"{task}, got {got}"
        )


def learn_task(
    hnet: Hypernetwork,
    keep: TaskRegularizer,
    task: int,
    batches: Iterable[Batch],
    num_classes: int,
    steps: int,
    lr: float,
    beta: float,
) -> None:
    """One task, by Adam with a rate that falls to 0 along half a cosine."""
    optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with keep.learning(task):
        for x, y in batches:
            logits = hnet.run(x, task=task)[:, :num_classes]
            loss = cross_entropy(logits, y)
            if beta:
                loss = loss + beta * keep.penalty()
            if not loss.isfinite():
                what = "lower rates may help" if x.isfinite().all() else "its inputs are not finite"
                raise DivergedError(f"task {task}: the loss is {loss.item()}; {what}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        finite = all(tensor.isfinite().all() for tensor in hnet.parameters_of(task))
        if not finite:
            raise DivergedError(f"task {task}: parameters are not finite; lower rates may help")


@torch.no_grad()
def accuracy_on(hnet: Hypernetwork, stream: Stream, task: int, most: int | None = None) -> float:
    """Fraction of a task's evaluation set that its network labels right, of the first `most`.

    The task is known, and so are its classes, which share the first logits.
    """
    classes = stream.num_classes(task)
    inputs, labels = stream.eval_set(task)
    with in_eval_mode(hnet):
        return accuracy(
            lambda some: hnet.run(some, task=task)[:, :classes], inputs[:most], labels[:most]
        )
