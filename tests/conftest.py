"""Shared fixtures: every test keeps its runs and logs to itself."""

import pytest
import torch

from hnetlib.experiment import mnist_files, paths
from hnetlib.experiment.config import make_config
from hnetlib.experiment.learner import train_or_load

MNIST_IS_HERE = all(mnist_files.place_of(paths.data_dir(), name) for name in mnist_files.FILES)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Runs and logs of a test land in its own temporary directory."""
    monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HNETLIB_LOGS", str(tmp_path / "logs"))
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    """A factory of small configs on mnist5k: seconds to train."""

    def make(profile="smoke-plain", **settings):
        return make_config(profile, "mnist5k", **{"threads": 1, "steps_per_task": 20, **settings})

    return make


@pytest.fixture
def assert_resumes(tmp_path, monkeypatch):
    """Checks that a run which is stopped at its third task resumes as if it never was."""

    def check(config, learner):
        whole = train_or_load(config, progress=False)
        monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "stopped"))
        learn_task = learner.learn_task

        def stop_at_third(self, task, *rest):
            if task == 2:
                raise KeyboardInterrupt
            learn_task(self, task, *rest)

        monkeypatch.setattr(learner, "learn_task", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            train_or_load(config, progress=False)
        monkeypatch.setattr(learner, "learn_task", learn_task)
        resumed = train_or_load(config, progress=False)
        assert without_times(resumed.results) == without_times(whole.results)
        old, new = (run.load_checkpoint()["network"] for run in (whole, resumed))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)

    return check


def without_times(results):
    """What two equal runs have in common of their results."""
    return {name: value for name, value in results.items() if not name.endswith("_seconds")}


def pytest_runtest_setup(item):
    """Tests marked `mnist` need all of MNIST, on this disk: none of them downloads it."""
    if item.get_closest_marker("mnist") and not MNIST_IS_HERE:
        pytest.skip(f"needs MNIST's four files in {mnist_files.raw_dir(paths.data_dir())}")
