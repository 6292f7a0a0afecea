"""Places, disks and locks that refuse: named in one line, and nothing is lost."""

import errno
import os
import subprocess

import pytest
import torch
from conftest import QUICK, one_line, slow

from hnetlib.experiment import files, paths, tracking
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.train import main


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

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    assert main(QUICK) == 0
    assert "not locked" in capsys.readouterr().out


def test_a_lock_that_is_refused_is_not_a_disk_without_locks(monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    monkeypatch.setattr(Learner, "train", lambda *_: pytest.fail("trained"))
    assert main(QUICK) == 1
    assert "lock can't be locked: Permission denied" in one_line(capsys)


def test_a_full_disk_of_logs_is_named(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tracking.RecordWriter, "write", refuse)
    assert main(QUICK) == 1
    line = one_line(capsys)
    assert line.startswith("error: [Errno 28] No space left on device: ")
    assert str(paths.logs_dir()) in line
