"""What all methods share: the loop over tasks, with evaluation, log, checkpoint and results."""

import math
import sys
import time
from abc import ABC, abstractmethod
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hnetlib.experiment import evaluation, runs, tracking
from hnetlib.experiment.config import Config
from hnetlib.experiment.loop import LOG_EVERY, Log, Loop, WithinTask
from hnetlib.experiment.tasks import PermutedTasks, ShuffledOrder, seeded_generator
from hnetlib.experiment.tracking import Tracker

SECONDS_BETWEEN_LINES = 30  # of progress, where there is no terminal


class Progress:
    """Says how many of `total` tasks are done. A notebook or a file gets plain lines."""

    def __init__(self, total: int, name: str, shown: bool = True) -> None:
        self.total, self.name, self.shown = total, name, shown
        self.start = self.last_line = time.monotonic()
        self.first_done: int | None = None
        on_terminal = shown and sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=name, unit="task") if on_terminal else None

    def update(self, done: int, accuracy: float | None) -> None:
        """`done` tasks are learned, with this mean accuracy over them, if it was measured."""
        if self.first_done is None:
            self.first_done = done - 1  # a resumed run does not start at 0
        if self.bar is not None:
            if accuracy is not None:
                self.bar.set_postfix(accuracy=f"{accuracy:.2%}", refresh=False)
            self.bar.update(done - self.bar.n)
            if done == self.total:
                self.bar.close()
        elif self.shown:
            self._line(done, accuracy)

    def _line(self, done: int, accuracy: float | None) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and done < self.total:
            return
        self.last_line = now
        elapsed = now - self.start
        left = elapsed / (done - self.first_done) * (self.total - done)
        parts = [f"{self.name}  {done:4d}/{self.total} tasks"]
        parts += [f"mean accuracy {accuracy:.2%}"] if accuracy is not None else []
        parts += [f"{elapsed / 60:.1f} min", f"{left / 60:.1f} min left"]
        print("   ".join(parts), flush=True)


