"""`python -m hnetlib.train`: help that explains everything, errors of one line, logs to read."""

import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from hnetlib.experiment.config import Config
from hnetlib.experiment.profiles import BASELINES
from hnetlib.train import main, parse


def test_help_lists_every_setting_with_meaning_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in fields(Config):
        assert f"--{field.name}" in text
    assert "(default: 100)" in text
    assert "Tasks learned one after the other" in " ".join(text.split())


def test_explicit_settings_win_over_the_profile():
    config = parse(["--profile", "smoke", "--num_tasks", "2", "--hnet_hidden", "9", "8"])
    assert (config.num_tasks, config.hnet_hidden, config.dataset) == (2, (9, 8), "mnist5k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_tasks", "0"], "num_tasks: expected a whole number of at least 1, got 0"),
        (["--beta", "-1"], "beta: expected a number of at least 0, got -1.0"),
        (["--num_chunks", "99999999"], "num_chunks: expected at most one chunk"),
        (["--profile", "huge"], "profile: expected one of laptop, smoke, laptop-plain"),
        (["--method", "lwf"], "method: expected one of hnet, joint-hnet, joint-plain"),
        (["--dataset", "cifar"], "dataset: expected one of auto, mnist, mnist5k"),
    ],
)
def test_wrong_settings_end_with_one_line(capsys, arguments, message):
    base = [] if "--profile" in arguments else ["--profile", "smoke"]
    assert main([*base, *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {message}")


def test_a_method_starts_from_what_was_chosen_for_it(capsys):
    config = parse(["--profile", "smoke", "--method", "ewc", "--lr", "0.02"])
    assert (config.method, config.lr) == ("ewc", 0.02)
    assert config.strength == BASELINES["ewc"]["strength"] != Config.strength
    short = ["--threads", "1", "--steps_per_task", "5"]
    assert main(["--profile", "smoke", "--method", "joint-plain", *short]) == 0
    assert "BWT" not in capsys.readouterr().out


def test_trains_and_logs_what_it_reports(capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from hnetlib.experiment.learner import train_or_load

    arguments = ["--profile", "smoke", "--threads", "1", "--steps_per_task", "20"]
    assert main(arguments) == 0
    run = train_or_load(parse(arguments), progress=False)
    printed = capsys.readouterr().out
    assert f"ACC {run.results['acc']:.2%}" in printed
    log = EventAccumulator(str(run.log_dir)).Reload()
    points = log.Scalars("tasks/accuracy")
    assert [point.step for point in points] == [1, 2, 3]
    assert points[-1].value == pytest.approx(run.results["acc"])
    assert log.Scalars("final/acc")[-1].value == pytest.approx(run.results["acc"])
    assert "config" in log.Tags()["tensors"]
    assert "R" in log.Tags()["images"]


def test_an_unknown_setting_is_named():
    with pytest.raises(ValueError, match="expected those that --help lists, got --num_tsks"):
        parse(["--profile", "smoke", "--num_tsks", "3"])


def test_help_for_a_reader_that_stops_early_says_nothing_else():
    command = f"{shlex.quote(sys.executable)} -m hnetlib.train --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage:")
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--target", "mlp-99999999999999999999999"],
            "target: expected layers of at most 1,000,000",
        ),
        (["--task_token_dim", "100000000000000"], "the settings need more memory than there is"),
    ],
)
def test_sizes_that_no_machine_has_are_one_line(arguments, line, capsys):
    assert main(["--profile", "smoke", "--dataset", "mnist5k", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
