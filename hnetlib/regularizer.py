"""The penalty that keeps what old tasks' tokens generate, and the snapshots it compares with."""

from typing import get_args

import torch
from torch import Tensor

from hnetlib.config import Penalty, Snapshot, SnapshotPrecision, expect_one_of
from hnetlib.hypernet import Hypernetwork
from hnetlib.snapshots import FeatureSnapshots, FrozenHead, StoredRows, features_of
from hnetlib.squares import Base, BlockSquares, GramSquares, gram_is_cheaper

FEW_ROWS = 512  # up to here rows of old tasks share one product with those of the current task
SNAPSHOT_BYTES = 2**28  # above, "before_task" makes its snapshots again instead of storing them


class TaskRegularizer:
    """Mean over old tasks s of ||theta_s - theta*_s||^2 (von Oswald et al., 1906.00695, eq. 2).

    theta_s is what the hypernetwork generates now from the frozen token of task s, theta*_s its
    snapshot: generated when s was learned (`snapshot="at_learning"`), or just before the task
    being learned now (`"before_task"`). `penalty` says over what one call sums:

    - "all": every old task;
    - "tasks": the mean over `penalty_size` old tasks, drawn without replacement;
    - "rows": num_chunks times the mean over `penalty_size` (task, chunk) pairs, likewise.

    The last two equal the first in expectation, and their gradients too (an unbiased gradient is
    still not an unbiased Adam step). Works in any training loop:

        regularizer.begin_task()
        for ...:
            loss = cross_entropy(...) + beta * regularizer()
        hnet.freeze_token(task)
        regularizer.end_task(task)

    `weights_and_penalty` does the same faster. Each kind is a sum over (task, chunk) pairs, and a
    pair is one number, task * num_chunks + chunk, tasks counted in the order they were learned.
    """

    def __init__(
        self,
        hnet: Hypernetwork,
        *,
        snapshot: Snapshot = "before_task",
        penalty: Penalty = "rows",
        penalty_size: int = 60,
        snapshot_precision: SnapshotPrecision = "float32",
    ) -> None:
        expect_one_of("snapshot", snapshot, get_args(Snapshot))
        expect_one_of("penalty", penalty, get_args(Penalty))
        expect_one_of("snapshot_precision", snapshot_precision, get_args(SnapshotPrecision))
        if penalty_size < 1:
            raise ValueError(f"penalty_size: expected at least 1, got {penalty_size}")
        self.hnet = hnet
        self.snapshot, self.penalty, self.penalty_size = snapshot, penalty, penalty_size
        wide = hnet.head.weight.dtype
        self.dtype = torch.float16 if snapshot_precision == "float16" else wide
        self.old_tasks: list[int] = []
        self.tokens = torch.empty(0)  # [t, task_token_dim]
        self.snapshots: StoredRows | FrozenHead | FeatureSnapshots = StoredRows(self.dtype)
        self._base: Base | None = None  # for GramSquares, where that is the cheaper form
        self._all_pairs = torch.empty(0, dtype=torch.int64, device=hnet.chunk_tokens.device)

    def begin_task(self) -> None:
        """Call before learning a task: gets the old tasks' tokens and, if due, new snapshots."""
        if not self.old_tasks:
            return
        self.tokens = torch.stack([self.hnet.task_tokens[s].detach() for s in self.old_tasks])
        self._all_pairs = torch.arange(
            len(self.tokens) * self.hnet.num_chunks, device=self.tokens.device
        )
        if self.snapshot == "before_task":
            self._snapshot_before_task()

    def end_task(self, task: int) -> None:
        """Call when `task` is learned and its token frozen: it is an old task from now on."""
        if task in self.old_tasks:
            raise ValueError(f"task: expected one that is not old yet, got {task}")
        self.old_tasks.append(task)
        if self.snapshot == "at_learning":
            self.snapshots.add(self.hnet, self.hnet.task_tokens[task].detach()[None])

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        """The penalty, a scalar; `generator` (on the CPU) draws the tasks or rows."""
        return self.penalty_over(self.draw(generator))

    def penalty_over(self, pairs: Tensor) -> Tensor:
        """The penalty summed over the `pairs` [K] that `draw` gave, a scalar; never in bf16."""
        with torch.autocast(self.hnet.scale.device.type, enabled=False):
            return self._rows_and_penalty(pairs)[1]

    def weights_and_penalty(
        self, task: int | Tensor, pairs: Tensor, head_change: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weights of a task (or token [task_token_dim]) and the penalty over drawn `pairs`.

        The same as `hnet(task)` and a call of the regulariser, in one pass through the network.
        `head_change` [C, chunk_size] is added to what the last layer writes for the task.
        """
        token = self.hnet.task_tokens[task] if isinstance(task, int) else task
        if torch.is_autocast_enabled(self.hnet.scale.device.type):
            # what bf16 rounds off weights is more than a step moves them
            rows, penalty = self._rows_and_penalty(pairs[:0], token)[0], self.penalty_over(pairs)
        else:
            rows, penalty = self._rows_and_penalty(pairs, token)
        if head_change is not None:
            rows = rows + head_change
        flat = (rows * self.hnet.scale + self.hnet.shift).flatten()[: self.hnet.num_weights]
        return self.hnet.unflatten(flat), penalty

    @torch.no_grad()
    def old_features(self) -> Tensor | None:
        """What the last layer reads for all chunks of all old tasks, [t * C, H]; None: no task."""
        return features_of(self.hnet, self.tokens) if len(self.tokens) else None

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """The pairs [K] that one step's penalty is summed over; `generator` is on the CPU."""
        num_old, num_chunks = len(self.tokens), self.hnet.num_chunks
        if num_old == 0 or self.penalty == "all":
            return self._all_pairs
        if self.penalty == "rows":
            pairs = self._choose(num_old * num_chunks, generator)
        else:
            tasks = self._choose(num_old, generator)
            pairs = (tasks[:, None] * num_chunks + torch.arange(num_chunks)).flatten()
        return pairs.to(self.tokens.device)

    def state(self) -> dict:
        """What a checkpoint has to keep."""
        kept = self.snapshots.stored if self.snapshot == "at_learning" else None
        return {"old_tasks": list(self.old_tasks), "snapshots": kept}

    def load_state(self, state: dict) -> None:
        """Goes on from a checkpoint's `state()`."""
        self.old_tasks = list(state["old_tasks"])
        if state["snapshots"] is not None:
            self.snapshots.stored = state["snapshots"]

    def _choose(self, population: int, generator: torch.Generator | None) -> Tensor:
        return torch.randperm(population, generator=generator)[: self.penalty_size]

    def _rows_and_penalty(self, pairs: Tensor, token: Tensor | None = None) -> tuple:
        """What the last layer writes for all chunks of `token` ([C, N]; none: [0, N]), penalty."""
        hnet, num_own = self.hnet, 0 if token is None else self.hnet.num_chunks
        task_tokens = self.tokens[pairs // hnet.num_chunks] if len(pairs) else None
        chunk_tokens = hnet.chunk_tokens[pairs % hnet.num_chunks]  # [K, chunk_token_dim]
        if token is not None:
            own = token.expand(num_own, -1)  # [C, task_token_dim]
            task_tokens = own if task_tokens is None else torch.cat([own, task_tokens])
            chunk_tokens = torch.cat([hnet.chunk_tokens, chunk_tokens])
        if task_tokens is None:
            return None, hnet.chunk_tokens.new_zeros(())
        features = hnet.features(task_tokens, chunk_tokens)  # [C + K, H]
        if not len(pairs):
            return hnet.head(features), hnet.chunk_tokens.new_zeros(())
        by_products = isinstance(self.snapshots, FeatureSnapshots) or self._gram_of(pairs)
        if len(pairs) <= FEW_ROWS and not by_products:
            rows = hnet.head(features)  # [C + K, N]: reads the large last layer once
            kept, scales = self._kept(pairs)
            squares = ((rows[num_own:] - kept) * scales).square().sum()
            rows = rows[:num_own]
        else:
            rows = hnet.head(features[:num_own])
            squares = self._squares(features[num_own:], pairs)
        # the mean over pairs, times C: 1/t of the sum over all pairs where these are all
        return rows, squares * (hnet.num_chunks / len(pairs))

    def _kept(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """The snapshot's rows and the scale of each of their numbers, both [K, N]."""
        return self.snapshots.rows(pairs), self.hnet.scale[pairs % self.hnet.num_chunks]

    def _gram_of(self, pairs: Tensor) -> Base | None:
        """What `GramSquares` needs, where it is the form for these pairs."""
        return self._base if pairs is self._all_pairs else None

    def _squares(self, features: Tensor, pairs: Tensor) -> Tensor:
        """How far rows [K] are from their snapshots, squared and summed, by features [K, H]."""
        if isinstance(self.snapshots, FeatureSnapshots):
            return self.snapshots.squares(features, pairs)
        head, base, num_gram = self.hnet.head, self._gram_of(pairs), 0
        squares = features.new_zeros(())
        if base:
            num_gram = len(base.rows)
            # the base holds features times scale, and the scale last
            scales = base.rows[:, -1:]  # [R, 1]
            moved = features[:num_gram] * scales - base.rows[:, :-1]  # [R, H]
            squares = GramSquares.apply(moved, head.weight, head.bias, base)
        if num_gram < len(pairs):
            features, pairs = features[num_gram:], pairs[num_gram:]
            squares = squares + BlockSquares.apply(
                features, head.weight, head.bias, lambda block: self._kept(pairs[block])
            )
        return squares

    @torch.no_grad()
    def _snapshot_before_task(self) -> None:
        """The one place that decides how snapshots are kept and exact penalties computed."""
        hnet = self.hnet
        one_scale = (hnet.scale == hnet.scale[:, :1]).all(1)  # [C]: chunks within one tensor
        in_gram = one_scale[self._all_pairs % hnet.num_chunks]  # [t * C]
        num_gram = int(in_gram.sum())
        self._base = None
        if not hnet.head.weight.requires_grad:  # `LeastChange` keeps it as it is
            self.snapshots = FeatureSnapshots(hnet, self.tokens)
        elif self.penalty == "all" and gram_is_cheaper(
            num_gram, hnet.chunk_size, hnet.head.in_features
        ):
            self.snapshots = FrozenHead(hnet, self.tokens)
            self._all_pairs = torch.cat([self._all_pairs[in_gram], self._all_pairs[~in_gram]])
            pairs = self._all_pairs[:num_gram]
            scales = hnet.scale[pairs % hnet.num_chunks, 0]  # [R]
            self._base = Base.of(self.snapshots, pairs, scales)
        elif len(self._all_pairs) * hnet.chunk_size * self.dtype.itemsize > SNAPSHOT_BYTES:
            self.snapshots = FrozenHead(hnet, self.tokens)
        else:
            self.snapshots = StoredRows(self.dtype)
            self.snapshots.add(hnet, self.tokens)
