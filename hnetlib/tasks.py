"""`PermutedTasks`: one data set, seen through one fixed permutation of its pixels a task."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hnetlib.data import ImageData


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
        if not 0 <= task < self.num_tasks:
            raise IndexError(f"task: expected 0 to {self.num_tasks - 1}, got {task}")
        order = np.random.default_rng([self.permutation_seed, task])
        pixels = self.data.train_images.shape[1]
        return torch.from_numpy(order.permutation(pixels)).to(self.data.train_images.device)

    @cached_property
    def permutations(self) -> Tensor:
        """The pixel orders of all tasks, [T, D]."""
        return torch.stack([self.permutation(task) for task in range(self.num_tasks)])

    def train_batches(
        self, task: int, batch_size: int, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of (images [B, D], labels [B]); each epoch sees every image once."""
        permutation = self.permutation(task)
        images, labels = self.data.train_images, self.data.train_labels
        for indices in shuffled_batches(len(labels), batch_size, steps, generator):
            indices = indices.to(labels.device)  # [B]
            # two selections of whole rows and columns move faster than one by both indices
            yield images.index_select(0, indices).index_select(1, permutation), labels[indices]

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
    def lit_eval_pixels(self) -> tuple[Tensor, Tensor]:
        """Which pixels [L] of the unpermuted evaluation images are ever above 0, and just those.

        The second is the images with no other pixel, [M, L].
        """
        lit = self.data.eval_images.any(0).nonzero()[:, 0]  # [L]
        return lit, self.data.eval_images[:, lit]

    @cached_property
    def _eval_pixels(self) -> Tensor:
        return self.data.eval_images.T.contiguous()  # [D, M]


def shuffled_batches(
    num_images: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """`steps` index batches [B] from one random order of the images after another."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(num_images, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


def seeded_generator(*seeds: int) -> torch.Generator:
    """A CPU random generator that depends on all these seeds and on nothing else."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))
