"""Training that diverges or is stopped: one line that says so, and what is there goes on."""

import signal
import sys
import time

import pytest
import torch
from conftest import QUICK, one_line, slow, started_to_stop

from hnetlib.experiment import hnet_learner, paths
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.loop import DivergedError
from hnetlib.train import main


@pytest.mark.parametrize(
    ("profile", "method"),
    [
        ("smoke", "hnet"),
        ("smoke-plain", "hnet"),
        ("smoke", "ewc"),
        ("smoke", "separate"),
        slow("smoke-plain", "si-multihead"),
        slow("smoke-plain", "joint-plain"),
    ],
)
def test_what_diverges_stops_with_the_step_and_is_no_result(capsys, profile, method):
    arguments = ["--profile", profile, "--threads", "1", "--method", method, "--lr", "1e30"]
    assert main(arguments) == 1
    line = one_line(capsys)
    assert line.startswith("error: training diverged: ")
    assert "task 1" in line
    assert not list(paths.runs_dir().glob("*/metrics.json"))


def test_finite_nonsense_is_called_by_its_name(capsys):
    assert main([*QUICK, "--method", "si", "--lr", "1e9"]) == 0
    assert one_line(capsys).startswith("warning: that is no better than guessing; is lr too large")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--lr", "1e-9"], "its token did not move"),
        (["--profile", "smoke-plain", "--lr", "1e30", "--first_task_factor", "1"], "diverged"),
        (["--method", "si", "--strength", "1e30"], ""),
        (["--method", "ewc", "--strength", "1e30"], ""),
        (["--head_lr_factor", "1e30"], ""),
    ],
)
def test_rates_without_sense_end_in_a_line_or_a_result(capsys, settings, said):
    status = main([*QUICK, "--steps_per_task", "2", "--num_tasks", "2", *settings])
    lines = capsys.readouterr().err.splitlines()
    if status:
        (line,) = lines
        assert line.startswith("error: ")
        assert said in line
    else:
        assert not said


@pytest.mark.parametrize("variable", ["HNETLIB_RUNS", "HNETLIB_LOGS", "HNETLIB_DATA"])
def test_a_place_that_is_none_is_named(capsys, monkeypatch, tmp_path, variable):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for place in ("~no-such-user/x", str(tmp_path / "one" / "x")):
        monkeypatch.setenv(variable, place)
        dataset = "mnist" if variable == "HNETLIB_DATA" else "mnist5k"
        assert main(["--profile", "smoke", "--dataset", dataset]) != 0
        assert variable in one_line(capsys)


def test_the_last_good_checkpoint_stays_when_a_later_task_diverges(tiny, monkeypatch):
    config, real = tiny(num_tasks=4), hnet_learner.TrainingStep.__call__

    def spoilt(self, *batch):
        loss, penalty = real(self, *batch)
        return (loss * float("nan") if self.task == 2 else loss), penalty

    monkeypatch.setattr(hnet_learner.TrainingStep, "__call__", spoilt)
    with pytest.raises(DivergedError, match="train/cross_entropy is nan at step 1 of task 3"):
        train_or_load(config, progress=False)
    monkeypatch.setattr(hnet_learner.TrainingStep, "__call__", real)
    (directory,) = paths.runs_dir().iterdir()
    assert torch.load(directory / "checkpoint.pt", weights_only=True)["num_learned"] == 2
    assert train_or_load(config, progress=False).finished


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_one_line_and_resumable(tmp_path, number, code):
    command = [sys.executable, "-m", "hnetlib.train", *QUICK, "--num_tasks", "2000"]
    process = started_to_stop(command, number)
    while not list((tmp_path / "runs").glob("*/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error == "stopped: the same command goes on from the last checkpoint\n"


def test_a_stop_while_data_is_looked_for_is_one_line(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hnetlib.train.resolve_dataset", stop)
    assert main(QUICK) == 130
    assert one_line(capsys) == "stopped: nothing was begun"
