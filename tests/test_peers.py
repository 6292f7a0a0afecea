"""Peers on the same tasks: what is counted and written down, and that every script learns."""

import ast
import importlib.util
import json
import tomllib

import pytest
import torch

from hnetlib.experiment import paths
from hnetlib.experiment.config import Config, defaults, make_config
from hnetlib.experiment.data import load_data
from report.peers import alone, choose, compare, differences, lines, paper10, stream

ROOT = paths.PACKAGE.parent


OURS = ("ours", "ours_plain")
TINY = {"dataset": "mnist5k", "num_tasks": 2, "steps": 60, "batch_size": 64}
MODULES = {"hypnettorch": "hypnettorch", "avalanche-lib": "avalanche"}
SCRIPT = '''"""What it is."""

import one
from two import (
    three,
)  # a comment


def f():
    """Says
    something."""
    # why
    text = """two
    lines"""

    return g(
        text,
    )
'''


def test_lines_are_those_that_hold_code():
    # def, text (2), return (3); with imports 4 more
    assert lines.count(SCRIPT) == {"lines": 6, "lines_with_imports": 10}


def test_every_script_is_counted_without_what_is_shared():
    for script in compare.ENTRIES:
        counted = lines.count(compare.HERE / f"{script}.py")
        assert 10 < counted["lines"] < counted["lines_with_imports"] < 60


@pytest.mark.parametrize(
    ("script", "profile"), [("ours", "laptop"), ("ours_plain", "laptop-plain")]
)
def test_our_scripts_have_the_settings_of_their_profiles(script, profile):
    config = Config(**defaults(profile, "mnist"))
    chosen = stream.settings(stream.load_script(script))
    head_lr = chosen.pop("head_lr", config.head_lr)
    assert head_lr == pytest.approx(config.head_lr)
    assert chosen == {name: getattr(config, name) for name in chosen}
    assert compare.DEFAULTS["steps"] == config.steps_per_task
    assert config.first_task_factor == stream.FIRST_TASK_FACTOR
    assert compare.DEFAULTS["batch_size"] == make_config("laptop", "mnist5k").batch_size


@pytest.mark.parametrize("script", [*compare.ENTRIES, paper10.SCRIPT])
def test_every_script_learns_two_tasks(script):
    library = compare.ENTRIES[script].library if script in compare.ENTRIES else paper10.LIBRARY
    if importlib.util.find_spec(MODULES.get(library, library)) is None:
        pytest.skip(f"{library} is not installed")
    row = stream.measure(script, TINY)
    assert min(row["acc_per_task"]) > 0.5
    assert row["acc"] == pytest.approx(sum(row["acc_per_task"]) / 2)
    assert row["peak_mb"] > row["above_data_mb"] >= 0


