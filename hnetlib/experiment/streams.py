"""Streams of tasks: rotated, relabelled, split by classes, or from DataLoaders of one's own.

`Stream` is all that a sequence of classification tasks has to offer; `PermutedTasks` is one, too.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from hnetlib.checks import expect_at_least
from hnetlib.experiment.data import ImageData
from hnetlib.experiment.tasks import expect_task, shuffled_batches

Batch = tuple[Tensor, Tensor]  # inputs [B, ...], labels [B]


@runtime_checkable
class Stream(Protocol):
    """Tasks, counted from 0; a task's labels are 0 to num_classes(task) - 1."""

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""

    def num_classes(self, task: int) -> int:
        """How many classes a task has: its logits are the module's first so many outputs."""

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: Generator
    ) -> Iterator[Batch]:
        """`steps` batches of a task; the generator, on the CPU, decides their order."""

    def eval_set(self, task: int) -> Batch:
        """What accuracy on a task is measured on."""


@dataclass(frozen=True)
class ImageTasks:
    """Tasks made of one data set, each of which shows it in its own way."""

    data: ImageData

    def num_classes(self, task: int) -> int:
        """Classes of a task."""
        expect_task(self, task)
        return self.data.num_classes

    def images_of(self, task: int, labels: Tensor) -> Tensor:
        """Which images a task has, indices [K] among those with `labels` [N]: all of them."""
        return torch.arange(len(labels), device=labels.device)

    def show(self, task: int, images: Tensor, labels: Tensor) -> Batch:
        """Images [B, D] and labels [B] as a task has them: as they are."""
        return images, labels

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: Generator
    ) -> Iterator[Batch]:
        """`steps` batches of (images [B, D], labels [B]); each epoch sees every image once."""
        expect_task(self, task)
        images, labels = self.data.train_images, self.data.train_labels
        mine = self.images_of(task, labels)  # [K]
        for places in shuffled_batches(len(mine), batch_size, steps, generator):
            indices = mine[places.to(mine.device)]  # [B]
            yield self.show(task, images[indices], labels[indices])

    def eval_set(self, task: int) -> Batch:
        """Evaluation images [M, D] of a task, and labels [M]."""
        expect_task(self, task)
        images, labels = self.data.eval_images, self.data.eval_labels
        mine = self.images_of(task, labels)
        return self.show(task, images[mine], labels[mine])


@dataclass(frozen=True)
class ShiftedTask(ImageTasks):
    """One task: the data set, with training batches moved by up to `most` pixels each way."""

    most: int = 1

    @property
    def num_tasks(self) -> int:
        """One."""
        return 1

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: Generator
    ) -> Iterator[Batch]:
        """`steps` batches, each moved as a whole; what leaves the image comes in at the other side.

        (MNIST's digits leave four pixels on each side.)
        """
        for images, labels in super().train_batches(task, batch_size, steps, generator):
            square = images.unflatten(1, (self.data.image_size, -1))  # [B, S, S]
            by = torch.randint(-self.most, self.most + 1, (2,), generator=generator).tolist()
            yield square.roll(by, (1, 2)).flatten(1), labels


@dataclass(frozen=True)
class RotatedTasks(ImageTasks):
    """Task i shows every image turned by `angles[i]` degrees, against the clock."""

    angles: tuple[float, ...]

    @property
    def num_tasks(self) -> int:
        """One for each angle."""
        return len(self.angles)

    def show(self, task: int, images: Tensor, labels: Tensor) -> Batch:
        """Turned images [B, D]; what comes in from outside is 0."""
        square = images.unflatten(1, (1, self.data.image_size, -1))  # [B, 1, S, S]
        angle = np.deg2rad(self.angles[task])
        rows = [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0]]
        turn = torch.tensor(rows, dtype=images.dtype, device=images.device)  # [2, 3]
        places = affine_grid(turn[None], [1, *square.shape[1:]], align_corners=False)
        places = places.expand(len(square), -1, -1, -1)  # [B, S, S, 2]
        return grid_sample(square, places, align_corners=False).flatten(1), labels


@dataclass(frozen=True)
class RelabelledTasks(ImageTasks):
    """Task i gives the classes other labels: class c has label `order(i)[c]`; images stay.

    Each order is drawn from its own seed (`permutation_seed`, i), as those of `PermutedTasks`.
    """

    num_tasks: int
    permutation_seed: int = 0

    def order(self, task: int) -> Tensor:
        """The label of each class, [classes]."""
        draw = np.random.default_rng([self.permutation_seed, task])
        order = torch.from_numpy(draw.permutation(self.data.num_classes))
        return order.to(self.data.train_labels.device)

    def show(self, task: int, images: Tensor, labels: Tensor) -> Batch:
        """The same images [B, D], with other labels [B]."""
        return images, self.order(task)[labels]


@dataclass(frozen=True)
class SplitTasks(ImageTasks):
    """Task i has the images of `classes[i]` alone, labelled by their places in it.

    Tasks may differ in their number of classes: `classes=((0, 1), (2, 3, 4))`.
    """

    classes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        there = range(self.data.num_classes)
        for some in self.classes:
            group = set(some) if isinstance(some, tuple | list) else set()
            if len(group) < 2 or len(group) < len(some) or not group <= set(there):
                expected = f"two or more different ones of 0 to {there[-1]} per task"
                raise ValueError(f"classes: expected {expected}, got {some!r}")

    @property
    def num_tasks(self) -> int:
        """One for each group of classes."""
        return len(self.classes)

    def num_classes(self, task: int) -> int:
        """Classes of a task."""
        expect_task(self, task)
        return len(self.classes[task])

    def images_of(self, task: int, labels: Tensor) -> Tensor:
        """Indices [K] of the images of a task's classes."""
        return torch.isin(labels, labels.new_tensor(self.classes[task])).nonzero()[:, 0]

    def show(self, task: int, images: Tensor, labels: Tensor) -> Batch:
        """The same images [B, D], with the classes' places as labels [B]."""
        return images, (labels[:, None] == labels.new_tensor(self.classes[task])).int().argmax(1)


