"""`SimilarTasks`: tasks of graded similarity, each a given share of pixels away from one order."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hnetlib.tasks import PermutedTasks


@dataclass(frozen=True)
class SimilarTasks(PermutedTasks):
    """Task i shows images in one base order, in which a share `moved[i]` of the pixels move.

    The pixels that move change places among themselves, along one cycle, so that none stays: 0
    gives the base task again, 1 a task in which no pixel is where it was. The base order is that of
    task 0 of `PermutedTasks`. The share holds among *lit* pixels, those that any training image
    uses, and among the dark ones likewise: to move a dark pixel is to change nothing a network
    sees, so among all pixels alone a share would say little.
    """

    num_tasks: int = field(init=False)
    moved: tuple[float, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        if not self.moved or not all(0 <= share <= 1 for share in self.moved):
            raise ValueError(f"moved: expected a share from 0 to 1 a task, got {self.moved}")
        object.__setattr__(self, "num_tasks", len(self.moved))

    def permutation(self, task: int) -> Tensor:
        """Pixel order [D] of a task: its image is `image[permutation]`."""
        shuffled = super().permutation(task)  # [D] the order an unrelated task would have
        chosen = torch.zeros_like(self.lit_pixels)  # [D]
        for group in (self.lit_pixels, ~self.lit_pixels):
            candidates = shuffled[group[shuffled]]
            chosen[candidates[: round(self.moved[task] * len(candidates))]] = True
        cycle = shuffled[chosen[shuffled]]  # the chosen pixels, in random order
        instead = torch.arange(len(shuffled), device=shuffled.device)  # [D]
        instead[cycle] = cycle.roll(1)
        return instead[super().permutation(0)]

    def difference(self, first: int, second: int) -> float:
        """Share of lit pixels that task `second` shows in another place than task `first`."""
        places = [self.permutation(task).argsort()[self.lit_pixels] for task in (first, second)]
        return float((places[0] != places[1]).double().mean())

    @cached_property
    def lit_pixels(self) -> Tensor:
        """Which pixels [D] of the unpermuted training images are ever above 0."""
        return self.data.train_images.any(0)
