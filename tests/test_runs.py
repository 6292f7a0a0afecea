"""Runs: the same bytes each time, resumed as if never stopped, kept apart when they differ."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import without_times

from hnetlib import paths, runs
from hnetlib.data import load_data
from hnetlib.learner import Learner, load_hnet, train_or_load
from hnetlib.tasks import PermutedTasks


def test_learns_keeps_and_reports(tiny):
    """Three tasks on real digits, far above chance, with every file a run promises."""
    run = train_or_load(tiny(steps_per_task=60), progress=False)
    assert run.finished
    assert run.results["acc"] > 0.6
    assert run.matrix.shape == (3, 3)
    assert np.isnan(run.matrix[np.triu_indices(3, 1)]).all()
    assert json.loads((run.directory / "config.json").read_text()) == run.config.as_dict()
    assert {"commit", "torch", "hardware", "date"} <= set(run.provenance)
    assert list(run.log_dir.glob("events.out.tfevents*"))


def test_the_regulariser_is_what_stops_the_forgetting(tiny):
    kept = train_or_load(tiny(num_tasks=4, steps_per_task=60), progress=False)
    lost = train_or_load(tiny(num_tasks=4, steps_per_task=60, beta=0.0), progress=False)
    assert kept.results["bwt"] > lost.results["bwt"] + 0.1


@pytest.mark.parametrize("penalty", ["rows", "tasks", "all"])
@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
def test_same_config_same_bytes(tiny, tmp_path, monkeypatch, penalty, snapshot):
    states, results = [], []
    for place in ("one", "two"):
        monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / place))
        run = train_or_load(tiny(penalty=penalty, snapshot=snapshot), progress=False)
        results.append(without_times(run.results))
        states.append(load_hnet(run).state_dict())
    assert results[0] == results[1]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_shorter_run_is_the_beginning_of_a_longer_one(tiny):
    short, long = (train_or_load(tiny(num_tasks=n), progress=False) for n in (2, 4))
    assert np.array_equal(short.matrix, long.matrix[:2, :2], equal_nan=True)


def test_another_seed_gives_other_numbers(tiny):
    one, two = (train_or_load(tiny(seed=seed), progress=False) for seed in (0, 1))
    assert one.directory != two.directory
    assert not torch.equal(load_hnet(one).output_layer.weight, load_hnet(two).output_layer.weight)


@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
def test_a_stopped_run_resumes_as_if_never_stopped(tiny, assert_resumes, snapshot):
    assert_resumes(tiny(num_tasks=4, snapshot=snapshot), Learner)


def test_a_killed_process_resumes_with_the_same_command(tmp_path):
    """SIGKILL in the middle of training, then the same command: it goes on from its checkpoint."""
    command = [sys.executable, "-m", "hnetlib.train", "--profile", "smoke", "--threads", "1"]
    command += ["--num_tasks", "6", "--steps_per_task", "150"]
    place = tmp_path / "killed"
    environment = os.environ | {"HNETLIB_RUNS": str(place)}
    first = subprocess.Popen(command, env=environment, cwd=paths.PACKAGE.parent)
    deadline = time.monotonic() + 120
    while not list(place.glob("*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (directory,) = place.iterdir()
    assert not (directory / "metrics.json").exists(), "was already finished when it was killed"
    learned = torch.load(directory / "checkpoint.pt", weights_only=True)["num_learned"]
    assert 1 <= learned < 6
    subprocess.run(command, env=environment, cwd=paths.PACKAGE.parent, check=True)
    whole = os.environ | {"HNETLIB_RUNS": str(tmp_path / "whole")}
    subprocess.run(command, env=whole, cwd=paths.PACKAGE.parent, check=True)
    resumed, never_stopped = (
        json.loads((tmp_path / place / directory.name / "metrics.json").read_text())
        for place in ("killed", "whole")
    )
    assert without_times(resumed) == without_times(never_stopped)


def test_a_finished_run_is_read_and_not_trained_again(tiny, monkeypatch):
    first = train_or_load(tiny(), progress=False)

    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Learner, "train", train)
    assert train_or_load(tiny(), progress=False).results == first.results


def test_of_two_that_train_one_run_the_second_waits(tiny, capsys):
    run, order = runs.Run(tiny(), "data"), []

    def second():
        with run.locked():
            order.append("second")

    other = threading.Thread(target=second)
    with run.locked():
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive()
        order.append("first")
    other.join(timeout=30)
    assert order == ["first", "second"]
    assert "waiting for another process" in capsys.readouterr().out


def test_settings_data_and_code_tell_runs_apart(tiny, monkeypatch):
    names = {
        runs.Run(tiny(), "data").name,
        runs.Run(tiny(beta=0.5), "data").name,
        runs.Run(tiny(threads=2), "data").name,
        runs.Run(tiny(), "other data").name,
        runs.Run(tiny(method="joint-plain"), "data").name,
    }
    monkeypatch.setattr(runs, "code_hash", lambda: "other code")
    names.add(runs.Run(tiny(), "data").name)
    assert len(names) == 6


def test_the_code_hash_sees_code_and_not_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)

    def hash_of(source):
        (tmp_path / "module.py").write_text(source)
        return runs.code_hash(("module",))

    plain = hash_of("def f(x):\n    return x + 1\n")
    assert hash_of('def f(x):\n    """Says."""\n    # why\n    return x + 1\n') == plain
    assert hash_of("def f(x):\n    return x + 2\n") != plain


def test_learning_one_task_leaves_all_other_tokens_alone(tiny):
    config = tiny()
    learner = Learner(config, PermutedTasks(load_data("digits"), config.num_tasks))
    before = [token.clone() for token in learner.hnet.task_tokens]
    learner.learn_task(0)
    learner.learn_task(1)
    after_two = [token.clone() for token in learner.hnet.task_tokens]
    learner.learn_task(2)
    after_three = list(learner.hnet.task_tokens)
    assert not torch.equal(after_two[0], before[0])
    assert torch.equal(after_two[2], before[2])
    assert torch.equal(after_three[0], after_two[0])
    assert torch.equal(after_three[1], after_two[1])
    assert not torch.equal(after_three[2], after_two[2])