def test_the_command_prints_a_table_and_writes_it_down(tmp_path, capsys):
    out = tmp_path / "peers.json"
    sizes = ["--dataset", "mnist5k", "--num-tasks", "1", "--steps", "5", "--threads", "1"]
    assert compare.main([*sizes, "--only", "ours_plain", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    (row,) = written["rows"]
    assert {"script", "library", "version", "method", "settings", "lines"} < set(row)
    assert len(row["acc_per_task"]) == 1
    assert {"commit", "date", "hardware", "threads", "steps", "torch_mb"} < set(
        written["provenance"]
    )
    assert 50 < written["provenance"]["torch_mb"] < row["peak_mb"]
    printed = capsys.readouterr().out
    assert "about" in printed.splitlines()[0]
    assert f"{row['acc']:7.2%}" in printed
    assert written["lines_counted"] in printed


def test_a_missing_peer_is_named_with_the_fix_before_anything_runs(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise compare.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compare.importlib.metadata, "version", missing)
    out = tmp_path / "peers.json"
    assert compare.main(["--num-tasks", "1", "--steps", "5", "--out", str(out)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert "hypnettorch: expected version 0.0.4, found none; the fix is: make peers" in line
    assert captured.out == ""
    assert not out.exists()


def test_what_fails_in_a_script_is_one_line():
    with pytest.raises(RuntimeError, match=r"^no_such: ModuleNotFoundError: .*no_such"):
        alone.run_alone("no_such", TINY)


def test_wrong_sizes_are_named(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--num-tasks", "0"])
    assert "--num-tasks: expected a whole number of at least 1, got 0" in capsys.readouterr().err


def test_the_run_of_the_papers_ten_tasks_has_the_settings_of_its_profile(tmp_path, monkeypatch):
    config = make_config("paper10", "mnist5k")
    chosen = defaults_in(paper10.SCRIPT)
    hidden = "-".join(str(size) for size in chosen.pop("hidden"))
    assert config.target == f"mlp-{hidden}"
    assert (chosen.pop("start"), chosen.pop("own_heads")) == ("library", False)
    assert chosen == {name: getattr(config, name) for name in chosen}
    asked = {}
    monkeypatch.setattr(paper10, "version", lambda library: "0")
    monkeypatch.setattr(
        paper10, "run_alone", lambda _, sizes: asked.update(sizes) or {"acc": 0, "train_seconds": 0}
    )
    assert paper10.main(["--dataset", "mnist5k", "--out", str(tmp_path / "peer.json")]) == 0
    sizes = {"num_tasks": 10, "steps": 5000, "batch_size": 128, "first_task_factor": 1}
    assert asked.items() >= sizes.items()
    assert asked.items() <= json.loads((tmp_path / "peer.json").read_text())["provenance"].items()


def test_an_estimate_grows_with_what_is_asked():
    entry = compare.ENTRIES["hypnettorch_all"]
    assert compare.estimate(entry, 10, 400) > 2 * compare.estimate(entry, 5, 400)


def defaults_in(script):
    """The settings of a script whose library may not be installed."""
    tree = ast.parse((compare.HERE / f"{script}.py").read_text())
    defined = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    learn = next(node for node in defined if node.name == "learn")
    names = [argument.arg for argument in learn.args.args[1:]]
    return dict(zip(names, map(ast.literal_eval, learn.args.defaults), strict=True))


def test_chosen_settings_are_the_best_that_were_tried_on_validation():
    tried = json.loads((paths.reference_dir("laptop") / "peers_search.json").read_text())
    assert choose.VALIDATION["split"] == "validation"
    for script in {row["script"] for row in tried}:
        rows = [row for row in tried if row["script"] == script]
        most = max(row["num_tasks"] for row in rows)
        best = max((r for r in rows if r["num_tasks"] == most), key=lambda r: r["acc"])
        assert best["settings"] == defaults_in(script)


def test_only_runs_of_the_grids_are_written_down():
    tried = json.loads((paths.reference_dir("laptop") / "peers_search.json").read_text())
    wanted = [(s, size, c) for s, size, grid in choose.GRIDS for c in choose.combinations(grid)]
    for row in tried:
        assert sum(choose.is_of(row, *run) for run in wanted) == 1, row


def test_one_version_of_each_peer_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    bench = project["project"]["optional-dependencies"]["bench"]
    assert bench == [f"{name}=={compare.pinned()[name]}" for name in MODULES]
    locked = (ROOT / "requirements.lock").read_text()
    assert not [name for name in compare.pinned() if f"\n{name}==" in locked]


def test_padded_images_are_the_same_in_a_black_frame():
    data = load_data("mnist5k")
    padded = stream.padded(data, 2)
    assert padded.num_pixels == padded.train_images.shape[1] == 32 * 32
    square = padded.eval_images.view(-1, 32, 32)
    assert torch.equal(square[:, 2:-2, 2:-2].flatten(1), data.eval_images)
    assert square.sum() == data.eval_images.sum()


def test_of_each_run_that_differs_one_thing_is_asked(tmp_path, monkeypatch):
    asked = []

    def run_alone(script, sizes):
        asked.append(sizes["changes"] | {"padding": sizes["padding"]})
        return {"acc": 0.5, "acc_per_task": [0.5]}

    monkeypatch.setattr(differences, "version", lambda library: "0")
    monkeypatch.setattr(differences, "run_alone", run_alone)
    monkeypatch.setattr(differences, "OURS", {})
    out = tmp_path / "differences.json"
    assert differences.main(["--dataset", "mnist5k", "--jobs", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == list(differences.THEIRS)
    assert len(asked) == len(rows)
    assert {"padding": 0} in asked
    assert {"start": "xavier", "padding": 2} in asked
    assert differences.main(["--dataset", "mnist5k", "--jobs", "1", "--out", str(out)]) == 0
    assert len(asked) == len(rows)  # none is made again
