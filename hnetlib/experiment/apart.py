"""Tasks learned apart: in any order, in many processes, with the bytes they would have in one.

Where the generator is frozen (`generator_tasks`), a task reads what is frozen and its own random
streams, which depend on the seed and on it alone. So each task's tokens are a file of their own:

    <place>/taught.pt     the network once the generator is frozen, without later tasks' tokens
    <place>/task-17.pt    tokens, selection and accuracy of a task

What is there is not made again, so a stopped process goes on with the same call.
"""

import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from hnetlib.experiment import evaluation
from hnetlib.experiment.config import Config
from hnetlib.experiment.data import load_data
from hnetlib.experiment.files import read_tensors, write_tensors
from hnetlib.experiment.learner import Learner
from hnetlib.experiment.step import prepare_torch
from hnetlib.experiment.tasks import PermutedTasks


def learn_apart(config: Config, place: Path, processes: int = 1) -> Learner:
    """Learns all tasks of a config in so many processes, each with the config's threads.

    ValueError where tasks are not independent: without `generator_tasks`.
    """
    if not 1 <= config.generator_tasks <= config.num_tasks:
        raise ValueError(
            f"generator_tasks: expected 1 to {config.num_tasks}, got {config.generator_tasks}"
        )
    place.mkdir(parents=True, exist_ok=True)
    taught(config, place)
    later = range(config.generator_tasks, config.num_tasks)
    parts = [(config, place, list(later)[start::processes]) for start in range(processes)]
    if processes == 1:
        learn_some(*parts[0])
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.starmap(learn_some, parts)
    return gathered(config, place)


def taught(config: Config, place: Path) -> Learner:
    """A learner whose generator is frozen: from its file, or by learning the first tasks."""
    learner = learner_of(config)
    with FileLock(place / "taught.lock"):
        if not (place / "taught.pt").exists():
            few = learner_of(replace(config, num_tasks=config.generator_tasks))
            for task in range(config.generator_tasks):
                few.learn_task(task)
            write_tensors(place / "taught.pt", {"network": few.network.state_dict()})
    state = read_tensors(place / "taught.pt", config.device)["network"]
    learner.network.load_state_dict(state)
    return learner


def learn_some(config: Config, place: Path, tasks: Iterable[int]) -> None:
    """Learns those of the tasks that have no file yet."""
    learner = taught(config, place)
    hnet = learner.hnet
    for task in tasks:
        path = place / f"task-{task}.pt"
        if path.exists():
            continue
        start = time.perf_counter()
        learner.learn_task(task)
        seconds = time.perf_counter() - start
        right = evaluation.evaluate_task_aware(hnet, learner.tasks, task + 1, task, 1)
        kept = {"tokens": hnet.task_tokens[task].detach(), "chosen": hnet.selections.of(task)}
        write_tensors(path, kept | {"accuracy": float(right[0]), "seconds": seconds})


def gathered(config: Config, place: Path) -> Learner:
    """A learner with what all files say; `accuracies`: of each task when it was learned."""
    learner = taught(config, place)
    hnet = learner.hnet
    learner.accuracies = {}
    for task in range(config.generator_tasks, config.num_tasks):
        kept = read_tensors(place / f"task-{task}.pt", config.device)
        if kept["chosen"] is not None:
            hnet.select_chunks(task, kept["chosen"])
        with torch.no_grad():
            hnet.task_tokens[task].copy_(kept["tokens"])
        hnet.freeze_token(task)
        learner.accuracies[task] = kept["accuracy"]
    return learner


def learner_of(config: Config) -> Learner:
    """The untrained learner of a config, with its tasks."""
    prepare_torch(config)
    data = load_data(config.dataset, config.split, config.device)
    return Learner(config, PermutedTasks(data, config.num_tasks, config.permutation_seed))
