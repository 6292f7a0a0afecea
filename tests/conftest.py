"""Shared fixtures: every test keeps its runs and logs to itself; a data directory, a tiny MNIST."""

import gzip
import hashlib
import signal
import socket
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hnetlib.experiment import data, mnist_files, paths
from hnetlib.experiment.config import make_config
from hnetlib.experiment.learner import train_or_load

MNIST_IS_HERE = all(mnist_files.place_of(paths.data_dir(), name) for name in mnist_files.FILES)
QUICK = ["--profile", "smoke-plain", "--threads", "1", "--steps_per_task", "10"]
FIRST_FILE = "train-images-idx3-ubyte"


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


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty data directory, and no mirror that answers."""
    monkeypatch.setenv("HNETLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mnist_files, "MIRRORS", (refusing_mirror(),))
    return tmp_path / "data" / "MNIST" / "raw"


@pytest.fixture
def archives(place, tmp_path, monkeypatch) -> Path:
    """A directory to serve: a tiny MNIST (20 and 12 images), and the md5s to expect of it."""
    rng = np.random.default_rng(0)
    served, files, resources = tmp_path / "served", {}, []
    served.mkdir()
    for name in mnist_files.FILES:
        count = 20 if name.startswith("train") else 12
        shape = (count, 28, 28) if "images" in name else (count,)
        content = idx(rng.integers(0, 10, shape, dtype=np.uint8))
        packed = gzip.compress(content, mtime=0)
        files[name] = (len(content), hashlib.md5(content).hexdigest())
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
        (served / f"{name}.gz").write_bytes(packed)
    monkeypatch.setattr(mnist_files, "FILES", files)
    monkeypatch.setattr(mnist_files, "ARCHIVES", tuple(resources))
    monkeypatch.setattr(data, "MNIST_VALIDATION", 5)
    return served


def refusing_mirror() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def slow(*row):
    """A row of a table that `make test-all` runs and `make test` does not."""
    return pytest.param(*row, marks=pytest.mark.slow)


def one_line(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in line
    return line


def started_to_stop(command, number) -> subprocess.Popen:
    """A process that heeds this signal."""
    # a suite that a shell started in the background has Ctrl-C ignored, and would hand that on
    before = signal.signal(number, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=paths.PACKAGE.parent, stderr=subprocess.PIPE, text=True)
    signal.signal(number, before)
    return process


def without_times(results):
    """What two equal runs have in common of their results."""
    return {name: value for name, value in results.items() if not name.endswith("_seconds")}


def pytest_runtest_setup(item):
    """Tests marked `mnist` need all of MNIST, on this disk: none of them downloads it."""
    if item.get_closest_marker("mnist") and not MNIST_IS_HERE:
        pytest.skip(f"needs MNIST's four files in {mnist_files.raw_dir(paths.data_dir())}")
