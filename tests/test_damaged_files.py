"""Files of runs and networks that are not whole, or not readable now: named, and nothing lost."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, one_line, slow, without_times

from hnetlib.experiment import files, hnets, learner, paths, runs
from hnetlib.experiment.config import make_config
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import train_or_load
from hnetlib.train import main

ROOT = paths.PACKAGE.parent


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


@pytest.fixture
def done(tiny):
    return train_or_load(tiny(steps_per_task=10), progress=False)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"x"), Path.unlink])
def test_the_network_of_a_finished_run_is_its_last_or_an_error(done, damage):
    """The checkpoint before the last lacks a task: its network is not that of the results."""
    load_hnet(done)
    damage(done.directory / "checkpoint.pt")
    with pytest.raises(files.RunError, match="not its trained network any more"):
        load_hnet(done)
    assert done.finished
    assert (done.directory / "checkpoint.previous.pt").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate\nmemory")]
)
def test_a_whole_checkpoint_stays_where_memory_is_short(done, monkeypatch, capsys, error):
    (done.directory / "metrics.json").unlink()

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    assert main(QUICK) == 1
    assert one_line(capsys).startswith(f"error: {done.directory / 'checkpoint.pt'} can't be loaded")
    assert (done.directory / "checkpoint.pt").exists()
    assert not (done.directory / "checkpoint.damaged.pt").exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_results_that_cannot_be_read_now_are_not_made_again(done, monkeypatch, capsys, number):
    real = Path.read_text

    def refuse(self, *args, **kwargs):
        if self.name == "metrics.json":
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Learner, "train", lambda *_: pytest.fail("trained again"))
    assert main(QUICK) == 1
    assert one_line(capsys).startswith(f"error: {done.directory / 'metrics.json'} can't be read")
    assert (done.directory / "metrics.json").exists()


@pytest.mark.parametrize("name", sorted(runs.RESULTS))
def test_results_without_a_key_that_is_read_are_not_whole(done, capsys, name):
    kept = {key: value for key, value in done.results.items() if key != name}
    (done.directory / "metrics.json").write_text(json.dumps(kept))
    assert main(QUICK) == 0
    assert "metrics.json is not used: results that are not whole" in one_line(capsys)


def test_side_files_of_killed_processes_go(done):
    (done.directory / "metrics.json").unlink()
    (done.directory / ".checkpoint.pt.99999.part").write_bytes(b"half")
    train_or_load(done.config, progress=False)
    assert not list(done.directory.glob(".*.part"))


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


@pytest.mark.parametrize("flaw", ["flipped", "keys", "shapes", "no dictionary"])
def test_another_damage_of_a_trained_hypernetwork_is_named(tmp_path, monkeypatch, flaw):
    source = paths.reference_dir("laptop") / "hnet.pt"
    kept, content = torch.load(source), bytearray(source.read_bytes())
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    place = tmp_path / "laptop" / "hnet.pt"
    place.parent.mkdir()
    if flaw == "flipped":
        content[len(content) // 2] ^= 1
        place.write_bytes(content)
    else:
        kept["config"]["num_tasks"] = 3
        torch.save({"keys": {"x": 1}, "shapes": kept}.get(flaw, [1]), place)
    with pytest.raises(files.RunError, match=r"hnet.pt is damaged: get it again"):
        hnets.load("laptop")
