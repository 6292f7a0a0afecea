"""The way in: pins, the checks before an install, and the Makefile."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from report import bootstrap

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PIN = re.compile(r"^[a-z0-9-]+==[0-9][\w.]*( ; [\w.'<>=! ()*-]+)?$")


def direct_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = project["project"]["dependencies"]
    lines += project["project"]["optional-dependencies"]["report"]
    lines += project["dependency-groups"]["test"]
    return [re.split(r"[^\w-]", line)[0] for line in lines]


def locked(name: str) -> list[str]:
    return [line for line in LOCK if line.split("==")[0] == name]


def test_lock_is_exact_pins_and_nothing_else():
    assert [line for line in LOCK if not PIN.match(line)] == []  # so no index, URL or host either


def test_lock_installs_without_cuda_elsewhere():
    cuda = [line for line in LOCK if re.match(r"nvidia-|triton|cuda-", line)]
    assert cuda
    assert [line for line in cuda if "sys_platform == 'linux'" not in line] == []


def test_torch_and_torchvision_are_a_pair():
    assert locked("torch") == ["torch==2.14.1"]
    assert locked("torchvision") == ["torchvision==0.29.1"]


def test_environment_yml_pins_what_the_lock_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "conda-forge" in environment["channels"]
    assert set(environment["channels"]) <= {"conda-forge", "nodefaults"}
    pins = environment["dependencies"][-1]["pip"]
    wanted = [line for name in direct_dependencies() for line in locked(name)]
    assert pins == [*wanted, "-r requirements.lock", "-e ."]
    assert {pin.split("==")[0] for pin in pins[:-2]} == set(direct_dependencies())


def test_environment_yml_allows_the_pythons_that_setup_allows():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    major, minor = bootstrap.NEWEST
    assert environment["dependencies"][0] == f"python >=3.11,<{major}.{minor + 1}"
    assert bootstrap.OLDEST == (3, 11)


def test_bootstrap_can_be_parsed_by_an_old_python():
    ast.parse((ROOT / "report" / "bootstrap.py").read_text(), feature_version=(3, 6))


def test_bootstrap_imports_the_standard_library_only():
    tree = ast.parse((ROOT / "report" / "bootstrap.py").read_text())
    modules = {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (3, 15, 0), (2, 7, 18)])
def test_wrong_python_is_named_with_the_fix(version):
    with pytest.raises(bootstrap.SetupError, match=r"Python 3\.11 to .*PYTHON=") as caught:
        bootstrap.check_python(version)
    assert f"{version[0]}.{version[1]}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_right_python_passes():
    bootstrap.check_python((3, 11, 0))
    bootstrap.check_python()


def test_full_disk_is_named_with_what_is_needed_and_found(tmp_path):
    bootstrap.check_disk(tmp_path, 0)
    with pytest.raises(bootstrap.SetupError, match=r"^1000000000 GB .* [\d.]+ GB found"):
        bootstrap.check_disk(tmp_path, 1e9)


def test_missing_venv_is_named_with_the_fix():
    bootstrap.check_venv()
    with pytest.raises(bootstrap.SetupError, match=r"no_such_module.*apt install python3-venv"):
        bootstrap.check_venv(("venv", "no_such_module"))


def test_stamp_follows_the_lock(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==2.4.6\n")
    before = bootstrap.stamp_name(lock)
    assert bootstrap.stamp_name(lock) == before
    lock.write_text("numpy==2.4.7\n")
    assert bootstrap.stamp_name(lock) != before


def test_environment_is_current_only_with_python_and_the_stamp_of_this_checkout(tmp_path):
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    assert not bootstrap.is_current(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert not bootstrap.is_current(tmp_path)  # an install that was cut off
    stamp = tmp_path / ".venv" / bootstrap.stamp_name(tmp_path / "requirements.lock")
    stamp.write_text(str(tmp_path))
    assert bootstrap.is_current(tmp_path)
    stamp.write_text("/where/it/was/before")
    assert not bootstrap.is_current(tmp_path)
    stamp.write_text(str(tmp_path))
    python.unlink()
    python.symlink_to(tmp_path / "gone")  # the Python it was made with was removed
    assert not bootstrap.is_current(tmp_path)


# The Makefile, in a small project of its own: its notebooks only print, and the modules it calls
# are as short as their command lines allow.

RESOLVE = """import sys
profile, dataset = sys.argv[1:]
if profile != "smoke":
    sys.exit("error: no such profile")