def drawn_classes(
    sizes: Sequence[int], num_classes: int, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Groups of classes of these sizes for `SplitTasks`, from one random order after another.

    Groups share no class until all have been used. ValueError for one of more classes than there
    are.
    """
    draw, queue, groups = np.random.default_rng(seed), [], []
    for size in sizes:
        if size > num_classes:
            raise ValueError(f"sizes: expected at most {num_classes} classes, got {size}")
        group, queue = queue[:size], queue[size:]
        if len(group) < size:  # all have been used, or are in this group
            order = draw.permutation(num_classes).tolist()
            more = [c for c in order if c not in group][: size - len(group)]
            group, queue = group + more, [c for c in order if c not in more]
        groups.append(tuple(group))
    return tuple(groups)


class LoaderTasks:
    """Tasks of one's own: for each a DataLoader to train from and one to evaluate with.

    Each gives pairs of inputs [B, ...] and labels [B]. `num_classes`: one for all tasks, or one per
    task. The training loaders' own batch sizes count. What they draw from PyTorch in this process
    follows the `generator` of `train_batches`, unless they have one of their own. Evaluation sets
    are read whole, again and again.
    """

    def __init__(
        self, loaders: Sequence[tuple[Iterable, Iterable]], num_classes: int | Sequence[int]
    ) -> None:
        self.loaders = list(loaders)
        for task, pair in enumerate(self.loaders):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                expected = "a loader to train from and one to evaluate with"
                raise ValueError(f"task {task}: expected {expected}, got {type(pair).__name__}")
            if isinstance(pair[1], Iterator):
                expected = "evaluation batches that can be read again, as of a DataLoader or a list"
                raise ValueError(f"task {task}: expected {expected}, got an iterator")
        same = hasattr(num_classes, "__index__") or not isinstance(num_classes, Iterable)
        self.classes = [num_classes] * len(self.loaders) if same else list(num_classes)
        for classes in self.classes:
            expect_at_least(1, num_classes=classes)
        if len(self.classes) != len(self.loaders):
            expected = f"a number for each of the {len(self.loaders)} tasks"
            raise ValueError(f"num_classes: expected {expected}, got {len(self.classes)}")

    @property
    def num_tasks(self) -> int:
        """One for each pair of loaders."""
        return len(self.loaders)

    def num_classes(self, task: int) -> int:
        """Classes of a task, as they were given."""
        expect_task(self, task)
        return self.classes[task]

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: Generator
    ) -> Iterator[Batch]:
        """`steps` batches, going through the loader as often as it takes; ValueError right away."""
        expect_task(self, task)
        loader = self.loaders[task][0]
        own = getattr(loader, "batch_size", None) or batch_size
        if own != batch_size:
            raise ValueError(
                f"batch_size: expected {own}, as the loader of task {task} has it, got {batch_size}"
            )
        passes = (_one_pass(loader, task, generator) for _ in itertools.count())
        batches = itertools.islice(itertools.chain.from_iterable(passes), steps)
        return (self._checked(batch, task) for batch in batches)

    def eval_set(self, task: int) -> Batch:
        """All that the evaluation loader gives: inputs [M, ...], labels [M]."""
        expect_task(self, task)
        with torch.random.fork_rng(devices=[]):  # what is drawn is the same each time
            torch.manual_seed(0)
            batches = [self._checked(batch, task) for batch in self.loaders[task][1]]
        if not batches:
            raise ValueError(f"task {task}: expected batches to evaluate with, got none")
        inputs, labels = zip(*batches, strict=True)
        return torch.cat(inputs), torch.cat(labels)

    def _checked(self, batch: object, task: int) -> Batch:
        parts = batch if isinstance(batch, (tuple, list)) else [batch]
        if len(parts) != 2 or not all(isinstance(part, Tensor) for part in parts):
            got = ", ".join(type(part).__name__ for part in parts)
            raise TypeError(f"task {task}: expected batches of two tensors, got {got}")
        inputs, labels = parts
        kind = labels.is_floating_point() or labels.is_complex()
        if labels.shape != inputs.shape[:1] or kind:
            got = f"{list(labels.shape)} of {labels.dtype}"
            raise ValueError(f"task {task}: expected a whole number for each input, got {got}")
        labels = labels.long()  # of some kinds nothing can be compared
        wrong = labels[(labels < 0) | (labels >= self.classes[task])]
        if len(wrong):
            expected = f"labels from 0 to {self.classes[task] - 1}"
            raise ValueError(f"task {task}: expected {expected}, got {int(wrong[0])}")
        return inputs, labels


def _one_pass(loader: Iterable, task: int, generator: Generator) -> Iterator[object]:
    """All batches of a loader, which draws from PyTorch's generator as this one has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        batches, state = iter(loader), torch.get_rng_state()
    for number in itertools.count():
        with torch.random.fork_rng(devices=[]):  # what happens between batches draws too
            torch.set_rng_state(state)
            batch, state = next(batches, None), torch.get_rng_state()
        if batch is None and number > 0:
            return
        if batch is None:
            raise ValueError(f"task {task}: expected batches to train from, got none (any more)")
        yield batch
