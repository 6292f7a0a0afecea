"""How a sweep grows with its workers, and what a job costs beside its work.

    python -m report.scaling                  # joblib, and Dask where `.[cluster]` is installed

`JOBS` short runs, one thread each, by one worker and by two; jobs that do nothing; and a notebook
by papermill beside the same code in a script. On a machine with nothing else to do. Writes
`report/reference/laptop/scaling.json`, which appendix D reads.
"""

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import nbformat

from hnetlib.experiment import paths, sweep
from hnetlib.experiment.apart import learner_of
from hnetlib.experiment.config import Config, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.profiles import PROFILES
from hnetlib.experiment.provenance import provenance

JOBS, NOTHING, WORKERS = 12, 200, (1, 2)
SETTINGS = {"num_tasks": 3, "steps_per_task": 150, "eval_every": 100}  # several seconds a run


def configs() -> list[Config]:
    """The runs, which differ in their seed."""
    return [
        make_config("laptop", "mnist5k", seed=n, permutation_seed=n, threads=1, **SETTINGS)
        for n in range(JOBS)
    ]


def nothing(job: int) -> int:
    """A job's work, but for all that there is to do."""
    return job


@contextmanager
def elsewhere() -> Iterator[None]:
    """Runs and logs in a directory of their own, so that none is finished already."""
    with tempfile.TemporaryDirectory() as place:
        there = {"HNETLIB_RUNS": f"{place}/runs", "HNETLIB_LOGS": f"{place}/logs"}
        with patch.dict(os.environ, there):
            yield


def seconds_of(work, jobs: list, **engine) -> float:
    """How long all jobs take, the start of the workers included."""
    start = time.perf_counter()
    landed = list(sweep.values(sweep.outcomes(work, jobs, **engine)))
    assert len(landed) == len(jobs)
    return time.perf_counter() - start


def engines(workers: int) -> Iterator[tuple[str, object]]:
    """What there is: a name, and a context that gives the settings of `sweep.outcomes`."""
    yield "joblib", nullcontext({"workers": workers})
    try:
        from distributed import LocalCluster
    except ImportError:
        print("Dask: not installed, left out")
        return

    @contextmanager
    def cluster() -> Iterator[dict]:
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as some:
            yield {"scheduler": some.scheduler_address}

    yield "Dask", cluster()


def measured() -> Iterator[dict]:
    """A row for each engine and number of workers."""
    for workers in WORKERS:
        for name, engine in engines(workers):
            with elsewhere(), engine as chosen:
                work = seconds_of(sweep.train_quietly, configs(), **chosen)
                idle = seconds_of(nothing, list(range(NOTHING)), **chosen)
            row = {"engine": name, "workers": workers, "seconds": round(work, 2)}
            yield row | {"ms_a_job": round(1000 * idle / NOTHING, 2)}


def of_papermill() -> dict:
    """Seconds of an empty notebook by `report.execute`, and of an empty script."""
    with tempfile.TemporaryDirectory() as place:
        book = Path(place) / "empty.ipynb"
        cell = nbformat.v4.new_code_cell("profile = 'smoke'", metadata={"tags": ["parameters"]})
        book.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])), encoding="utf-8")
        command = [sys.executable, "-m", "report.execute", str(book), f"{place}/out.ipynb"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        middle = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        end = time.perf_counter()
    return {"notebook": round(middle - start, 2), "script": round(end - middle, 2)}


def a_task() -> float:
    """Seconds that one thread takes for a task of `tokens-small` once its generator is frozen."""
    full = PROFILES["tokens-small"]["steps_per_task"]
    config = make_config("tokens-small", "mnist5k", num_tasks=6, steps_per_task=full, threads=1)
    learner = learner_of(config)
    seconds = []
    for task in range(config.num_tasks):
        start = time.perf_counter()
        learner.learn_task(task)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> int:
    """Measures everything and writes it; 0."""
    rows = []
    for row in measured():
        rows.append(row)
        print(row, flush=True)
    (config, *_) = configs()
    moved = {"a_job": len(pickle.dumps(config)), "a_result": len(pickle.dumps(_finished(config)))}
    found = {"jobs": JOBS, "settings": SETTINGS, "rows": rows, "empty_seconds": of_papermill()}
    place = paths.reference_dir("laptop") / "scaling.json"
    found |= {"bytes": moved, "seconds_a_task": {"tokens-small": round(a_task(), 2)}}
    write_json(place, found | {"provenance": provenance()})
    return 0


def _finished(config: Config) -> object:
    with elsewhere():
        return sweep.train_quietly(config)


if __name__ == "__main__":
    sys.exit(main())
