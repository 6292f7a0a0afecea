"""Tasks learned apart: in any order, by many workers, with the bytes they would have in one.

Where the generator is frozen (`generator_tasks`), a task reads what is frozen and its own random
streams, which depend on the seed and on it alone. So each task's tokens are a file of their own:

    <place>/taught.pt     the network once the generator is frozen, without later tasks' tokens
    <place>/task-17.pt    tokens, selection and accuracy of a task, and a digest of what taught it

What is there is not made again, so what was stopped goes on with the same call. As a run's, the
files of a place are of one code, one data set and one version of PyTorch.
"""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from hnetlib.experiment import evaluation, sweep
from hnetlib.experiment.config import Config
from hnetlib.experiment.data import load_data
from hnetlib.experiment.files import locked, read_sound, write_tensors
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.runs import identity_of
from hnetlib.experiment.step import prepare_torch
from hnetlib.experiment.tasks import PermutedTasks

TAUGHT = ("network", "settings")  # what the files hold
OF_TASK = ("tokens", "chosen", "accuracy", "seconds", "taught_by", "task")
TASKS_A_JOB = 10  # a job reads images and builds the network first


def learn_apart(
    config: Config, place: Path, workers: int = 1, scheduler: str | None = None
) -> Learner:
    """Learns all tasks of a config by so many processes, or by the workers of a Dask cluster.

    Each has the config's threads. `scheduler`: of that cluster, as in `sweep.outcomes`; `place`
    is then on the disk that its workers share. ValueError where tasks are not independent: without
    `generator_tasks`, or where `place` holds files of other settings; SweepError where some could
    not be learned.
    """
    if config.method != "hnet":
        raise ValueError(f"method: expected hnet, got {config.method}")
    if not 1 <= config.generator_tasks <= config.num_tasks:
        raise ValueError(
            f"generator_tasks: expected 1 to {config.num_tasks}, got {config.generator_tasks}"
        )
    place = Path(place).resolve()  # a worker may have begun elsewhere
    place.mkdir(parents=True, exist_ok=True)
    teacher = taught_by(taught(config, place))
    later = range(config.generator_tasks, config.num_tasks)
    # looked at before anything else is learned
    left = [task for task in later if learned_task(place / f"task-{task}.pt", teacher) is None]
    jobs = [left[first : first + TASKS_A_JOB] for first in range(0, len(left), TASKS_A_JOB)]
    landed = sweep.outcomes(
        partial(learn_some, config, place),
        jobs,
        label=lambda number: f"tasks {jobs[number][0]} to {jobs[number][-1]}",
        said=lambda accuracy: f"{accuracy:.2%} when learned",
        workers=workers,
        scheduler=scheduler,
    )
    for _ in sweep.values(landed):
        pass
    return gathered(config, place)


def taught(config: Config, place: Path) -> Learner:
    """A learner whose generator is frozen: from its file, or by learning the first tasks."""
    learner = learner_of(config)
    with locked(place / "taught.lock", f"{place.name}: what is taught first"):
        kept = _whole(place / "taught.pt", TAUGHT, config.device)
        if kept is None:
            few = learner_of(replace(config, num_tasks=config.generator_tasks))
            for task in range(config.generator_tasks):
                few.learn_task(task)
            kept = {"network": few.network.state_dict(), "settings": settings_of(learner)}
            write_tensors(place / "taught.pt", kept)
    theirs, mine = kept["settings"], settings_of(learner)
    if theirs != mine:
        other = [name for name, value in mine.items() if theirs.get(name) != value]
        raise ValueError(
            f"place: expected {place} to be of the same settings, got others: {', '.join(other)}"
        )
    learner.network.load_state_dict(kept["network"])
    return learner


def taught_by(learner: Learner) -> str:
    """A digest of the settings and the frozen generator, which every task's file is of."""
    digest = hashlib.sha256(repr(settings_of(learner)).encode())
    for parameter in learner.hnet.shared_parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def learned_task(path: Path, teacher: str, device: str = "cpu") -> dict | None:
    """What a task's file has; None where there is none, or no whole one, which is set aside.

    ValueError where another generator taught it.
    """
    kept = _whole(path, OF_TASK, device)
    if kept is not None and path.stem != f"task-{kept['task']}":
        raise ValueError(f"place: expected {path.name} to be of that task, got {kept['task']}")
    if kept is not None and kept["taught_by"] != teacher:
        raise ValueError(
            f"place: expected {path.name} to be of the settings and the generator in taught.pt, "
            f"got others; without it the task is learned again: {path}"
        )
    return kept


def _whole(path: Path, parts: tuple[str, ...], device: str = "cpu") -> dict | None:
    """What a file has, if it has these parts; None where there is none, or it is set aside."""
    return read_sound(
        path, device, lambda kept: None if kept.keys() >= {*parts} else "it is damaged"
    )


def settings_of(learner: Learner) -> dict:
    """What all files of a place share: more tasks may follow, elsewhere."""
    identity = identity_of(learner.config, learner.tasks.data.checksum)
    settings = identity.pop("config")
    del settings["num_tasks"]
    return settings | identity


def learn_some(config: Config, place: Path, tasks: Iterable[int]) -> float:
    """Learns those of the tasks that have no file yet; their mean accuracy."""
    learner, accuracies = taught(config, place), []
    hnet, teacher = learner.hnet, taught_by(learner)
    for task in tasks:
        path = place / f"task-{task}.pt"
        there = learned_task(path, teacher)
        if there is not None:
            accuracies.append(there["accuracy"])
            continue
        start = time.perf_counter()
        learner.learn_task(task)
        seconds = time.perf_counter() - start
        right = evaluation.evaluate_task_aware(hnet, learner.tasks, task + 1, task, 1)
        kept = {"tokens": hnet.task_tokens[task].detach(), "chosen": hnet.selections.of(task)}
        accuracies.append(float(right[0]))
        kept |= {"accuracy": accuracies[-1], "seconds": seconds, "taught_by": teacher}
        kept |= {"task": task}
        write_tensors(path, kept)
    return sum(accuracies) / len(accuracies)


def gathered(config: Config, place: Path) -> Learner:
    """A learner with what all files say; `accuracies`: of each of those tasks when learned."""
    learner = taught(config, place)
    hnet, teacher = learner.hnet, taught_by(learner)
    learner.accuracies = {}
    for task in range(config.generator_tasks, config.num_tasks):
        kept = learned_task(place / f"task-{task}.pt", teacher, config.device)
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
