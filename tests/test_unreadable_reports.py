"""Chapters, summaries and recorded runs that cannot be read or written: named in one line."""

import errno
import os

import pytest
from conftest import one_line

from hnetlib.experiment import data, paths

ROOT = paths.PACKAGE.parent


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
