"""Shared fixtures: every test keeps its runs and logs to itself."""

import pytest
import torch

from hnetlib.config import make_config


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Runs and logs of a test land in its own temporary directory."""
    monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HNETLIB_LOGS", str(tmp_path / "logs"))
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    """A factory of small configs on the bundled digits: seconds to train."""

    def make(profile="smoke-plain", **settings):
        return make_config(profile, "digits", **{"threads": 1, "steps_per_task": 20, **settings})

    return make
