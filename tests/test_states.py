"""Every state of the disk and the machine: one line that names what is wrong, nothing lost."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import without_times

from hnetlib.experiment import files, hnets, learner, paths, runs, tracking
from hnetlib.experiment.config import make_config
from hnetlib.experiment.learner import Learner, train_or_load
from hnetlib.experiment.loop import DivergedError
from hnetlib.train import main

ROOT = paths.PACKAGE.parent
QUICK = ["--profile", "smoke-plain", "--threads", "1", "--steps_per_task", "10"]


def slow(*row):
    """A row of a table that `make test-all` runs and `make test` does not."""
    return pytest.param(*row, marks=pytest.mark.slow)


def one_line(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in line
    return line


# Files of a run that are not whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of three tasks, and one that was stopped before its third."""
    place = tmp_path_factory.mktemp("whole")
    config = make_config("smoke-plain", "mnist5k", threads=1, steps_per_task=10)
    with pytest.MonkeyPatch.context() as patch:
        for stage in ("finished", "stopped"):
            patch.setenv("HNETLIB_RUNS", str(place / stage))
            patch.setenv("HNETLIB_LOGS", str(place / f"{stage} logs"))
            if stage == "stopped":
                patch.setattr(Learner, "learn_task", stop_at_third(Learner.learn_task))
            try:
                train_or_load(config, progress=False)
            except KeyboardInterrupt:
                assert stage == "stopped"
    return place


def stop_at_third(learn_task):
    def stopped(self, task, *rest):
        if task == 2:
            raise KeyboardInterrupt
        learn_task(self, task, *rest)

    return stopped


@pytest.fixture
def stage(whole, tmp_path, monkeypatch):
    """Copies one of the two; returns its run."""

    def copy(name):
        shutil.copytree(whole / name, tmp_path / name)
        monkeypatch.setenv("HNETLIB_RUNS", str(tmp_path / name))
        config = make_config("smoke-plain", "mnist5k", threads=1, steps_per_task=10)
        return learner.runs.Run(config, learner.load_data("mnist5k").checksum)

    return copy


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within a tensor: torch.load itself would not notice
    path.write_bytes(content)


def pickled(path):
    torch.save([1, 2, 3], path)


def of_another_run(path):
    torch.save(torch.load(path) | {"run": "00000000"}, path)


PREVIOUS = ("previous there", "previous damaged", "previous absent")
DAMAGED = [(flipped, PREVIOUS[0]), (garbage, PREVIOUS[1]), (empty, PREVIOUS[2])]