class ContinualLearner(ABC):
    """Learns tasks one after the other, in as many parts as there are tasks.

    A method that sees all tasks at once learns a part of its steps where others learn a task.
    """

    grows = False  # whether a run of more tasks can go on from the end of one of fewer

    def __init__(self, config: Config, tasks: PermutedTasks, log_every: int = LOG_EVERY) -> None:
        self.config, self.tasks, self.log_every = config, tasks, log_every
        self.network = self.build()
        self.cross_entropy = partial(cross_entropy, label_smoothing=config.label_smoothing)

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained network, which `evaluation.evaluate_task_aware` can evaluate."""

    @abstractmethod
    def learn(self, task: int, loop: Loop) -> None:
        """Trains on one task, or one part of the steps, by one call of `loop`."""

    def learn_task(
        self,
        task: int,
        log: Log = lambda tag, value, step: None,
        within: WithinTask | None = None,
    ) -> None:
        """Trains on one task, the next of the sequence (or one part of the steps).

        `within` keeps the state within the task. DivergedError where a number is not finite.
        """
        loop = Loop(task, log, self.log_every, within)
        self.learn(task, loop)
        loop.check_weights(self.network)

    @property
    def stored_eval(self) -> int:
        """Numbers of 32 bits that are kept to solve all tasks, once they are learned."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def stored_train(self) -> int:
        """Numbers kept beside the network while it is trained, to remember old tasks by."""
        return 0

    def evaluated(self, task: int) -> range:
        """The tasks on which the network is evaluated after learning `task`."""
        learned = task + 1
        everything = learned % self.config.eval_every == 0 or learned == self.config.num_tasks
        return range(0 if everything else task, learned)

    @property
    def evaluated_together(self) -> int:
        """How many tasks share one product when they are evaluated."""
        return evaluation.TASKS_AT_ONCE

    def state(self) -> dict:
        """All that a resumed run needs."""
        return {"network": self.network.state_dict()}

    def load_state(self, state: dict) -> None:
        """Goes on from what `state` returned."""
        self.network.load_state_dict(state["network"])

    def metrics(self, R: np.ndarray) -> dict[str, float | None]:
        """The field's metrics of the accuracy matrix; None where one has no meaning here."""
        return evaluation.metrics(R)

    def train(self, run: runs.Run, progress: Progress) -> None:
        """Learns all tasks, or those a checkpoint of `run` leaves; writes its results."""
        state = self._restore(run)
        R, first_task, seconds = state["R"].numpy(), state["num_learned"], state["seconds"]
        within = WithinTask(run, first_task, self.config.device)
        tracker = Tracker(run, within.history or state["history"])
        for task in range(first_task, self.config.num_tasks):
            within.begin(task, tracker.history)
            self.learn_task(task, tracker.add, within)
            seconds["train"] += within.seconds()
            start = time.perf_counter()
            accuracy = self._evaluate(R, task, tracker)
            seconds["eval"] += time.perf_counter() - start
            run.save_checkpoint(self._checkpoint(R, task + 1, seconds, tracker.history))
            progress.update(task + 1, accuracy)
        metrics = self.metrics(R)
        run.finish(self._results(metrics, R, seconds))
        try:
            tracker.finish({k: v for k, v in metrics.items() if v is not None}, R)
        except Exception as error:  # whatever a picture fails of, the run is trained
            print(f"the log of {run.name} lacks its end: {error!r}", file=sys.stderr)

    def rate(self, done: float) -> float:
        """What the learning rate is multiplied by where this fraction of the steps is done."""
        if self.config.lr_schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * done))

    def image_order(self, part: int, batch_size: int | None = None) -> ShuffledOrder:
        """The order in which a task or part sees the training images, from its own seed."""
        num_images, generator = (
            len(self.tasks.data.train_labels),
            seeded_generator(self.config.seed, part),
        )
        return ShuffledOrder(num_images, batch_size or self.config.batch_size, generator)

    def steps_before(self, task: int) -> int:
        """Optimiser steps on all tasks before this one."""
        return sum(self.config.steps(earlier) for earlier in range(task))

    def _evaluate(self, R: np.ndarray, task: int, tracker: Tracker) -> float | None:
        """Fills in a row of R; its mean over all tasks learned so far, None if it lacks some."""
        which = self.evaluated(task)
        if not which:
            return None
        R[task, which] = evaluation.evaluate_task_aware(
            self.network, self.tasks, which.stop, which.start, self.evaluated_together
        )
        for scalar in tracking.curves_at(R[task], task):
            tracker.add(*scalar)
        return None if which.start else float(R[task, which].mean())

    def _checkpoint(self, R: np.ndarray, num_learned: int, seconds: dict, history: list) -> dict:
        return self.state() | {
            "R": torch.from_numpy(R),
            "num_learned": num_learned,
            "seconds": seconds,
            "history": history,
        }

    def _restore(self, run: runs.Run) -> dict:
        num_tasks = self.config.num_tasks
        state = run.load_checkpoint(self.config.device)
        if state is None and self.grows:
            state = run.load_shorter(self.config.device)
        R = torch.full((num_tasks, num_tasks), float("nan"), dtype=torch.float64)
        if state is None:
            seconds = {"train": 0.0, "eval": 0.0}
            return {"R": R, "num_learned": 0, "seconds": seconds, "history": []}
        self.load_state(state)
        known = len(state["R"])
        R[:known, :known] = state["R"].cpu()
        return state | {"R": R}

    def _results(self, metrics: dict, R: np.ndarray, seconds: dict) -> dict:
        return {
            **metrics,
            "train_seconds": seconds["train"],
            "eval_seconds": seconds["eval"],
            "trainable": sum(p.numel() for p in self.network.parameters()),
            "num_weights": self.config.num_weights,
            "stored_eval": self.stored_eval,
            "stored_train": self.stored_train,
            "R": runs.matrix_rows(R),
        }
