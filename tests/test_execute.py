"""`report/execute.py`: one notebook, executed by this Python, or an error in one line."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from report.execute import (
    NamedLines,
    NotebookError,
    check_parameters,
    known_parameters,
)

ROOT = Path(__file__).resolve().parent.parent

from hnetlib.experiment.values import literal  # noqa: E402

PARAMETERS = (
    "count = 1\nrate: float = 0.5  # of something\nflag = None\nname = 'x'\nsizes = (3,\n 4)"
)
WRONG = "raise ValueError('no\\nway')"


def write(path: Path, *sources: str) -> Path:
    """A notebook of code cells, the first tagged `parameters`."""
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def execute(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "report.execute", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("-1e-3", -1e-3),
        ("true", True),
        ("False", False),
        ("NONE", None),
        ("mnist", "mnist"),
        ("'20'", "20"),
        ("[300, 100]", [300, 100]),
        ("(1, 'a')", (1, "a")),
        ("1-2", "1-2"),
        ("1+2j", "1+2j"),
        ("", ""),
    ],
)
def test_values_keep_their_types(text, value):
    parsed = literal(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_parameters_are_the_names_that_the_cell_assigns(tmp_path):
    source = write(tmp_path / "01_a.ipynb", PARAMETERS, "other = 1")
    assert known_parameters(source) == ["count", "rate", "flag", "name", "sizes"]
    with pytest.raises(NotebookError, match=r"no parameter cuont; did you mean count\?.*sizes"):
        check_parameters(source, {"rate": 1, "cuont": 2})


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "01_a.ipynb").write_text("{")
    for name in ("01_a.ipynb", "02_missing.ipynb"):
        with pytest.raises(NotebookError, match=f"{name}: expected a notebook"):
            known_parameters(tmp_path / name)


def test_parameters_arrive_and_prints_are_shown(tmp_path):
    shown = "print(count, rate, flag, name, sizes)\nimport sys\nprint(sys.executable)"
    source = write(tmp_path / "01_a.ipynb", PARAMETERS, shown, "import os\nprint(os.getcwd())")
    output = tmp_path / "out" / "01_a.ipynb"
    # another Python's kernel, registered for the user, must not be the one that runs
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    elsewhere = {"JUPYTER_PATH": str(tmp_path / "jupyter"), "JUPYTER_PREFER_ENV_PATH": "0"}
    values = [
        "-p",
        "count",
        "-2",
        "-p",
        "rate",
        "-1e-3",
        "-p",
        "flag",
        "true",
        "-p",
        "sizes",
        "[5]",
    ]
    result = execute(
        *values,
        source,
        "-p",
        "sizes",
        "[5]",
        output,
        "-p",
        "name",
        "y",
        "-p",
        "count",
        "7",
        **elsewhere,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert f"7 -0.001 True y [5]\n{sys.executable}\n{tmp_path}\n" in result.stdout
    assert result.stdout.startswith("01_a: running (count=7, ")
    metadata = nbformat.read(output, as_version=4).metadata
    assert metadata.papermill.duration > 0
    assert str(tmp_path) not in json.dumps(metadata)
    assert [path.name for path in output.parent.iterdir()] == ["01_a.ipynb"]


def test_unknown_parameter_stops_before_anything_runs(tmp_path):
    source = write(tmp_path / "01_a.ipynb", PARAMETERS)
    result = execute(source, tmp_path / "out" / "01_a.ipynb", "-p", "counts", "2")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: 01_a.ipynb has no parameter counts; did you mean count?"
    )
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_failing_notebook_is_kept_apart_and_an_older_output_goes(tmp_path):
    source = write(
        tmp_path / "01_a.ipynb", PARAMETERS, "print('so far')", "raise ValueError('no\\nway')"
    )
    output = tmp_path / "out" / "01_a.ipynb"
    output.parent.mkdir()
    output.write_text("an older run")
    result = execute(source, output)
    failed = output.with_name("01_a.failed.ipynb")
    assert result.returncode == 1
    kept = f" (kept for reading: {failed})\n"
    assert result.stderr == f"error: 01_a.ipynb, cell [3]: ValueError: no way{kept}"
    assert [path.name for path in output.parent.iterdir()] == [failed.name]
    assert "so far" in failed.read_text()

    write(source, PARAMETERS)
    assert execute(source, output).returncode == 0
    assert [path.name for path in output.parent.iterdir()] == ["01_a.ipynb"]


@pytest.mark.parametrize("kind", ["itself", "link", "folder"])
def test_a_notebook_is_not_executed_into_its_source_or_a_folder(tmp_path, kind):
    source = write(tmp_path / "n.ipynb", "x = 1", WRONG)
    before, output = source.read_bytes(), tmp_path / "out.ipynb"
    if kind == "itself":
        output = source
    elif kind == "link":
        output.symlink_to(source)
    else:
        output.mkdir()
    done = execute(source, output)
    assert done.returncode == 1
    assert "error: output: expected a file that is not the source" in done.stderr
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"n.ipynb", output.name}


def test_source_saved_during_the_run_is_newer_than_the_output(tmp_path):
    source = tmp_path / "01_a.ipynb"
    write(source, PARAMETERS, f"import pathlib\npathlib.Path({str(source)!r}).touch()")
    assert execute(source, tmp_path / "out.ipynb").returncode == 0
    assert source.stat().st_mtime > (tmp_path / "out.ipynb").stat().st_mtime


def test_dead_kernel_is_a_failure(tmp_path):
    source = write(tmp_path / "01_a.ipynb", PARAMETERS, "import os\nos._exit(1)")
    result = execute(source, tmp_path / "out.ipynb")
    assert result.returncode == 1
    assert "error: 01_a.ipynb: DeadKernelError" in result.stderr
    assert not (tmp_path / "out.ipynb").exists()


def test_lines_of_notebooks_side_by_side_stay_whole():
    both = io.StringIO()
    first, second = NamedLines(both, "01 | "), NamedLines(both, "02 | ")
    first.write("half a ")
    second.write("line\n")
    first.write("line\nno end")
    first.finish()
    second.finish()
    assert both.getvalue() == "02 | line\n01 | half a line\n01 | no end\n"
