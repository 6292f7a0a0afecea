"""Trained hypernetworks that the repository holds: what comes back is what was trained."""

import json

import pytest
import torch

import hnetlib
from hnetlib.experiment import hnets, paths
from hnetlib.experiment.config import Config
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import train_or_load

RUNS = paths.reference_dir("laptop") / "runs"


def test_a_saved_hypernetwork_comes_back_with_its_tokens_and_settings(monkeypatch, tmp_path, tiny):
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    run = train_or_load(tiny("smoke", steps_per_task=60), progress=False)
    trained = load_hnet(run)
    hnets.save(trained, run.config)
    loaded = hnetlib.load(run.config.profile)
    assert loaded.config == run.config
    assert not any(token.requires_grad for token in loaded.task_tokens)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(FileNotFoundError, match=r"\(smoke\), got 'nothing'"):
        hnetlib.load("nothing")


def test_the_committed_hypernetwork_is_the_recorded_run():
    run = json.loads((RUNS / "hnet-s0.json").read_text())
    hnet = hnetlib.load("laptop")
    assert hnet.config == Config.of_record(run["config"])
    assert hnet.num_tasks == run["config"]["num_tasks"]
    assert run["half_precision_acc"] == pytest.approx(run["results"]["acc"], abs=2e-4)
