"""The penalty that keeps what old tasks' tokens generate, and the course of learning a task."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from hnetlib.checks import expect_a, expect_at_least, expect_one_of
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.order import check_learned, check_order, check_selections, warn_of_shared
from hnetlib.snapshots import FORMS, Features, StoredRows, all_features, take_snapshots

Snapshot = Literal["before_task", "at_learning"]
Penalty = Literal["rows", "tasks", "all"]


class TaskRegularizer:
    """Mean over old tasks s of ||theta_s - theta*_s||^2 (von Oswald et al., 1906.00695, eq. 2).

        keep = TaskRegularizer(hnet)
        with keep.learning(task):
            for ...:
                loss = cross_entropy(hnet.run(x, task=task), y) + beta * keep.penalty()

    theta_s is what the hypernetwork generates now from the frozen token of task s, theta*_s its
    snapshot: generated when s was learned (`snapshot="at_learning"`), or just before the task
    being learned now (`"before_task"`). `penalty` says over what one call sums:

    - "all": every old task;
    - "tasks": the mean over `penalty_size` old tasks, drawn without replacement;
    - "rows": num_chunks times the mean over `penalty_size` (task, chunk) pairs, likewise.

    The last two equal the first in expectation, and their gradients too (an unbiased gradient is
    still not an unbiased Adam step). With `least_change` the output layer learns by that.
    Where the generator is frozen (`Hypernetwork.freeze_generator`) nothing can be forgotten: the
    penalty is 0, and nothing is stored for it.

    `old_tasks`: those `hnet` has learned already; their tokens are frozen. A pair is one number,
    task * num_chunks + chunk, tasks counted in the order they were learned.
    """

    def __init__(
        self,
        hnet: Hypernetwork,
        *,
        snapshot: Snapshot = "before_task",
        penalty: Penalty = "rows",
        penalty_size: int = 60,
        least_change: LeastChange | None = None,
        old_tasks: Iterable[int] = (),
    ) -> None:
        expect_a(Hypernetwork, hnet=hnet)
        if least_change is not None:
            expect_a(LeastChange, least_change=least_change)
        expect_one_of("snapshot", snapshot, get_args(Snapshot))
        expect_one_of("penalty", penalty, get_args(Penalty))
        expect_at_least(1, penalty_size=penalty_size)
        if least_change and least_change.hnet is not hnet:
            raise ValueError("least_change: expected one of the same hypernetwork")
        self.hnet, self.least_change = hnet, least_change
        self.snapshot, self.kind, self.penalty_size = snapshot, penalty, penalty_size
        self.task: int | None = None  # the one being learned
        self.resumed: int | None = None  # the one a loaded state was in the middle of
        self.interrupted = False  # a task was begun and never became an old one
        self.asked = False  # for the penalty, of the task being learned
        self.old_tasks: list[int] = []
        self.snapshots = StoredRows(hnet, hnet.scale[:0])  # or another of FORMS
        expect_a(Iterable, old_tasks=old_tasks)
        for task in dict.fromkeys(hnet.index_of(task) for task in old_tasks):
            self._make_old(task)

    @contextmanager
    def learning(self, task: int) -> Iterator[None]:
        """While this task is learned: from here on the penalty holds the old ones.

        Leaving it freezes the task's token and makes the task an old one; leaving it by an
        exception does neither, and what is held stays that of before, also for who begins again.
        RuntimeError or ValueError for what would be forgotten silently.
        """
        with self._full_precision():
            self._begin(self.hnet.index_of(task))
        try:
            yield
            check_learned(self)
            with self._full_precision():
                if self.least_change:
                    self.least_change.write()
                self._make_old(self.task)
        finally:
            self.task = None
            if self.least_change:
                self.least_change.end()

    def penalty(self, generator: Generator | None = None) -> Tensor:
        """The penalty, a scalar; `generator` (on the CPU) draws the tasks or rows.

        With `LeastChange`, plus the price of what that has learned so far.
        """
        return self.penalty_over(self.draw(generator))

    def penalty_over(self, pairs: Tensor) -> Tensor:
        """The penalty summed over the `pairs` [K] that `draw` gave, a scalar; never in bf16."""
        self._learning()
        self.asked = True
        if self.hnet.generator_frozen:
            return self.hnet.scale.new_zeros(())
        return self._with_price(self._penalty_over(pairs))

    def weights_and_penalty(self, pairs: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """`hnet(task)` of the task being learned, and the penalty: one pass, so it costs less.

        `pairs` [K]: what `draw` gave; none: drawn here.
        """
        hnet, pairs = self.hnet, self.draw() if pairs is None else pairs
        task = self._learning()
        if torch.is_autocast_enabled(hnet.scale.device.type):
            # what bf16 rounds off weights is more than a step moves them
            rows, penalty = self._rows_and_squares(pairs[:0], task)[0], self._penalty_over(pairs)
        else:
            rows, penalty = self._rows_and_squares(pairs, task)
        if self.least_change:
            rows = rows + self.least_change.change
        return hnet.weights_from(rows, task), self._with_price(penalty)

    def draw(self, generator: Generator | None = None) -> Tensor:
        """The pairs [K] that one step's penalty is summed over; `generator` is on the CPU."""
        self._learning()
        num_old, num_chunks = len(self.old_tasks), self.hnet.num_chunks
        if num_old == 0 or self.kind == "all" or self.hnet.generator_frozen:
            return self.snapshots.all_pairs
        if self.kind == "rows":
            pairs = self._choose(num_old * num_chunks, generator)
        else:
            tasks = self._choose(num_old, generator)
            pairs = (tasks[:, None] * num_chunks + torch.arange(num_chunks)).flatten()
        return pairs.to(self.tokens.device)

    def state_dict(self) -> dict:
        """All there is to keep beside the hypernetwork's state, in the middle of a task too."""
        return {
            "old_tasks": list(self.old_tasks),
            "task": self.resumed if self.task is None else self.task,
            "snapshot": self.snapshot,
            "form": type(self.snapshots).__name__,
            "snapshots": self.snapshots.state(),
            "least_change": self.least_change and self.least_change.state(),
            "interrupted": self.interrupted,
        }

    def load_state_dict(self, state: dict) -> None:
        """Goes on from `state_dict()`; where that was in the middle of a task, `learning` of it.

        The hypernetwork's own state is to be loaded too, before or after.
        """
        if self.task is not None:
            raise RuntimeError(f"load_state_dict: task {self.task} is being learned here")
        needed = self.state_dict().keys() - {"interrupted"}  # which older ones lack
        if not isinstance(state, dict) or not needed <= state.keys() or state["form"] not in FORMS:
            raise ValueError("load_state_dict: expected what TaskRegularizer.state_dict() gave")
        if state["snapshot"] != self.snapshot:
            got = state["snapshot"]
            raise ValueError(f"snapshot: expected a state with {self.snapshot!r}, got {got!r}")
        if state["task"] is not None and bool(state["least_change"]) != bool(self.least_change):
            raise ValueError("least_change: expected as in the state, which is amid a task")
        interrupted, form = state.get("interrupted", False), FORMS[state["form"]]
        if interrupted and form is Features and not self.least_change:
            raise ValueError("least_change: expected as in the state, where a task was interrupted")
        snapshots = form(self.hnet, **state["snapshots"])
        if state["least_change"]:
            self.least_change.load_state(state["least_change"])
        self.snapshots, self.interrupted = snapshots, interrupted
        self.old_tasks, self.resumed = list(state["old_tasks"]), state["task"]

    def _begin(self, task: int) -> None:
        hnet = self.hnet
        check_order(self, task)
        held = [] if hnet.generator_frozen else self.old_tasks
        check_selections(self, task, held)
        warn_of_shared(self, task)
        self.tokens = hnet.task_tokens[task].detach()[None][:0]  # [t, *token_shape]
        if held:
            self.tokens = torch.stack([hnet.task_tokens[s].detach() for s in held])
        resumed = self.resumed is not None
        if hnet.generator_frozen:
            self.snapshots = StoredRows(hnet, hnet.scale[:0])
        elif resumed or self.interrupted:  # the hypernetwork may have got its state since
            self.snapshots = type(self.snapshots)(hnet, **self.snapshots.state())
        elif self.old_tasks and self.snapshot == "before_task":
            stays = self.least_change is not None
            self.snapshots = take_snapshots(
                hnet, self.tokens, exact=self.kind == "all", layer_stays=stays
            )
        if self.least_change:
            self.least_change.begin(task, None if resumed else self._old_features())
        self.token_before = hnet.task_tokens[task].detach().clone()
        hnet.tasks_run, self.asked = frozenset(), False
        self.task, self.resumed, self.interrupted = task, None, True

    def _make_old(self, task: int) -> None:
        self.hnet.freeze_token(task)
        self.old_tasks.append(task)
        self.interrupted = False
        if self.snapshot == "at_learning" and not self.hnet.generator_frozen:
            self.snapshots = self.snapshots.with_one_more(self.hnet.task_tokens[task])

    def _learning(self) -> int:
        if self.task is None:
            raise RuntimeError("penalty: expected within `with regularizer.learning(task):`")
        return self.task

    def _choose(self, population: int, generator: Generator | None) -> Tensor:
        return torch.randperm(population, generator=generator)[: self.penalty_size]

    @torch.no_grad()
    def _old_features(self) -> Tensor:
        """What the output layer reads for all chunks of all old tasks, [t * C, H]."""
        return all_features(self.hnet, self.tokens)

    def _with_price(self, penalty: Tensor) -> Tensor:
        return penalty + self.least_change.price() if self.least_change else penalty

    def _penalty_over(self, pairs: Tensor) -> Tensor:
        with self._full_precision():
            return self._rows_and_squares(pairs)[1]

    def _full_precision(self) -> torch.autocast:
        return torch.autocast(self.hnet.scale.device.type, enabled=False)

    def _rows_and_squares(self, pairs: Tensor, task: int | None = None) -> tuple:
        """What the output layer writes for `task` ([C, N]; None: [0, N]), and the penalty."""
        hnet, own = self.hnet, 0
        tokens = hnet.each_chunk(self.tokens)  # [t, C, task_token_dim]
        task_tokens = tokens[pairs // hnet.num_chunks, pairs % hnet.num_chunks]  # [K, ...]
        chunk_tokens = hnet.chunk_tokens[pairs % hnet.num_chunks]  # [K, chunk_token_dim]
        if task is not None:
            mine, chunks = hnet.pairs_of(task)
            own = len(mine)
            task_tokens = torch.cat([mine, task_tokens])
            chunk_tokens = torch.cat([chunks, chunk_tokens])
        features = hnet.features(task_tokens, chunk_tokens)  # [C + K, H]
        if not len(pairs):
            return hnet.output_layer(features), hnet.chunk_tokens.new_zeros(())
        rows, squares = self.snapshots.compare(features, own, pairs)
        # the mean over pairs, times C: 1/t of the sum over all pairs where these are all
        return rows, squares * (hnet.num_chunks / len(pairs))
