"""What a run is known by: the code of its own method, and no more."""

import ast
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from hnetlib.experiment import identity, paths, profiles
from hnetlib.experiment.config import make_config
from hnetlib.experiment.learner import learner_class, train_or_load
from hnetlib.experiment.profiles import methods


def of_contributing():
    """The baseline that CONTRIBUTING.md adds: its class, with the imports its comments name."""
    text = (paths.PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = textwrap.dedent(re.search(r"\n((?:    class Alike.*|    .+|\n)+)\nand `", text)[1])
    imports = [
        f"from {module} import {name}"
        for name, module in re.findall(r"class \w+\((\w+)\):  # of ([\w.]+)", block)
    ]
    entry = re.search(r'and `"alike": (\{.*\})`', text)[1]
    return "\n".join(["import torch", *imports, block]), ast.literal_eval(entry)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, which a test may edit."""
    shutil.copytree(paths.PACKAGE, tmp_path / "hnetlib", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "hnetlib")
    return tmp_path / "hnetlib"


def changed(package, name, text):
    """The methods whose hash an edit at the end of a module changes."""
    before = {method: identity.code_hash(method) for method in methods()}
    path = package / name
    path.write_text((path.read_text() if path.exists() else "") + text)
    return {method for method in methods() if identity.code_hash(method) != before[method]}


def test_the_hash_sees_code_and_not_comments(package):
    silent = '\n# why\n\n"""Says."""\n'
    assert not changed(package, "hypernet.py", silent)
    assert changed(package, "hypernet.py", "\nx = 1  # why\n") == {*methods()}
    assert not changed(package, "hypernet.py", "# and why not\n")


def test_an_edit_changes_the_runs_of_those_methods_that_compute_with_it(package):
    edit = "\nx = 1\n"
    assert changed(package, "experiment/hnet_learner.py", edit) == {"hnet"}
    assert changed(package, "experiment/baselines.py", edit) == {*methods()} - {"hnet"}
    assert changed(package, "experiment/config.py", edit) == {*methods()}
    assert changed(package, "experiment/learner.py", edit) == {*methods()}
    for harmless in ("profiles", "rules", "runs", "tracking", "streams", "one_more"):
        assert not changed(package, f"experiment/{harmless}.py", edit)
    for harmless in ("hollow", "order", "states"):
        assert not changed(package, f"{harmless}.py", edit)
    whole = identity.package_hash()
    changed(package, "experiment/one_more.py", edit)
    assert identity.package_hash() != whole


@pytest.mark.parametrize("method", ["hnet", "ewc", "joint-hnet", "separate"])
def test_all_that_training_loads_of_the_package_is_hashed_or_named_as_harmless(method):
    module = learner_class(method).__module__
    code = f"import sys, hnetlib.experiment.learner, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    root = paths.PACKAGE.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] == "hnetlib"}
    known = identity.modules_of(method).keys()
    assert {module, "hnetlib.hypernet", "hnetlib.experiment.continual"} <= known
    assert loaded <= known | identity.NOT_NUMERIC


def test_a_baseline_is_one_class_and_one_entry_and_no_other_run_is_lost(
    tiny, tmp_path, monkeypatch
):
    done = {method: train_or_load(tiny(method=method), progress=False) for method in ("hnet", "si")}
    code, entry = of_contributing()
    (tmp_path / "alike.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entry["learner"] = entry["learner"].removeprefix("hnetlib.experiment.")
    monkeypatch.setitem(profiles.BASELINES, "alike", entry)
    config = make_config("smoke", "mnist5k", method="alike", num_tasks=2, steps_per_task=20)
    run = train_or_load(config, progress=False)
    assert (run.config.lr, run.config.strength) == (1e-3, 0.01)
    assert run.results["stored_train"] == 2 * run.results["trainable"]
    free = make_config(**config.as_dict() | {"strength": 0.0})
    assert run.results["R"] != train_or_load(free, progress=False).results["R"]
    for method, before in done.items():
        assert train_or_load(tiny(method=method), progress=False).provenance == before.provenance
    (tmp_path / "alike.py").write_text(code.replace("ones_like", "zeros_like"))
    assert not train_or_load(config, progress=False).directory.samefile(run.directory)


def test_a_method_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"method: expected one of hnet, .*, got 'alike'"):
        make_config("smoke", "mnist5k", method="alike")