print({"auto": "mnist5k"}.get(dataset, dataset))
"""
PAGE = "import sys\nprint('PAGE', *sys.argv[1:])\n"
CELLS = [
    "profile = 'laptop'\ndataset = 'auto'\nnum = 3\nthreads = None",
    "print('RAN', {}, profile, dataset, num)",
]


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run make with the Python of these tests as the active one, whatever make runs the tests."""
    ours = ("MAKE", "MFLAGS", "HNETLIB_", "PROFILE", "DATASET", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**inherited, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def write_notebook(folder: Path, name: str, *more: str) -> None:
    parameters, report = (new_code_cell(cell) for cell in CELLS)
    parameters.metadata["tags"] = ["parameters"]
    report.source = report.source.format(int(name[:2]))
    cells = [parameters, report, *(new_code_cell(cell) for cell in more)]
    nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a project"  # with a space in its path
    for name in ("hnetlib/experiment", "report", "notebooks"):
        (folder / name).mkdir(parents=True)
    copied = [f"hnetlib/experiment/{name}.py" for name in ("paths", "values")]
    copied += [f"report/{name}.py" for name in ("bootstrap", "execute", "estimate")]
    for name in ("Makefile", "pyproject.toml", *copied):
        shutil.copy(ROOT / name, folder / name)
    for package in ("hnetlib", "hnetlib/experiment", "report"):
        (folder / package / "__init__.py").touch()
    estimate = folder / "report" / "estimate.py"  # without a library there is no step to time
    timed = "def step_milliseconds(*_):\n    return 1.0\n\n\nif __name__"
    estimate.write_text(estimate.read_text().replace("if __name__", timed))
    (folder / "report" / "resolve.py").write_text(RESOLVE)
    (folder / "report" / "build.py").write_text(PAGE)
    write_notebook(folder, "01_one")
    write_notebook(folder, "05_five")
    return folder


def ran(result: subprocess.CompletedProcess) -> list[str]:
    return sorted(re.findall(r"RAN (\d+)", result.stdout))


def test_help_is_the_default_and_lists_the_goals():
    result = make(ROOT)
    assert result.returncode == 0, result.stderr
    goals = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for goal in set(goals[1].split()) - {"help", "page"}:
        assert re.search(rf"^  make {goal} +\w", result.stdout, flags=re.MULTILINE), goal


def test_report_runs_all_and_again_only_what_changed(project):
    smoke = ("JOBS=2", "report", "ENV=active", "PROFILE=smoke")
    first = make(project, *smoke)
    assert first.returncode == 0, first.stderr
    assert ran(first) == ["1", "5"]
    assert "05 | RAN 5" in first.stdout
    before = "2 of 2 chapters to run, 2 at a time: no measured time for this profile yet"
    assert first.stdout.index(before) < first.stdout.index("RAN")
    assert "RAN 1 smoke mnist5k 3" in first.stdout  # the data set was resolved before
    built = [f"report/build/smoke-mnist5k/{name}.ipynb" for name in ("01_one", "05_five")]
    page = "PAGE --profile smoke --dataset mnist5k --out report/build/report.html"
    assert " ".join([page, *built]) in first.stdout
    assert str(project / "report" / "build" / "report.html") in first.stdout

    again = make(project, *smoke)
    assert ran(again) == []
    assert "every chapter is up to date" in again.stdout
    write_notebook(project, "01_one", "1 + 1")
    assert ran(make(project, *smoke)) == ["1"]

    write_notebook(project, "05_five", "raise ValueError('wrong turn')")
    for _ in range(2):  # not taken for done the second time
        failing = make(project, *smoke)
        assert failing.returncode != 0
        assert ran(failing) == ["5"]
        assert "05_five.ipynb, cell [4]: ValueError: wrong turn" in failing.stderr
        assert "PAGE" not in failing.stdout
    assert not (project / built[1]).exists()
    assert (project / "report/build/smoke-mnist5k/05_five.failed.ipynb").exists()


def test_notebook_always_runs_and_an_explicit_parameter_wins(project):
    output = project / "report" / "build" / "notebook" / "05_five.ipynb"
    output.parent.mkdir(parents=True)
    output.write_text("an older run, newer than all it is made from")
    parameters = "PARAMS=-p num 20 -p dataset mnist"
    result = make(project, "notebook", "ENV=active", "PROFILE=smoke", "NB=05", parameters)
    assert result.returncode == 0, result.stderr
    assert "RAN 5 smoke mnist 20" in result.stdout
    assert str(output.relative_to(project)) in result.stdout
    assert "RAN" in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("notebook", "NB=07"), "error: NB=07: expected one of 01_one 05_five"),
        (("notebook",), "error: NB=: expected one of 01_one 05_five"),
        (("notebook", "NB=5", "PARAMS=-p nun 2"), "did you mean num?"),
        (("report", "PROFILE=huge"), "error: no such profile"),
        (("report", "ENV=conda"), "ENV=conda: expected venv or active"),
        (("setup", "ENV=venv", "PYTHON=no-such-python"), "error: no-such-python not found"),
    ],
)
def test_wrong_settings_stop_in_one_line_before_anything_runs(project, arguments, message):
    result = make(project, "ENV=active", "PROFILE=smoke", *arguments)  # of two, the last wins
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert ran(result) == []
    assert not (project / "report" / "build").exists()


def test_relative_places_are_taken_from_where_make_was_called(project):
    script = "import os\nprint('places', *map(os.environ.get, ('HNETLIB_DATA', 'HNETLIB_RUNS')))\n"
    (project / "hnetlib" / "places.py").write_text(script)
    (project / "Makefile").open("a").write("\nplaces:\n\t@$(PY) hnetlib/places.py\n")
    result = make(project, "places", "ENV=active", HNETLIB_DATA="some data", HNETLIB_RUNS="/runs")
    assert result.stdout.strip() == f"places {project / 'some data'} /runs"


def test_clean_removes_the_build_and_nothing_else(project):
    for name in ("report/build", "runs", "logs", "data", ".venv"):
        (project / name).mkdir()
        (project / name / "kept").touch()
    result = make(project, "clean")
    assert "runs, logs, data and .venv stay" in result.stdout
    assert not (project / "report" / "build").exists()
    assert all((project / name / "kept").exists() for name in ("runs", "logs", "data", ".venv"))


def test_the_longest_chapter_starts_and_those_that_wait_for_its_run_come_last(tmp_path):
    asked = make(ROOT, "-n", "page", f"BUILD={tmp_path}", "ENV=active", "PROFILE=smoke")
    order = re.findall(r"notebooks/(\d+)_\w+\.ipynb", asked.stdout)
    assert order[0] == "05"
    assert order[-2:] == ["10", "06"]
    assert sorted(order) == sorted(path.name[:2] for path in (ROOT / "notebooks").glob("*.ipynb"))
