"""Many jobs at once: by processes of this machine (joblib), or the workers of a Dask cluster.

What is finished is not begun again, what fails stops nothing else, a job whose process died runs
again (a run goes on from its checkpoint), and a line is printed as each lands.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from hnetlib.experiment import table
from hnetlib.experiment.config import Config, available_cores
from hnetlib.experiment.data import load_data
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.runs import Run
from hnetlib.experiment.stops import stopped_by_sigterm
from hnetlib.experiment.workers import (
    Outcome,
    SweepError,
    Work,
    by_cluster,
    by_processes,
    connected,
    here,
)


def train(
    configs: Sequence[Config], workers: int | None = None, scheduler: str | None = None
) -> Iterator[Outcome]:
    """Outcomes of training, with the `Run` as their value; see `outcomes`."""

    @cache
    def checksum(dataset: str, split: str) -> str:
        return load_data(dataset, split).checksum

    def finished(config: Config) -> Run | None:
        run = Run(config, checksum(config.dataset, config.split))
        return run if run.finished else None

    names = table.differing([config.as_dict() for config in configs]) or ["method", "seed"]

    def label(number: int) -> str:
        return " ".join(f"{name}={getattr(configs[number], name)}" for name in names)

    def said(run: Run) -> str:
        return f"ACC {run.results['acc']:.2%}"

    workers = 1 if scheduler else _workers(workers, len(configs))
    if scheduler or workers > 1:
        configs = [replace(config, threads=1) for config in configs]
    yield from outcomes(train_quietly, configs, finished, label, said, workers, scheduler)


def outcomes(
    work: Work,
    jobs: Sequence,
    finished: Work = lambda job: None,
    label: Callable[[int], str] = str,
    said: Callable[[Any], str] = str,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Outcome]:
    """`work(job)` of every job, as each lands; those first whose value `finished(job)` has already.

    `workers`: processes here, by default one per core; one alone is this very process. `scheduler`:
    of a Dask cluster, tcp://host:8786. `label` names a job by its number, `said` tells a value,
    both in the line that is printed. Raises SweepError, before anything runs.
    """
    found = [finished(job) for job in jobs]
    left = {number: job for number, job in enumerate(jobs) if found[number] is None}
    yield from (Outcome(number, value) for number, value in enumerate(found) if number not in left)
    if not left:
        return
    counted = partial(_counted, total=len(jobs), left=len(left), label=label, said=said)
    if scheduler:
        with connected(scheduler) as client:
            yield from counted(by_cluster(client, work, left), workers=len(client.nthreads()))
        return
    workers = _workers(workers, len(left))
    landed = by_processes(work, left, workers) if workers > 1 else here(work, left)
    with stopped_by_sigterm():  # else the processes would finish what they are at
        yield from counted(landed, workers=workers)


def values(landed: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes that have a value; at the end a SweepError if others have none."""
    failed = []
    for outcome in landed:
        if outcome.error is None:
            yield outcome
        else:
            failed.append(outcome.error)
    if failed:
        raise SweepError(f"{len(failed)} failed, first: {failed[0]}")


def _counted(
    landed: Iterator[Outcome],
    total: int,
    left: int,
    workers: int,
    label: Callable[[int], str],
    said: Callable[[Any], str],
) -> Iterator[Outcome]:
    """The same outcomes, with a line printed before each."""
    before, failed, start = total - left, 0, time.monotonic()
    already = f"{before} finished before, " if before else ""
    print(f"jobs: {total} in all, {already}{left} to do, {workers} at a time", flush=True)
    for landing, outcome in enumerate(landed, start=1):
        failed += outcome.error is not None
        news = said(outcome.value) if outcome.error is None else f"failed: {outcome.error}"
        more = left - landing
        seconds = (time.monotonic() - start) / landing * more
        print(
            f"{before + landing - failed} done, {min(workers, more)} running, {failed} failed, "
            f"{_duration(seconds)} left | {label(outcome.number)}: {news}",
            flush=True,
        )
        yield outcome


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def train_quietly(config: Config) -> Run:
    return train_or_load(config, progress=False)


def _workers(asked: int | None, jobs: int) -> int:
    return max(1, min(asked or available_cores(), jobs))
