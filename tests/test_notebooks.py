"""Every notebook end to end at `smoke` size, as `make report` runs it, and the page they make."""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from hnetlib.experiment import paths

ROOT = paths.PACKAGE.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder in which each executed notebook and the page land; runs are shared by notebooks."""
    return tmp_path_factory.mktemp("built")


def call(built, *arguments):
    environment = os.environ | {
        "HNETLIB_RUNS": str(built / "runs"),
        "HNETLIB_LOGS": str(built / "logs"),
    }
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow  # tests/test_parameters.py runs most chapters in a process, in less time
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_at_smoke_size(source, built):
    parameters = ("-p", "profile", "smoke", "-p", "dataset", "mnist5k", "-p", "threads", "1")
    done = call(built, "report.execute", source, built / source.name, *parameters)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(built / source.name, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("application/vnd.hnetlib.headline+json" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_is_as_a_reader_wants_it(source):
    notebook = nbformat.read(source, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "git holds no outputs"
    assert max(len(cell.source.splitlines()) for cell in code if not _is_parameters(cell)) <= 32
    (parameters,) = filter(_is_parameters, code)
    assert {"profile", "dataset"} <= set(re.findall(r"^(\w+) = ", parameters.source, re.M))
    assert not re.search(r"HNETLIB|/home|/Users|/tmp|\.\./", str(notebook.cells))


def test_headings_are_unique_across_notebooks():
    headings = [
        line
        for source in NOTEBOOKS
        for cell in nbformat.read(source, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in re.findall(r"^#+ .*", cell.source, re.M)
    ]
    assert len(headings) == len(set(headings))


@pytest.mark.slow
def test_the_page_is_made_of_all_of_them(built):
    executed = [built / source.name for source in NOTEBOOKS]
    if not all(path.is_file() for path in executed):
        pytest.skip("needs the executed notebooks of this session's other tests")
    page = built / "report.html"
    done = call(
        built, "report.build", "--profile", "smoke", "--dataset", "mnist5k", "--out", page,
        *executed,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    html = page.read_text()
    assert html.count("<article") + html.count('class="chapter"') >= len(NOTEBOOKS)
    assert "<math" in html
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|png)', html)


def test_wrong_settings_stop_a_notebook_in_one_line(built):
    for parameter, message in (
        (("num_tasks", "0"), "num_tasks: expected a whole number of at least 1, got 0"),
        (("num_tsks", "3"), "has no parameter num_tsks; did you mean num_tasks?"),
    ):
        source = ROOT / "notebooks" / "05_regularised.ipynb"
        arguments = (source, built / "wrong.ipynb", "-p", "profile", "smoke", "-p", *parameter)
        done = call(built, "report.execute", *arguments)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert message in line


def _is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])
