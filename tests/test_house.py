"""Two floors: the method imports nothing of the experiment, no circles, and no long files."""

import ast
import graphlib
import os
import re
import subprocess
import sys

import pytest

from hnetlib.experiment import paths

ROOT = paths.PACKAGE.parent
METHOD = {
    *("checks", "chunks", "generated", "hollow", "hypernet", "layers", "least_change", "order"),
    *("reach", "regularizer", "skeleton", "snapshots", "squares", "states", "targets", "tokens"),
}
ABOVE = {"notebook", "plots", "train", "__init__"}  # all else in hnetlib/
MOST_LINES = 300


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): path
    for folder in ("hnetlib", "report")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "build" not in path.relative_to(ROOT).parts[:-1]
}


def imported_by(name, whole=True):
    """Our modules that a module imports; with `whole`, also those within its functions."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= inner or {node.module}
    return (found & set(MODULES)) - {name}


def test_the_method_is_these_modules_and_imports_no_other_of_ours():
    ground = {path.stem for path in (ROOT / "hnetlib").glob("*.py")} - ABOVE
    assert ground == METHOD
    for module in METHOD:
        assert imported_by(f"hnetlib.{module}") <= {f"hnetlib.{other}" for other in METHOD}


def test_the_package_imports_nothing_of_the_report():
    for name in MODULES:
        if name.startswith("hnetlib"):
            assert not {other for other in imported_by(name) if other.startswith("report")}, name


def test_no_imports_make_a_circle_not_even_late_ones():
    # __init__ gives public names their modules when they are asked for
    graph = {name: imported_by(name) - {"hnetlib"} for name in MODULES if name != "hnetlib"}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize("statement", ["import hnetlib", "from hnetlib import Hypernetwork"])
def test_importing_the_method_loads_nothing_of_the_experiment(statement):
    code = f"import sys, torch; old = {{*sys.modules}}; {statement}; print({{*sys.modules}} - old)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)[\w.]*'", done.stdout))
    assert not loaded & {"fcntl", "matplotlib", "torchvision", "filelock", "tensorboard", "tyro"}
    assert "hnetlib.experiment" not in done.stdout


def test_no_file_grows_long():
    files = [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert not {name for name, count in lines.items() if count > MOST_LINES}
