"""Sweeps: what a grid means, what is run once, what a dead process costs, and the table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import started_to_stop, without_times
from filelock import FileLock
from test_setup import ROOT, make

from hnetlib.experiment import grid, paths, runs, sweep, table, workers
from hnetlib.experiment.config import make_config
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.learner import train_or_load
from report import sweep as sweep_command
from report.sweep import main

SMALL = ["--profile", "smoke-plain", "--jobs", "1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("beta=0.01,1e-1", [{"beta": 0.01}, {"beta": 0.1}]),
        ("seed=0..2", [{"seed": 0}, {"seed": 1}, {"seed": 2}]),
        ("seed=0..1,7", [{"seed": 0}, {"seed": 1}, {"seed": 7}]),
        ("hnet_hidden=[32,32],[64]", [{"hnet_hidden": [32, 32]}, {"hnet_hidden": [64]}]),
        ("seed+permutation_seed=3", [{"seed": 3, "permutation_seed": 3}]),
        ("method=si,ewc target=mlp-9", [{"method": m, "target": "mlp-9"} for m in ("si", "ewc")]),
        ("look_ahead=true", [{"look_ahead": True}]),
        ("seed=0..1 beta=1,2", [{"seed": s, "beta": b} for s in (0, 1) for b in (1, 2)]),
    ],
)
def test_a_grid_is_all_its_combinations(text, found):
    assert grid.combinations(text) == found


def test_a_run_that_two_grids_ask_for_is_one_row(tmp_path, monkeypatch):
    path = tmp_path / "grid.yaml"
    path.write_text("- {seed: 0, beta: [0.1, 0.2]}\n- {beta: 0.1, seed: 0..1}\n")
    asked = []
    monkeypatch.setattr(sweep_command.sweep, "train", lambda configs, *_: asked.extend(configs))
    options = sweep_command._parse([*SMALL, "--dataset", "mnist5k", str(path)])
    combined = grid.combinations(str(path))
    settings, _ = sweep_command._runs(options, combined)
    assert [(one.seed, one.beta) for one in asked] == [(0, 0.1), (0, 0.2), (1, 0.1)]
    assert [(one["seed"], one["beta"]) for one in combined] == [(0, 0.1), (0, 0.2), (1, 0.1)]
    assert len(settings) == 3
    # a whole number is the same setting
    same = [make_config("smoke", "mnist5k", beta=value) for value in (0, 0.0)]
    assert runs.Run(same[0], "data").digest == runs.Run(same[1], "data").digest


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("beta: 0.1\nseed: 1\nbeta: 0.2\n", "beta comes twice"),
        ("beta:\n", "beta: expected a value, got nothing"),
        ("seed: 0..100000\n", "seed: expected at most 100,000 values, got 0..100000"),
    ],
)
def test_a_line_of_yaml_that_says_nothing_or_too_much_is_named(tmp_path, text, line):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=line):
        grid.combinations(str(path))


def test_a_file_holds_a_grid_or_several_and_each_combination_once(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("seed: 0..1\nlr: [1e-3, 0.01]\nprofile: smoke\n")
    expected = grid.combinations("seed=0..1 lr=1e-3,0.01 profile=smoke")
    assert grid.combinations(str(path)) == expected
    path.write_text("- {method: hnet, beta: [0, 1]}\n- {method: [hnet, ewc], beta: 1}\n")
    assert grid.combinations(str(path)) == [
        {"method": method, "beta": beta} for method, beta in [("hnet", 0), ("hnet", 1), ("ewc", 1)]
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("", "grid: expected name=value,value or name=first..last, got nothing"),
        ("beta", "grid: expected name=value,value or name=first..last, got beta"),
        ("beta=", "beta: expected a value, got nothing"),
        ("beta=0.1,", "beta: expected a value, got nothing"),
        ("seed=2..0", "seed: expected first..last, the last not below the first, got 2..0"),
        ("seed=0,0", "seed: expected different values, got 0 2 times"),
        ("seed=0 beta=1 seed+permutation_seed=1", "seed: expected once in a grid, got it 2 times"),
        ("seed=0..999999", "seed: expected at most 100,000 values"),
        ("seed=0..999 permutation_seed=0..999", "grid: expected at most 100,000 combinations"),
        ("betta=1", "settings: expected names among profile, "),
        ("beta=0.1,-1", "beta: expected a number of at least 0, got -1"),
        ("profile=huge", "profile: expected one of laptop, "),
        ("dataset=cifar", "dataset: expected one of "),
        ("method=magic", "method: expected one of "),
        ("{file}", "grid.yaml: expected a grid in YAML ("),
    ],
)
def test_a_wrong_grid_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, wrong, message):
    monkeypatch.setattr(sweep, "train_or_load", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "grid.yaml").write_text("seed: [0")
    wrong = wrong.format(file=tmp_path / "grid.yaml")
    assert main([*SMALL, "--out", str(tmp_path / "out"), "--", wrong]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_one_table_and_goes_on_from_what_is_finished(tmp_path, monkeypatch, capsys):
    asked = [*SMALL, "--out", str(tmp_path), "beta=0,1", "steps_per_task=5"]
    assert main([*asked, "seed+permutation_seed=0..1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "jobs: 4 in all, 4 to do, 1 at a time"
    assert "4 done, 0 running, 0 failed, 0 s left | beta=1" in said[4]
    rows = table.read(tmp_path)
    assert [(row["beta"], row["n"]) for row in rows] == [(0, 2), (1, 2)]
    jobs = json.loads((tmp_path / "jobs.json").read_text())
    accs = [job["acc"] for job in jobs if job["settings"]["beta"] == 0]
    assert rows[0]["acc_mean"] == pytest.approx(sum(accs) / 2)
    assert rows[0]["acc_std"] == pytest.approx(abs(accs[0] - accs[1]) / 2**0.5)
    with (tmp_path / "table.csv").open() as file:
        assert [float(row["acc_mean"]) for row in csv.DictReader(file)] == [
            row["acc_mean"] for row in rows
        ]
    monkeypatch.setattr(sweep, "train_or_load", lambda *_, **__: pytest.fail("trained again"))
    assert main([*asked, "seed+permutation_seed=0..1"]) == 0
    assert "to do" not in capsys.readouterr().out
    assert table.read(tmp_path) == rows


def test_what_fails_is_listed_and_stops_nothing(tmp_path, capsys):
    asked = ["lr=1e30,1e-3", "steps_per_task=5", "head_optimizer=adam"]
    assert main([*SMALL, "--out", str(tmp_path), *asked]) == 1
    said = capsys.readouterr()
    assert "2 in all" in said.out
    assert "1 done, 0 running, 1 failed" in said.out
    (line,) = said.err.strip().splitlines()
    assert line.startswith("failed: {'lr': 1e+30, ")
    assert "training diverged" in line
    failed, done = json.loads((tmp_path / "jobs.json").read_text())
    assert "diverged" in failed["error"]
    assert done["error"] is None
    assert len(table.read(tmp_path)) == 1


def test_a_row_without_a_value_and_one_run_have_no_spread():
    one = [({"method": "joint", "seed": 0}, {"acc": 0.5, "bwt": None})]
    assert table.tidy(one) == [
        {"n": 1, "acc_mean": 0.5, "acc_std": None, "bwt_mean": None, "bwt_std": None}
    ]


def dies_once(config):
    """Trains; the process that learns the third task with beta 0.1 is killed, the first time."""
    mark, learn_task = paths.runs_dir() / "killed", Learner.learn_task

    def learn(self, task, *rest):
        if task == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with (paths.runs_dir() / "learned").open("a") as file:
            file.write(str(task))
        learn_task(self, task, *rest)

    Learner.learn_task = learn if config.beta == 0.1 else learn_task
    try:
        return train_or_load(config, progress=False)
    finally:
        Learner.learn_task = learn_task


def outcome(run):
    """What must be equal of two runs: results and network, to the bit."""
    network = run.load_checkpoint()["network"]
    return without_times(run.results), {k: v.numpy().tobytes() for k, v in network.items()}


@pytest.mark.slow
def test_three_seeds_and_three_betas_of_a_chapter_are_one_command_and_one_table(tmp_path):
    out = tmp_path / "out"
    asked = ("PROFILE=smoke", "NB=05", "GRID=beta=0.01,0.1,1 seed=0..2 steps_per_task=5")
    places = {"HNETLIB_RUNS": str(tmp_path / "runs"), "HNETLIB_LOGS": str(tmp_path / "logs")}
    done = make(ROOT, "sweep", "ENV=active", "JOBS=2", *asked, f"OUT={out}", **places)
    assert done.returncode == 0, done.stderr
    assert "9 done, 0 running, 0 failed" in done.stdout
    rows = table.read(out)
    assert [(row["beta"], row["n"]) for row in rows] == [(0.01, 3), (0.1, 3), (1, 3)]
    assert all(row["ACC after 3 tasks_std"] > 0 for row in rows)
    assert len(list(out.glob("05_regularised-beta=*-seed=*.ipynb"))) == 9


@pytest.mark.slow
def test_a_killed_process_costs_no_result(tiny, tmp_path, monkeypatch):
    configs = [tiny(beta=beta) for beta in (0.1, 0.0, 0.2)]
    landed = list(sweep.outcomes(dies_once, configs, workers=2))
    assert sorted(one.number for one in landed) == [0, 1, 2]
    assert [one.error for one in landed] == [None] * 3
    # it was killed, and what it had learned by then was not learned again
    assert (paths.runs_dir() / "killed").exists()
    assert (paths.runs_dir() / "learned").read_text() == "012"
    found = {one.number: outcome(one.value) for one in landed}
    monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "undisturbed"))
    for number, config in enumerate(configs):
        assert found[number] == outcome(train_or_load(config, progress=False))


def dies(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, "2"), (signal.SIGINT, "1")])
def test_a_stop_is_one_line_ends_all_processes_and_goes_on(tmp_path, number, jobs):
    command = [sys.executable, "-m", "report.sweep", "--profile", "smoke-plain", "--jobs", jobs]
    command += ["--out", str(tmp_path / "out"), "num_tasks=300,301,302", "steps_per_task=5"]
    process = started_to_stop(command, number)
    begun = paths.runs_dir().glob
    while len(list(begun("*/checkpoint.pt"))) < int(jobs) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "stopped: the same command goes on with what is not finished\n"
    for path in begun("*/lock"):
        with FileLock(path, timeout=10):  # held by nobody that is left
            pass


@pytest.mark.slow
def test_whoever_asks_for_jobs_is_stopped_with_all_its_processes(tmp_path):
    (tmp_path / "jobs.py").write_text(
        "import os, pathlib, time\n"
        "from hnetlib.experiment import sweep\n"
        "def work(number):\n"
        "    pathlib.Path(f'{number}.pid').write_text(str(os.getpid()))\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    list(sweep.outcomes(work, range(2), workers=2))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", "import runpy; runpy.run_module('jobs', run_name='__main__')"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while len(files := [p for p in tmp_path.glob("*.pid") if p.read_text()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) != 0
    waited = time.monotonic() + 20
    for pid in (int(path.read_text()) for path in files):
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < waited:
            time.sleep(0.05)
        assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.slow
def test_a_job_that_kills_every_process_fails_alone():
    landed = sorted(sweep.outcomes(dies, range(3), workers=2), key=lambda one: one.number)
    assert [one.value for one in landed] == [0, None, 2]
    assert landed[1].error == f"its process died {workers.MOST_DEATHS} times"


def test_a_cluster_needs_dask_or_an_answer(monkeypatch, tiny):
    monkeypatch.setattr(workers, "SECONDS_TO_WAIT", 1)
    with pytest.raises(sweep.SweepError, match=r"pip install|expected a scheduler with workers"):
        list(sweep.train([tiny()], scheduler="tcp://127.0.0.1:9"))


def test_a_worker_elsewhere_says_what_it_lacks(tmp_path, monkeypatch):
    probe = tmp_path / "probe"
    here = (workers.package_hash(), workers.torch.__version__)
    assert "to be the same directory as here" in workers._flaw(str(probe), *here)
    probe.touch()
    assert "locks of" in workers._flaw(str(probe), *here)  # nobody seems to hold it
    with workers.FileLock(probe):
        assert workers._flaw(str(probe), *here) is None
        assert "the same hnetlib" in workers._flaw(str(probe), "other", here[1])
        assert "expected PyTorch 1.0" in workers._flaw(str(probe), here[0], "1.0")
