"""What every script here is given and measured with: tasks, their batches, an evaluation, a clock.

    python -m report.peers.stream ours '{"num_tasks": 2, "steps": 20}'

trains one script in this process alone and prints what was measured, as JSON in the last line.
"""

import contextlib
import importlib.util
import inspect
import json
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hnetlib.experiment.data import ImageData, load_data
from hnetlib.experiment.evaluation import accuracy
from hnetlib.experiment.tasks import PermutedTasks, seeded_generator
from report.peers.memory import forget_peak, peak_megabytes

# Avalanche imports them with all its metrics, data sets and strategies, and ours uses none of
# those: where one is not installed, an empty module stands for it.
NOT_NEEDED = ("wandb", "GPUtil", "gdown", "qpsolvers")
FIRST_TASK_FACTOR = 2  # steps on the first task, as a multiple, as in our profiles
DEFAULTS = {
    "dataset": "mnist",
    "split": "test",
    "num_tasks": 10,
    "steps": 400,
    "first_task_factor": FIRST_TASK_FACTOR,
    "batch_size": 512,
    "seed": 0,
    "permutation_seed": 0,
    "threads": 1,
    "padding": 0,  # black pixels added on each side of an image
    "changes": {},
}


@dataclass(frozen=True)
class Stream:
    """The tasks, one after the other: batches of each, or all its images."""

    tasks: PermutedTasks
    steps_per_task: int
    batch_size: int
    seed: int = 0
    first_task_factor: int = FIRST_TASK_FACTOR

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return self.tasks.num_tasks

    @property
    def num_pixels(self) -> int:
        """D, the length of an image."""
        return self.tasks.data.num_pixels

    def steps(self, task: int) -> int:
        """Optimiser steps on this task."""
        return self.steps_per_task * (self.first_task_factor if task == 0 else 1)

    def batches(self, task: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The task's batches, images [B, D] and labels [B]: the same for every script."""
        generator = seeded_generator(self.seed, task)
        return self.tasks.train_batches(task, self.batch_size, self.steps(task), generator)

    def training_set(self, task: int) -> tuple[Tensor, Tensor]:
        """All training images [N, D] of the task, and labels [N]."""
        data = self.tasks.data
        return data.train_images[:, self.tasks.permutation(task)], data.train_labels

    def epochs(self) -> int:
        """Passes over the training images that are enough for the steps on any task."""
        return 1 + self.steps(0) * self.batch_size // len(self.tasks.data.train_labels)

    def stop_after_steps(self) -> "StopAfterSteps":
        """For a library that counts epochs: a plugin that ends each task after its steps."""
        return StopAfterSteps(self)


class StopAfterSteps:
    """An Avalanche plugin: stops the training on a task after as many steps as the others take."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.task, self.done = stream, -1, 0

    def before_training_exp(self, strategy, **kwargs) -> None:
        """A task begins."""
        self.task, self.done = self.task + 1, 0

    def after_training_iteration(self, strategy, **kwargs) -> None:
        """A step is done."""
        self.done += 1
        if self.done == self.stream.steps(self.task):
            strategy.stop_training()


def accuracies(stream: Stream, predict: Callable[[int, Tensor], Tensor]) -> list[float]:
    """Accuracy on each task, told which it is, by `predict`, from task and images to logits."""
    found = []
    for task in range(stream.num_tasks):
        images, labels = stream.tasks.eval_set(task)
        found.append(accuracy(lambda some, task=task: predict(task, some), images, labels))
    return found


def measure(script: str, asked: dict) -> dict:
    """Trains one script on the tasks that were asked for: its row."""
    asked = DEFAULTS | asked
    torch.set_num_threads(asked["threads"])
    data = padded(load_data(asked["dataset"], asked["split"]), asked["padding"])
    tasks = PermutedTasks(data, asked["num_tasks"], asked["permutation_seed"])
    names = ("steps", "batch_size", "seed", "first_task_factor")
    stream = Stream(tasks, *(asked[name] for name in names))
    before = forget_peak()
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers use what today's PyTorch and NumPy deprecate
        learn = load_script(script)
        torch.manual_seed(asked["seed"])
        start = time.perf_counter()
        predict = learn(stream, **asked["changes"])
        seconds = time.perf_counter() - start
    peak = peak_megabytes()
    found = accuracies(stream, predict)
    return {
        "acc": sum(found) / len(found),
        "acc_per_task": found,
        "train_seconds": seconds,
        "peak_mb": peak,
        "above_data_mb": peak - before,
        "settings": settings(learn) | asked["changes"],
    }


def padded(data: ImageData, pixels: int) -> ImageData:
    """The same images, [N, D] each, with so many black pixels more on each side."""
    if not pixels:  # no copy, which would count as memory of every library
        return data
    side = data.image_size + 2 * pixels

    def pad(images: Tensor) -> Tensor:
        square = images.view(-1, data.image_size, data.image_size)  # [N, side, side]
        return torch.nn.functional.pad(square, [pixels] * 4).flatten(1)  # [N, D]

    images = {name: pad(getattr(data, name)) for name in ("train_images", "eval_images")}
    return replace(data, image_size=side, **images)


def load_script(script: str) -> Callable:
    """The `learn` of one of the scripts beside this file."""
    if script.startswith("avalanche"):
        for name in NOT_NEEDED:
            if importlib.util.find_spec(name) is None:
                sys.modules[name] = types.ModuleType(name)
    return importlib.import_module(f"report.peers.{script}").learn


def settings(learn: Callable) -> dict:
    """What a script chose: the defaults of its `learn`."""
    parameters = inspect.signature(learn).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
