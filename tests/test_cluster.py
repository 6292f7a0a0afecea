"""Sweeps on a real Dask cluster of two worker processes; skipped where Dask is not installed."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_sweep import outcome

from hnetlib.experiment import apart, paths, sweep, workers
from hnetlib.experiment.learner import train_or_load

pytest.importorskip("distributed", reason="needs Dask: pip install 'hnetlib[cluster]'")
ROOT = paths.PACKAGE.parent


@pytest.fixture
def cluster(tmp_path):
    """Starts a scheduler and workers; returns its address and the processes of the workers."""
    begun = []

    def start(module, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (tmp_path / f"log-{len(begun)}").open("w") as log:
            begun.append(
                subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
            )
        return begun[-1]

    def make(workers=2, threads=1):
        log = tmp_path / f"log-{len(begun)}"
        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        (address,) = wait_for(lambda: re.findall(r"Scheduler at:\s+(tcp://\S+)", log.read_text()))
        of_each = (address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard")
        return address, [start("dask_worker", *of_each) for _ in range(workers)]

    yield make
    for process in begun:
        process.kill()
        process.wait()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return found


def two_in_training():
    """The runs that have a checkpoint and no results yet, once there is one for each worker."""
    begun = {path.parent for path in paths.runs_dir().glob("*/checkpoint.pt")}
    unfinished = begun - {path.parent for path in paths.runs_dir().glob("*/metrics.json")}
    return unfinished if len(unfinished) == 2 else None


@pytest.mark.slow
def test_a_killed_worker_costs_no_result(tiny, tmp_path, monkeypatch, cluster, capfd):
    configs = [
        tiny(seed=seed, beta=beta, num_tasks=20) for seed in (0, 1, 2) for beta in (0.1, 0.0)
    ]
    address, processes = cluster()
    landing = sweep.train(configs, scheduler=address)
    landed = [next(landing)]
    stopped = wait_for(two_in_training)
    processes[0].send_signal(signal.SIGKILL)
    landed += landing
    assert sorted(one.number for one in landed) == list(range(6))
    assert [one.error for one in landed] == [None] * 6
    assert all((directory / "metrics.json").exists() for directory in stopped)
    assert "6 in all, 6 to do, 2 at a time" in capfd.readouterr().out
    assert len(list(paths.runs_dir().glob("*/metrics.json"))) == 6
    found = {one.number: outcome(one.value) for one in landed}
    monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "undisturbed"))
    for number, config in enumerate(configs):
        assert found[number] == outcome(train_or_load(config, progress=False))


@pytest.mark.slow
def test_two_workers_never_train_one_run(tiny, cluster):
    config = tiny(num_tasks=6)
    address, _ = cluster()
    both = list(sweep.outcomes(sweep.train_quietly, [config, config], scheduler=address))
    assert both[0].value.results == both[1].value.results  # seconds too: it was trained once


@pytest.mark.slow
def test_tasks_that_workers_learn_apart_are_those_of_one_process(tiny, cluster, monkeypatch):
    monkeypatch.setattr(apart, "TASKS_A_JOB", 2)
    config = tiny("tokens-small", num_tasks=7, steps_per_task=5)
    address, _ = cluster()
    both = [
        apart.learn_apart(config, paths.runs_dir() / name, scheduler=scheduler)
        for name, scheduler in (("here", None), ("there", address))
    ]
    here, there = (learner.hnet.state_dict() for learner in both)
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert both[0].accuracies == both[1].accuracies
    assert len(both[0].accuracies) == 6


@pytest.mark.slow
def test_workers_that_cannot_do_the_jobs_are_named_first(tiny, monkeypatch, cluster):
    address, _ = cluster(workers=1, threads=2)
    with pytest.raises(sweep.SweepError, match=r"expected one thread \(--nthreads 1\), got 2"):
        list(sweep.train([tiny()], scheduler=address))
    monkeypatch.setattr(workers, "package_hash", lambda: "of an older version")
    address, _ = cluster(workers=1)
    with pytest.raises(sweep.SweepError, match="expected the same hnetlib as here, got another"):
        list(sweep.train([tiny()], scheduler=address))


def test_the_job_script_for_slurm_is_as_the_readme_says():
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    readme = (ROOT / "README.md").read_text()
    (call,) = re.findall(r"^cluster = (SLURMCluster\([^\n]*\))", readme, re.M)
    with eval(call, {"SLURMCluster": jobqueue.SLURMCluster}) as slurm:
        script = slurm.job_script()
    assert "#SBATCH --cpus-per-task=1" in script
    assert "--nthreads 1" in script
    assert re.search(r"#SBATCH -t \d+:\d+:\d+", script)