@pytest.mark.parametrize(
    ("damage", "others"),
    DAMAGED
    + [
        slow(damage, others)
        for damage in (cut, empty, garbage, flipped, pickled, of_another_run)
        for others in PREVIOUS
        if (damage, others) not in DAMAGED
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_taken(
    stage, whole, capsys, damage, others
):
    run = stage("stopped")
    damage(run.directory / "checkpoint.pt")
    if others == "previous damaged":
        damage(run.directory / "checkpoint.previous.pt")
    elif others == "previous absent":
        (run.directory / "checkpoint.previous.pt").unlink()
    assert main(QUICK) == 0
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == (2 if others == "previous damaged" else 1)
    assert said[0].startswith(f"{run.directory / 'checkpoint.pt'} is not used: it is ")
    assert (run.directory / "checkpoint.damaged.pt").exists()
    (reference,) = (whole / "finished").glob("*/metrics.json")
    assert without_times(run.results) == without_times(json.loads(reference.read_text()))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"acc": 1}', "null", "\x00"])
def test_results_that_are_not_whole_are_not_results(stage, capsys, content):
    run = stage("finished")
    results = run.results
    (run.directory / "metrics.json").write_text(content)
    assert not run.finished
    with pytest.raises(files.RunError, match=r"metrics.json: expected a finished run's results"):
        _ = run.results
    assert main(QUICK) == 0
    assert "metrics.json is not used: results that are not whole" in one_line(capsys)
    assert (run.directory / "metrics.damaged.json").read_text() == content
    assert without_times(run.results) == without_times(results)


@pytest.mark.parametrize("name", ["config.json", "provenance.json", "lock", "checkpoint.pt"])
@pytest.mark.parametrize("damage", [empty, garbage, Path.unlink])
def test_a_finished_run_needs_its_results_alone(stage, capsys, name, damage):
    run = stage("finished")
    (run.directory / name).touch()
    damage(run.directory / name)
    assert main(QUICK) == 0
    assert set(run.origin) >= {"commit", "hardware", "seed"}
    assert capsys.readouterr().err == ""


def test_a_kill_between_the_two_renames_leaves_the_one_before(stage, whole):
    run = stage("stopped")
    os.replace(run.directory / "checkpoint.pt", run.directory / "checkpoint.previous.pt")
    assert run.load_checkpoint()["num_learned"] == 2
    assert main(QUICK) == 0


@pytest.mark.parametrize("damage", [cut, empty, garbage, of_another_run])
def test_a_damaged_state_within_a_task_costs_that_task_alone(stage, whole, capsys, damage):
    run = stage("stopped")
    run.save_tensors("within.pt", {"task": 2})
    damage(run.directory / "within.pt")
    assert main(QUICK) == 0
    assert "within.pt is not used" in one_line(capsys)
    (reference,) = (whole / "finished").glob("*/metrics.json")
    assert without_times(run.results) == without_times(json.loads(reference.read_text()))


# Places


@pytest.mark.parametrize("variable", ["HNETLIB_RUNS", "HNETLIB_LOGS"])
@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/none/x", "{file}", "{file}/x"])
def test_a_place_that_cannot_be_written_stops_before_training(
    tmp_path, monkeypatch, capsys, variable, place
):
    file = tmp_path / "file"
    file.write_text("kept")
    monkeypatch.setenv(variable, place.format(file=file))
    monkeypatch.setattr(Learner, "train", lambda *_: pytest.fail("trained"))
    assert main(QUICK) == 1
    where = {"HNETLIB_RUNS": paths.runs_dir, "HNETLIB_LOGS": paths.logs_dir}[variable]()
    line = one_line(capsys)
    assert line.startswith(f"error: {where}")
    assert f"{variable} names another place" in line
    assert file.read_text() == "kept"


@pytest.mark.parametrize(
    ("number", "when"),
    [(errno.ENOSPC, "during"), (errno.EROFS, "before")]
    + [slow(n, w) for n in (errno.EACCES, errno.EDQUOT, errno.EIO) for w in ("before", "during")],
)
def test_a_disk_that_refuses_is_named_and_nothing_is_lost(
    tmp_path, monkeypatch, capsys, number, when
):
    allowed = 0 if when == "before" else 4  # config, provenance, two checkpoints
    real, written = files._write, []

    def refuse(path, content):
        written.append(path)
        if len(written) > allowed:
            path.write_bytes(b"half")
            raise OSError(number, os.strerror(number), str(path))
        real(path, content)

    monkeypatch.setattr(files, "_write", refuse)
    assert main(QUICK) == 1
    line = one_line(capsys)
    assert os.strerror(number) in line
    assert line.startswith(f"error: {paths.runs_dir()}")
    assert not list(paths.runs_dir().glob("*/*.part")), "a half-written side file stays"
    monkeypatch.setattr(files, "_write", real)
    if when == "during":
        (directory,) = paths.runs_dir().iterdir()
        assert torch.load(directory / "checkpoint.pt", weights_only=True)["num_learned"] == 2
    assert main(QUICK) == 0


@pytest.mark.slow
def test_a_full_disk_is_named(tmp_path, monkeypatch, capsys):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small]).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        monkeypatch.setenv("HNETLIB_RUNS", str(small))
        assert main(QUICK) == 1
        assert "No space left on device" in one_line(capsys)
        assert not list(small.glob("*/.*.part"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_log_that_cannot_be_finished_loses_no_run(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(tracking, "picture", fail)
    assert main(QUICK) == 0
    assert "lacks its end: RuntimeError('no fonts here')" in one_line(capsys)


@pytest.mark.parametrize(
    "error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")]
)
def test_a_file_system_without_locks_trains_all_the_same(monkeypatch, capsys, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(runs.FileLock, "acquire", refuse)
    assert main(QUICK) == 0
    assert "not locked" in capsys.readouterr().out


def test_nan_is_null_in_json(tmp_path):
    content = {"a": float("nan"), "b": [np.float64("inf"), np.int64(3)], "c": {"d": -np.inf}}
    files.write_json(tmp_path / "x.json", content)
    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": None, "b": [None, 3], "c": {"d": None}}


# Training that goes wrong, or is stopped


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
    assert one_line(capsys) == "warning: that is no better than guessing; is lr too large?"


def test_the_last_good_checkpoint_stays_when_a_later_task_diverges(tiny, monkeypatch):
    config, real = tiny(num_tasks=4), learner.TrainingStep.__call__

    def spoilt(self, *batch):
        loss, penalty = real(self, *batch)
        return (loss * float("nan") if self.task == 2 else loss), penalty

    monkeypatch.setattr(learner.TrainingStep, "__call__", spoilt)
    with pytest.raises(DivergedError, match="train/cross_entropy is nan at step 1 of task 3"):
        train_or_load(config, progress=False)
    monkeypatch.setattr(learner.TrainingStep, "__call__", real)
    (directory,) = paths.runs_dir().iterdir()
    assert torch.load(directory / "checkpoint.pt", weights_only=True)["num_learned"] == 2
    assert train_or_load(config, progress=False).finished


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_one_line_and_resumable(tmp_path, number, code):
    command = [sys.executable, "-m", "hnetlib.train", *QUICK, "--num_tasks", "2000"]
    # a suite that a shell started in the background has Ctrl-C ignored, and would hand that on
    before = signal.signal(number, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    signal.signal(number, before)
    while not list((tmp_path / "runs").glob("*/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error == "stopped: the same command goes on from the last checkpoint\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--device", "cuda"],
        ["--device", "tpu"],
        ["--lr", "nan"],
        ["--lr", "inf"],
        ["--beta", "nan"],
    ],
)
def test_what_the_machine_or_the_settings_lack_is_one_line(capsys, arguments):
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert main([*QUICK, *arguments]) == 2
    assert one_line(capsys).startswith(f"error: {arguments[0][2:]}: expected ")


@pytest.mark.parametrize("damage", [cut, empty, garbage, Path.unlink])
def test_a_damaged_trained_hypernetwork_is_named(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    place = tmp_path / "laptop" / "hnet.pt"
    place.parent.mkdir()
    shutil.copy(ROOT / "report" / "reference" / "laptop" / "hnet.pt", place)
    damage(place)
    with pytest.raises((FileNotFoundError, files.RunError), match=r"hnet.pt|got 'laptop'") as error:
        hnets.load("laptop")
    assert "\n" not in str(error.value)


# Reports


@pytest.mark.parametrize(
    "place", ["/dev/null/x/out.ipynb", "/proc/none/out.ipynb", "{file}/x.ipynb"]
)
def test_a_chapter_that_cannot_be_written_is_one_line(tmp_path, capsys, place):
    from report import execute

    (tmp_path / "file").touch()
    source = ROOT / "notebooks" / "01_single_task.ipynb"
    assert execute.main([str(source), place.format(file=tmp_path / "file")]) == 1
    assert one_line(capsys).startswith("error: [Errno ")


@pytest.mark.parametrize("content", ["", "{", "[]", '[{"dataset": "mnist"}]', "[1]", "\0"])
def test_committed_results_that_cannot_be_read_are_named(tmp_path, content):
    from report import results

    summary = tmp_path / "laptop" / "summary.json"
    summary.parent.mkdir()
    summary.write_text(content)
    if content == "[]":
        assert results.read_results(tmp_path, first="laptop") == []
    else:
        with pytest.raises(results.PageError, match=r"summary.json: expected rows of results"):
            results.read_results(tmp_path, first="laptop")


# The reader's own surroundings


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"HOME": "/dev/null/home"},
        {"MPLCONFIGDIR": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
        {"MATPLOTLIBRC": "{tmp}/matplotlibrc"},
        {"OMP_NUM_THREADS": "64"},
    ],
    ids=lambda variables: "-".join(variables),
)
@pytest.mark.slow
def test_surroundings_do_not_stop_a_run(tmp_path, variables):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no such font\n")
    place = tmp_path / "größe"
    variables = {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "hnetlib.train", *QUICK],
        cwd=ROOT,
        env=os.environ | {"HNETLIB_RUNS": str(place)} | variables,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"lacks its end" not in done.stderr
    assert list(place.glob("*/metrics.json"))


def test_figures_do_not_follow_a_readers_matplotlibrc():
    code = (
        "import matplotlib; matplotlib.rcParams['text.usetex'] = True\n"
        "matplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "from hnetlib import plots\n"
        "print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['axes.facecolor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False white\n", done.stderr
