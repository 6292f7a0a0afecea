"""`Loop`: the steps of one task, watched, logged, and kept now and then, so a kill costs little.

A run's checkpoint is written when a task is learned. A task may take many minutes, so while it is
learned its state goes to a second file, which counts only beside the checkpoint that the task
began from: snapshots and the like are not in it, they are made again from that one.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hnetlib.experiment.data import ImageData
from hnetlib.experiment.evaluation import accuracy
from hnetlib.experiment.runs import Run
from hnetlib.experiment.tasks import seeded_generator, shuffled_batches

LOG_EVERY = 50  # optimiser steps between two points of the training curves
SECONDS_BETWEEN_CHECKPOINTS = 60.0  # within a task; writing one takes about a second
FILE_NAME = "within.pt"
Log = Callable[[str, float, int], None]  # takes tag, value and step


class DivergedError(RuntimeError):
    """A loss or a weight is no finite number; the message says where, in one line."""


def diverged(what: str) -> DivergedError:
    """The error of a training in which `what` is so."""
    return DivergedError(f"training diverged: {what}; a smaller learning rate may help")


class Stateful(Protocol):
    """What changes from step to step: modules, optimizers, an order of images, ..."""

    def state_dict(self) -> dict:
        """All of its state, as tensors and plain values."""

    def load_state_dict(self, state: dict) -> object:
        """Goes on from what `state_dict` returned."""


class WithinTask:
    """Keeps the state within the task that a run is at, and its training time."""

    def __init__(self, run: Run, task: int, device: str) -> None:
        """Reads what a stopped run left of `task`, which its checkpoint says is next."""
        self.run = run
        state = run.load_tensors(FILE_NAME, device)
        self.found = state if state and state["task"] == task else None
        self.history: list = self.found["history"] if self.found else []

    def begin(self, task: int, history: list) -> None:
        """Call before a task; `history` is what the run has logged, and goes on growing."""
        if self.found and self.found["task"] != task:
            self.found = None  # the task it was of is learned
        self.task, self.history = task, history
        self.saved_at = time.perf_counter()
        self.start = self.saved_at - (self.found["seconds"] if self.found else 0.0)

    def seconds(self) -> float:
        """How long the task has taken, what a stopped run had done of it included."""
        return time.perf_counter() - self.start

    def restore(self, keep: Mapping[str, Stateful]) -> int:
        """Puts what was kept in place; returns how many steps of the task are done."""
        if self.found is None:
            return 0
        for name, part in keep.items():
            part.load_state_dict(self.found["kept"][name])
        return self.found["steps"]

    def save_if_due(self, keep: Mapping[str, Stateful], steps: int) -> None:
        """Writes the state after this many steps, if the last time is long ago."""
        if time.perf_counter() - self.saved_at < SECONDS_BETWEEN_CHECKPOINTS:
            return
        kept = {name: part.state_dict() for name, part in keep.items()}
        state = {"task": self.task, "steps": steps, "kept": kept, "history": self.history}
        state["seconds"] = self.seconds()
        self.run.save_tensors(FILE_NAME, state)
        self.saved_at = time.perf_counter()


class Loop:
    """Takes the steps of one task, or those that a stopped run has left."""

    def __init__(
        self,
        task: int,
        log: Log = lambda tag, value, step: None,
        log_every: int = LOG_EVERY,
        within: WithinTask | None = None,
    ) -> None:
        """`within`: None where nothing is to be kept."""
        self.task, self.log, self.log_every, self.within = task, log, log_every, within

    def __call__(
        self,
        steps: int,
        step: Callable[[int], Mapping[str, Tensor]],
        keep: Mapping[str, Stateful],
        first: int,
    ) -> None:
        """Calls `step(number)` for every number below `steps` that is not done yet.

        It returns its losses, each under its tag, which are logged as of step `first + number`.
        `keep` is all that steps change. DivergedError where a loss is not finite.
        """
        done = self.within.restore(keep) if self.within else 0
        for number in range(done, steps):
            losses = step(number)
            due = number % self.log_every == 0
            # reading a loss makes a GPU wait, so there only now and then
            if due or not next(iter(losses.values())).is_cuda:
                self._check(losses, number)
            if due:
                for tag, value in losses.items():
                    self.log(tag, float(value), first + number)
            if self.within and number + 1 < steps:
                self.within.save_if_due(keep, number + 1)

    def _check(self, losses: Mapping[str, Tensor], number: int) -> None:
        for tag, value in losses.items():
            if not math.isfinite(value):
                raise diverged(
                    f"{tag} is {float(value)} at step {number + 1} of task {self.task + 1}"
                )

    def check_weights(self, network: torch.nn.Module) -> None:
        """DivergedError unless every parameter is finite: call it when the task is learned."""
        for name, parameter in network.named_parameters():
            if not parameter.isfinite().all():
                raise diverged(f"{name} is not finite after task {self.task + 1}")


def fit(
    classify: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    data: ImageData,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int = 0,
    points: int = 15,
) -> dict[int, float]:
    """Trains `parameters` by Adam, its rate falling to 0 along half a cosine.

    Returns the accuracy on `data`'s evaluation images, {step: accuracy}, at `points` equal
    distances and always after the last step. The seed decides the batches. DivergedError where the
    loss or a parameter is not finite by then.
    """
    parameters = [*parameters]
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images, labels = data.train_images, data.train_labels
    batches = shuffled_batches(len(labels), batch_size, steps, seeded_generator(seed))
    measured = {}
    for step, indices in enumerate(batches, start=1):
        loss = cross_entropy(classify(images[indices]), labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // points) == 0 or step == steps:
            if not all(tensor.isfinite().all() for tensor in (loss, *parameters)):
                raise diverged(f"not finite after step {step}, the loss is {loss.item()}")
            measured[step] = accuracy(classify, data.eval_images, data.eval_labels)
    return measured
