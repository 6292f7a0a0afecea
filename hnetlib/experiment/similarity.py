"""Tasks of graded similarity, and whether a distance between tasks follows it."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from hnetlib.experiment.tasks import PermutedTasks


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
            raise ValueError(f"moved: expected a share from 0 to 1 per task, got {self.moved}")
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

    def differences(self) -> Tensor:
        """Share of lit pixels that two tasks show in different places, for all pairs: [T, T]."""
        orders = [self.permutation(task) for task in range(self.num_tasks)]
        places = torch.stack([order.argsort()[self.lit_pixels] for order in orders])  # [T, L]
        return (places[:, None] != places[None]).double().mean(-1)  # [T, T]

    @cached_property
    def lit_pixels(self) -> Tensor:
        """Which pixels [D] of the unpermuted training images are ever above 0."""
        return self.data.train_images.any(0)


def rank_correlation(first: Tensor, second: Tensor, draws: int = 1000) -> tuple[float, float]:
    """Spearman's rank correlation of two symmetric matrices [T, T], over all pairs of tasks.

    The second number is what chance makes of it: the absolute value that 95 % of `draws`
    relabellings of the tasks stay below (Mantel's test). Pairs share tasks, so that they are not
    independent, and a bound for independent pairs would be too low.
    """
    rows, columns = np.triu_indices(len(first), 1)
    values = torch.stack([first, second]).double().cpu().numpy()[:, rows, columns]  # [2, pairs]
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    whole = np.zeros((len(first), len(first)))
    whole[rows, columns] = whole[columns, rows] = ranks[1]
    generator = np.random.default_rng(0)
    relabelled = [
        _cosine(ranks[0], whole[order[rows], order[columns]])
        for order in (generator.permutation(len(first)) for _ in range(draws))
    ]
    return _cosine(*ranks), float(np.quantile(np.abs(relabelled), 0.95))


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    """0 where one of them is 0 throughout: what is constant follows nothing."""
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norms) if norms else 0.0
