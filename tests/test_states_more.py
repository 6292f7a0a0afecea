"""More states of the disk: whole files where memory is short, results without their network."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hnetlib.experiment import data, files, hnets, paths, runs, tracking
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import Learner, train_or_load
from hnetlib.train import main

ROOT = paths.PACKAGE.parent
QUICK = ["--profile", "smoke-plain", "--threads", "1", "--steps_per_task", "10"]


@pytest.fixture
def done(tiny):
    return train_or_load(tiny(steps_per_task=10), progress=False)


def one_line(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


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


def test_a_lock_that_is_refused_is_not_a_disk_without_locks(monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(runs.FileLock, "acquire", refuse)
    monkeypatch.setattr(Learner, "train", lambda *_: pytest.fail("trained"))
    assert main(QUICK) == 1
    assert "lock can't be locked: Permission denied" in one_line(capsys)


def test_side_files_of_killed_processes_go(done):
    (done.directory / "metrics.json").unlink()
    (done.directory / ".checkpoint.pt.99999.part").write_bytes(b"half")
    train_or_load(done.config, progress=False)
    assert not list(done.directory.glob(".*.part"))


def test_a_full_disk_of_logs_is_named(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tracking.RecordWriter, "write", refuse)
    assert main(QUICK) == 1
    line = one_line(capsys)
    assert line.startswith("error: [Errno 28] No space left on device: ")
    assert str(paths.logs_dir()) in line


@pytest.mark.parametrize("arguments", [["--threads", "100000000000"]])
def test_a_number_that_pytorch_refuses_is_one_line(capsys, arguments):
    assert main([*QUICK, *arguments]) in (1, 2)
    assert one_line(capsys).startswith("error: ")


def test_a_stop_while_data_is_looked_for_is_one_line(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hnetlib.train.resolve_dataset", stop)
    assert main(QUICK) == 130
    assert one_line(capsys) == "stopped: nothing was begun"


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


NO_NOTEBOOKS = [
    '{"cells": null}',
    '{"cells": [1]}',
    '{"cells": {}}',
    '{"cells": [{"metadata": null}]}',
    '{"cells": [{"metadata": {"tags": ["parameters"]}}]}',
]


@pytest.mark.parametrize("content", NO_NOTEBOOKS)
def test_what_is_json_and_no_notebook_is_named(tmp_path, capsys, content):
    from report import execute

    source = tmp_path / "01_a.ipynb"
    source.write_text(content)
    assert execute.main([str(source), str(tmp_path / "out.ipynb")]) == 1
    assert one_line(capsys).startswith(f"error: {source}: expected a notebook, got ")
    assert [path.name for path in tmp_path.iterdir()] == ["01_a.ipynb"]


def test_half_a_notebook_of_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    from report import execute

    source, output = tmp_path / "01_a.ipynb", tmp_path / "out.ipynb"
    source.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')

    def run(source, running, *_):
        running.write_text('{"cells": [{"so')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(execute, "_run", run)
    assert execute.main([str(source), str(output)]) == 1
    assert one_line(capsys).startswith("error: 01_a.ipynb: OSError: [Errno 28] No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["01_a.ipynb"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"method": "x", "config": {}}'])
def test_a_recorded_run_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, content):
    from report import reference

    monkeypatch.setattr(reference, "planned", lambda profile: iter(()))
    monkeypatch.setattr(reference, "load_data", lambda *_: data.load_data("mnist5k"))
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    path = tmp_path / "laptop" / "runs" / "hnet-s0.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert reference.main([]) == 1
    assert one_line(capsys).startswith(f"error: {path}: expected a recorded run")
    assert path.read_text() == content


def executed(tmp_path) -> Path:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    source = tmp_path / "01_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print('größe ±')")]), source)
    return source


@pytest.mark.slow
def test_letters_that_the_locale_lacks_stop_no_chapter_and_no_page(tmp_path):
    ascii = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    place = tmp_path / "ü"
    page = ["--profile", "smoke", "--dataset", "mnist5k", "--out", place / "r.html"]
    commands = [
        ["report.execute", executed(tmp_path), place / "01_a.ipynb"],
        ["report.build", *page, place / "01_a.ipynb"],
    ]
    for name, *arguments in commands:
        done = subprocess.run(
            [sys.executable, "-m", name, *arguments], env=ascii, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    assert "größe ±" in (place / "01_a.ipynb").read_text(encoding="utf-8")
    assert (place / "r.html").exists()
