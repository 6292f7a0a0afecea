"""The continual training loop: one task after another, old ones held by the regulariser."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from hnetlib import evaluation, runs
from hnetlib.config import Config
from hnetlib.data import load_data
from hnetlib.hypernet import Hypernetwork, build_hnet
from hnetlib.progress import Progress
from hnetlib.regularizer import TaskRegularizer
from hnetlib.step import TrainingStep, prepare_torch
from hnetlib.tasks import PermutedTasks, seeded_generator
from hnetlib.tracking import Tracker

LOG_EVERY = 50  # optimiser steps between two points of the training curves
Log = Callable[[str, float, int], None]  # takes tag, value and step


def train_or_load(config: Config, progress: bool = True) -> runs.Run:
    """The finished run of this config: read from disk, resumed, or trained from the start."""
    prepare_torch(config)
    data = load_data(config.dataset, config.split, config.device)
    run = runs.Run("hnet", config, data.checksum)
    if run.finished:
        return run
    with run.locked():
        if not run.finished:  # or another process finished it just now
            run.start()
            tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
            Learner(config, tasks).train(run, Progress(config.num_tasks, run.name, shown=progress))
    return run


def load_hnet(run: runs.Run) -> Hypernetwork:
    """The trained hypernetwork of a finished run, with its tokens."""
    hnet = build_hnet(run.config)
    hnet.load_state_dict(run.load_checkpoint(run.config.device)["hnet"])
    return hnet


@dataclass
class Learner:
    """Trains one hypernetwork on a sequence of tasks."""

    config: Config
    tasks: PermutedTasks
    log_every: int = LOG_EVERY
    hnet: Hypernetwork = field(init=False)
    regularizer: TaskRegularizer = field(init=False)

    def __post_init__(self) -> None:
        self.hnet = build_hnet(self.config)
        self.regularizer = TaskRegularizer(
            self.hnet,
            snapshot=self.config.snapshot,
            penalty=self.config.penalty,
            penalty_size=self.config.penalty_size,
            snapshot_precision=self.config.snapshot_precision,
        )

    def train(self, run: runs.Run, progress: Progress) -> None:
        """Learns all tasks, or those a checkpoint of `run` leaves; writes its results."""
        num_tasks = self.config.num_tasks
        state = self._restore(run)
        R, first_task, seconds = state["R"].numpy(), state["num_learned"], state["seconds"]
        tracker = Tracker(run, state["history"])
        for task in range(first_task, num_tasks):
            start = time.perf_counter()
            self.learn_task(task, tracker.add)
            learned = time.perf_counter()
            R[task, : task + 1] = evaluation.evaluate_task_aware(self.hnet, self.tasks, task + 1)
            seconds["train"] += learned - start
            seconds["eval"] += time.perf_counter() - learned
            tracker.add("tasks/accuracy", R[task, : task + 1].mean(), task + 1)
            tracker.add("tasks/learning_accuracy", R[task, task], task + 1)
            tracker.add("tasks/first_task_accuracy", R[task, 0], task + 1)
            run.save_checkpoint(self._checkpoint(R, task + 1, seconds, tracker.history))
            progress.update(task + 1, accuracy=R[task, : task + 1].mean())
        metrics = evaluation.metrics(R)
        tracker.finish(metrics, R)
        run.finish(self._results(metrics, R, seconds))

    def learn_task(self, task: int, log: Log = lambda tag, value, step: None) -> None:
        """Trains on one task, the next of the sequence; its token is frozen afterwards."""
        steps, batch_size = self.config.steps(task), self.config.batch_size
        generator = seeded_generator(self.config.seed, task)
        self.regularizer.begin_task()
        step = TrainingStep(self.config, self.hnet, self.regularizer, task)
        batches = self.tasks.train_batches(task, batch_size, steps, generator)
        for number, (images, labels) in enumerate(batches):
            pairs = self.regularizer.draw(generator)
            task_loss, penalty = step(images, labels, pairs, self._rate(number / steps))
            if number % self.log_every == 0:
                log("train/cross_entropy", task_loss.item(), self._total_steps(task) + number)
                log("train/penalty", penalty.item(), self._total_steps(task) + number)
        step.finish()
        self.hnet.freeze_token(task)
        self.regularizer.end_task(task)

    def _rate(self, done: float) -> float:
        """What the learning rates are multiplied by where this fraction of the steps is done."""
        if self.config.lr_schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * done))

    def _total_steps(self, task: int) -> int:
        """Optimiser steps on all tasks before this one."""
        return sum(self.config.steps(earlier) for earlier in range(task))

    def _checkpoint(self, R: np.ndarray, num_learned: int, seconds: dict, history: list) -> dict:
        return {
            "hnet": self.hnet.state_dict(),
            "regularizer": self.regularizer.state(),
            "R": torch.from_numpy(R),
            "num_learned": num_learned,
            "seconds": seconds,
            "history": history,
        }

    def _restore(self, run: runs.Run) -> dict:
        num_tasks = self.config.num_tasks
        state = run.load_checkpoint(self.config.device)
        if state is None:
            nothing = torch.full((num_tasks, num_tasks), float("nan"), dtype=torch.float64)
            seconds = {"train": 0.0, "eval": 0.0}
            return {"R": nothing, "num_learned": 0, "seconds": seconds, "history": []}
        self.hnet.load_state_dict(state["hnet"])
        self.regularizer.load_state(state["regularizer"])
        for task in range(state["num_learned"]):
            self.hnet.freeze_token(task)
        return state | {"R": state["R"].cpu()}

    def _results(self, metrics: dict, R: np.ndarray, seconds: dict) -> dict:
        trainable = sum(p.numel() for p in self.hnet.parameters())
        return {
            **metrics,
            "train_seconds": seconds["train"],
            "eval_seconds": seconds["eval"],
            "trainable": trainable,
            "num_weights": self.hnet.num_weights,
            "R": runs.matrix_rows(R),
        }
