"""Who does the jobs of a sweep: this process, joblib's processes, or the workers of a Dask cluster.

A cluster's workers have one thread each, this hnetlib, and `HNETLIB_RUNS` in common with who asks:
a directory in which a file that one writes is seen by all, whole, and locks (`flock`) hold between
machines. All of that is checked before the first job.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from joblib import Parallel, delayed, parallel_config

from hnetlib.experiment import paths
from hnetlib.experiment.files import one_line
from hnetlib.experiment.identity import package_hash

MOST_DEATHS = 3  # of a job's processes; Dask's own number is the same
SECONDS_TO_WAIT = 30  # for a cluster
Work = Callable[[Any], Any]


class SweepError(RuntimeError):
    """A sweep can't begin, or some of its jobs failed; one line."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its value, or one line that says why there is none."""

    number: int
    """Of the job, in the order they were given in."""
    value: Any = None
    error: str | None = None


def _places() -> dict[str, str]:
    """Where this process keeps its files, for others to keep theirs there too."""
    there = {"RUNS": paths.runs_dir(), "LOGS": paths.logs_dir(), "DATA": paths.data_dir()}
    return {f"HNETLIB_{name}": str(place) for name, place in there.items()}


def _attempt(work: Work, number: int, job: object, places: dict[str, str]) -> Outcome:
    os.environ |= places
    try:
        return Outcome(number, work(job))
    except Exception as error:
        return Outcome(number, error=_one_line(error))


def _one_line(error: BaseException) -> str:
    ours = type(error).__module__.split(".")[0] in ("hnetlib", "report")
    return " ".join(f"{'' if ours else type(error).__name__ + ': '}{error}".split())


def here(work: Work, jobs: dict[int, Any]) -> Iterator[Outcome]:
    """One after the other, in this process."""
    return (_attempt(work, number, job, {}) for number, job in jobs.items())


def by_processes(work: Work, jobs: dict[int, Any], workers: int) -> Iterator[Outcome]:
    """By joblib. Where a process dies all that ran are begun again, after the others.

    Which of them it was that died is not known, so the last time they run one by one.
    """
    left, deaths = dict(jobs), Counter()
    while left:
        fewest = min(deaths[number] for number in left)
        again = {number: job for number, job in left.items() if deaths[number] == fewest}
        at_once, running = (workers if fewest < MOST_DEATHS - 1 else 1), set()
        try:
            for outcome in _parallel(workers, at_once)(_calls(work, again, running)):
                running.remove(outcome.number)
                del left[outcome.number]
                yield outcome
        except BrokenProcessPool:
            deaths.update(running)
        for number in [number for number in left if deaths[number] == MOST_DEATHS]:
            del left[number]
            yield Outcome(number, error=f"its process died {MOST_DEATHS} times")


def _calls(work: Work, jobs: dict[int, Any], running: set[int]) -> Iterable:
    """What joblib takes one by one, as workers get free; `running` grows by what it has taken."""
    places = _places()
    for number, job in jobs.items():
        running.add(number)
        yield delayed(_attempt)(work, number, job, places)


def _parallel(workers: int, at_once: int) -> Parallel:
    with parallel_config(backend="loky", inner_max_num_threads=1):
        return Parallel(
            n_jobs=workers, batch_size=1, pre_dispatch=at_once, return_as="generator_unordered"
        )


def by_cluster(client: Any, work: Work, jobs: dict[int, Any]) -> Iterator[Outcome]:
    """By Dask's futures, which cost a job less than its backend of joblib, and fail one by one.

    Who stops asking takes back what waits; what runs on the workers is still finished.
    """
    from dask.distributed import as_completed

    places = _places()
    futures = {
        client.submit(_attempt, work, number, job, places, pure=False): number
        for number, job in jobs.items()
    }
    for future in as_completed(futures):
        error = future.exception()
        yield Outcome(futures[future], error=_one_line(error)) if error else future.result()
        future.release()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of a Dask scheduler whose workers can do the jobs, else SweepError."""
    try:
        from dask.distributed import Client
    except ImportError:
        raise SweepError("scheduler: expected Dask: pip install 'hnetlib[cluster]'") from None
    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(address, timeout=SECONDS_TO_WAIT))
            client.wait_for_workers(1, timeout=SECONDS_TO_WAIT)
        except (OSError, ValueError, TypeError) as error:
            wrong = f"{address}: expected a scheduler with workers ({_one_line(error)})"
            raise SweepError(wrong) from None
        _check_workers(client)
        yield client


def _check_workers(client: Any) -> None:
    for worker, threads in client.nthreads().items():
        if threads != 1:
            raise SweepError(f"{worker}: expected one thread (--nthreads 1), got {threads}")
    place = paths.runs_dir()
    with one_line(place, "HNETLIB_RUNS names another place"):
        place.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(dir=place, prefix=".probe-") as probe,
            FileLock(probe.name),
        ):
            asked = (probe.name, package_hash(), torch.__version__)
            flaws = client.run(_flaw, *asked, on_error="return")
    for worker, flaw in flaws.items():
        if flaw:  # an error where it has no hnetlib at all
            said = flaw if isinstance(flaw, str) else _one_line(flaw)
            raise SweepError(f"{worker}: {said}")


def _flaw(probe: str, code: str, version: str) -> str | None:
    """Why a worker can't do the jobs of who holds the lock of `probe`; None if it can."""
    place = Path(probe).parent
    if package_hash() != code:
        return "expected the same hnetlib as here, got another"
    if torch.__version__ != version:
        return f"expected PyTorch {version} as here, got {torch.__version__}"
    if not Path(probe).is_file():
        return f"expected {place} to be the same directory as here (HNETLIB_RUNS), got another"
    try:
        FileLock(probe).acquire(timeout=0).lock.release()
    except Timeout:
        return None
    except (OSError, NotImplementedError):
        return f"expected locks in {place}, got none"
    return f"expected locks of {place} to hold between machines, got one that does not"
