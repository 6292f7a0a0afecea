"""Runs: the same bytes each time, resumed as if never stopped, kept apart when they differ."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest
import torch
from conftest import without_times

from hnetlib.experiment import files, runs
from hnetlib.experiment.continual import ContinualLearner
from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.tasks import PermutedTasks


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


def test_a_longer_run_takes_no_checkpoint_of_another_one(tiny):
    short, other = (train_or_load(tiny(num_tasks=2, seed=seed), progress=False) for seed in (0, 7))
    shutil.copy(other.directory / "checkpoint.pt", short.directory / "checkpoint.pt")
    long = train_or_load(tiny(num_tasks=4), progress=False)
    assert np.array_equal(short.matrix, long.matrix[:2, :2], equal_nan=True)
    (short.directory / "checkpoint.pt").unlink()
    torch.save({"something": "else"}, short.directory / "checkpoint.pt")
    assert train_or_load(tiny(num_tasks=3), progress=False).results


def test_another_seed_gives_other_numbers(tiny):
    one, two = (train_or_load(tiny(seed=seed), progress=False) for seed in (0, 1))
    assert one.directory != two.directory
    assert not torch.equal(load_hnet(one).output_layer.weight, load_hnet(two).output_layer.weight)


@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
def test_a_stopped_run_resumes_as_if_never_stopped(tiny, assert_resumes, snapshot):
    assert_resumes(tiny(num_tasks=4, snapshot=snapshot), Learner)


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
        runs.Run(tiny(), "other data").name,
        runs.Run(tiny(method="joint-plain"), "data").name,
    }
    monkeypatch.setattr(runs, "code_hash", lambda method: "other code")
    names.add(runs.Run(tiny(), "data").name)
    monkeypatch.setattr(torch, "__version__", "99.0+cpu")
    names.add(runs.Run(tiny(), "data").name)
    assert len(names) == 6


def test_a_finished_run_is_found_whatever_threads_device_or_name_of_its_settings(tiny, monkeypatch):
    done = train_or_load(tiny(), progress=False)
    monkeypatch.setattr(Learner, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(torch, "__version__", torch.__version__.split("+")[0] + "+another.build")
    for other in (tiny(threads=2), dataclasses.replace(tiny(), profile="laptop")):
        found = train_or_load(other, progress=False)
        assert (found.directory, found.results) == (done.directory, done.results)


def test_learning_one_task_leaves_all_other_tokens_alone(tiny):
    config = tiny()
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), config.num_tasks))
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


@pytest.mark.parametrize(
    "settings",
    [{}, {"snapshot": "at_learning", "penalty": "all"}, {"method": "si"}, {"method": "ewc"}],
    ids=str,
)
def test_a_run_of_more_tasks_goes_on_from_one_of_fewer(tiny, monkeypatch, tmp_path, settings):
    whole = train_or_load(tiny(num_tasks=4, **settings), progress=False)
    monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "elsewhere"))
    train_or_load(tiny(num_tasks=3, **settings), progress=False)
    learned = []
    learn = ContinualLearner.learn_task
    spy = lambda self, task, *rest: (learned.append(task), learn(self, task, *rest))  # noqa: E731
    monkeypatch.setattr(ContinualLearner, "learn_task", spy)
    grown = train_or_load(tiny(num_tasks=4, **settings), progress=False)
    assert learned == [3]
    assert grown.results["R"] == whole.results["R"]
    states = [run.load_checkpoint()["network"] for run in (whole, grown)]
    assert all(torch.equal(*(state[name] for state in states)) for name in states[0])


def test_runs_that_differ_otherwise_or_have_no_order_start_anew(tiny, monkeypatch):
    checksum = load_data("mnist5k").checksum
    train_or_load(tiny(num_tasks=2, beta=0.3), progress=False)
    assert runs.Run(tiny(num_tasks=4, beta=0.3), checksum).load_shorter()["num_learned"] == 2
    for other in ({"beta": 0.2}, {"beta": 0.3, "eval_every": 3}):
        assert runs.Run(tiny(num_tasks=4, **other), checksum).load_shorter() is None
    assert runs.Run(tiny(num_tasks=4, beta=0.3), "other data").load_shorter() is None
    whole = tiny(num_tasks=3, method="joint-plain")
    after = train_or_load(tiny(num_tasks=2, method="joint-plain"), progress=False)
    grown = train_or_load(whole, progress=False).results["R"]
    monkeypatch.setenv("HNETLIB_RUNS", str(after.directory.parent / "elsewhere"))
    assert train_or_load(whole, progress=False).results["R"] == grown


def test_nan_is_null_in_json(tmp_path):
    content = {"a": float("nan"), "b": [np.float64("inf"), np.int64(3)], "c": {"d": -np.inf}}
    files.write_json(tmp_path / "x.json", content)
    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": None, "b": [None, 3], "c": {"d": None}}
