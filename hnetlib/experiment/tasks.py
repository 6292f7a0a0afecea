"""`PermutedTasks`: one data set, seen through one fixed permutation of its pixels a task."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hnetlib.experiment.data import ImageData


@dataclass(frozen=True)
class PermutedTasks:
    """PermutedMNIST: task i shows every image with its pixels in the i-th order; labels stay.

    Each order is drawn from its own seed (`permutation_seed`, i), so that task i is the same
    whatever the number of tasks.
    """

    data: ImageData
    num_tasks: int
    permutation_seed: int = 0

    def permutation(self, task: int) -> Tensor:
        """Pixel order [D] of a task: its image is `image[permutation]`."""
        expect_task(self, task)
        order = np.random.default_rng([self.permutation_seed, task])
        pixels = self.data.train_images.shape[1]
        return torch.from_numpy(order.permutation(pixels)).to(self.data.train_images.device)

    @cached_property
    def permutations(self) -> Tensor:
        """The pixel orders of all tasks, [T, D]."""
        return torch.stack([self.permutation(task) for task in range(self.num_tasks)])

    def num_classes(self, task: int) -> int:
        """Classes of a task: those of the data set."""
        return self.data.num_classes

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of (images [B, D], labels [B]); each epoch sees every image once."""
        permutation, num_images = self.permutation(task), len(self.data.train_labels)
        for indices in shuffled_batches(num_images, batch_size, steps, generator):
            yield self.batch(permutation, indices)

    def batch(self, permutation: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Training images [B, D] in the order `permutation` [D], and labels [B], of indices [B]."""
        images, labels = self.data.train_images, self.data.train_labels
        indices = indices.to(labels.device)
        # two selections of whole rows and columns move faster than one by both indices
        return images.index_select(0, indices).index_select(1, permutation), labels[indices]

    def eval_set(self, task: int) -> tuple[Tensor, Tensor]:
        """Evaluation images [M, D] as this task shows them, and labels [M]."""
        # whole rows of pixels move much faster than single columns of images
        return self._eval_pixels[self.permutation(task)].T, self.data.eval_labels

    def as_data(self, task: int) -> ImageData:
        """The whole data set as this task shows it, in copies of its tensors."""
        permutation = self.permutation(task)
        return replace(
            self.data,
            train_images=self.data.train_images[:, permutation],
            eval_images=self.data.eval_images[:, permutation],
        )

    @cached_property
    def variation(self) -> Tensor:
        """Standard deviation of each pixel over the unpermuted training images, [D]."""
        return self.data.train_images.std(0)

    @cached_property
    def lit_eval_pixels(self) -> tuple[Tensor, Tensor]:
        """Which pixels [L] of the unpermuted evaluation images are ever above 0, and just those.

        The second is the images with no other pixel, [M, L].
        """
        lit = self.data.eval_images.any(0).nonzero()[:, 0]  # [L]
        return lit, self.data.eval_images[:, lit]

    @cached_property
    def _eval_pixels(self) -> Tensor:
        return self.data.eval_images.T.contiguous()  # [D, M]


def expect_task(tasks: object, task: int) -> None:
    """Raises a one-line IndexError for a task that these `tasks`, of any kind, do not have."""
    if not 0 <= task < tasks.num_tasks:
        raise IndexError(f"task: expected 0 to {tasks.num_tasks - 1}, got {task}")


def shuffled_batches(
    num_images: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """`steps` index batches [B] from one random order of the images after another."""
    order = ShuffledOrder(num_images, batch_size, generator)
    return (order.next() for _ in range(steps))


class Draws:
    """A random generator whose state can be kept with the rest."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> dict:
        """Where the generator stands."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned."""
        self.generator.set_state(state["generator"].cpu())


class ShuffledOrder(Draws):
    """Index batches from one random order of the images after another; its state can be kept."""

    def __init__(self, num_images: int, batch_size: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.num_images, self.batch_size = num_images, batch_size
        self.queue = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """The indices [B] of the next batch."""
        while len(self.queue) < self.batch_size:
            order = torch.randperm(self.num_images, generator=self.generator)
            self.queue = torch.cat([self.queue, order])
        batch, self.queue = self.queue[: self.batch_size], self.queue[self.batch_size :]
        return batch

    def state_dict(self) -> dict:
        """What is left of the present order, and where the generator stands."""
        return super().state_dict() | {"queue": self.queue.clone()}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned."""
        super().load_state_dict(state)
        self.queue = state["queue"].cpu()


def seeded_generator(*seeds: int) -> torch.Generator:
    """A CPU random generator that depends on all these seeds and on nothing else.

    Zeros at the end count for nothing, as in NumPy's SeedSequence: (3, 0) is (3,).
    """
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))
