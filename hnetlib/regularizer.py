"""The penalty that keeps what old tasks' tokens generate, and the snapshots it compares with."""

from typing import get_args

import torch
from torch import Tensor

from hnetlib.config import Penalty, Snapshot, expect_one_of
from hnetlib.hypernet import Hypernetwork


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
    """

    def __init__(
        self,
        hnet: Hypernetwork,
        *,
        snapshot: Snapshot = "before_task",
        penalty: Penalty = "rows",
        penalty_size: int = 60,
    ) -> None:
        expect_one_of("snapshot", snapshot, get_args(Snapshot))
        expect_one_of("penalty", penalty, get_args(Penalty))
        if penalty_size < 1:
            raise ValueError(f"penalty_size: expected at least 1, got {penalty_size}")
        self.hnet = hnet
        self.snapshot, self.penalty, self.penalty_size = snapshot, penalty, penalty_size
        self.old_tasks: list[int] = []
        self.tokens = torch.empty(0)  # [t, task_token_dim]
        self.snapshots = torch.empty(0)  # [t, C, chunk_size], padding 0

    def begin_task(self) -> None:
        """Call before learning a task: gets the old tasks' tokens and, if due, new snapshots."""
        if not self.old_tasks:
            return
        self.tokens = torch.stack([self.hnet.task_tokens[s].detach() for s in self.old_tasks])
        if self.snapshot == "before_task":
            self.snapshots = self._generate(self.tokens)

    def end_task(self, task: int) -> None:
        """Call when `task` is learned and its token frozen: it is an old task from now on."""
        if task in self.old_tasks:
            raise ValueError(f"task: expected one that is not old yet, got {task}")
        self.old_tasks.append(task)
        if self.snapshot == "at_learning":
            new = self._generate(self.hnet.task_tokens[task].detach()[None])  # [1, C, chunk_size]
            self.snapshots = torch.cat([self.snapshots, new]) if len(self.snapshots) else new

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        """The penalty, a scalar; `generator` (on the CPU) draws the tasks or rows."""
        num_old = len(self.tokens)
        if num_old == 0:
            return self.hnet.chunk_tokens.new_zeros(())
        if self.penalty == "rows":
            return self._rows_penalty(num_old, generator)
        if self.penalty == "tasks":
            return self._tasks_penalty(self._draw(num_old, generator))
        return self._tasks_penalty(slice(None))

    def state(self) -> dict:
        """What a checkpoint has to keep."""
        kept = self.snapshots if self.snapshot == "at_learning" else None
        return {"old_tasks": list(self.old_tasks), "snapshots": kept}

    def load_state(self, state: dict) -> None:
        """Goes on from a checkpoint's `state()`."""
        self.old_tasks = list(state["old_tasks"])
        if state["snapshots"] is not None:
            self.snapshots = state["snapshots"]

    def _tasks_penalty(self, chosen: Tensor | slice) -> Tensor:
        chunks = self.hnet.generate_chunks(self.tokens[chosen])  # [K, C, chunk_size]
        return (chunks - self.snapshots[chosen]).square().sum() / len(chunks)

    def _rows_penalty(self, num_old: int, generator: torch.Generator | None) -> Tensor:
        num_chunks = self.hnet.num_chunks
        pairs = self._draw(num_old * num_chunks, generator)  # [K]
        tasks, chunks = pairs // num_chunks, pairs % num_chunks
        rows = self.hnet.generate_rows(self.tokens[tasks], chunks)  # [K, chunk_size]
        squared = (rows - self.snapshots[tasks, chunks]).square()
        return num_chunks * squared.sum() / len(pairs)

    def _draw(self, population: int, generator: torch.Generator | None) -> Tensor:
        drawn = torch.randperm(population, generator=generator)[: self.penalty_size]
        return drawn.to(self.tokens.device)

    @torch.no_grad()
    def _generate(self, tokens: Tensor) -> Tensor:
        # a few tasks at a time, since the layers before the last take memory too
        return torch.cat([self.hnet.generate_chunks(few) for few in tokens.split(16)])
