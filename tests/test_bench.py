"""The benchmark: both libraries do the same, rows say what was measured, ratios are of those."""

import json
import tomllib

import pytest

from hnetlib.experiment import paths
from report import bench, bench_peer


def row(old_tasks, library, penalty, ms):
    return {
        "setting": "s",
        "old_tasks": old_tasks,
        "library": library,
        "penalty": penalty,
        "ms": ms,
    }


def test_ratios_compare_what_they_say():
    rows = [
        row(1, "hnetlib", "rows", 10.0),
        row(99, "hnetlib", "rows", 11.0),
        row(50, "hnetlib", "rows", 10.0),
        row(50, "hnetlib", "all", 20.0),
        row(50, "hypnettorch", "all", 200.0),
        row(50, "hypnettorch", "1 task", 15.0),
    ]
    assert bench.ratios(rows) == {
        "s, 99 old tasks: ours rows at 99 old tasks / at 1": 1.1,
        "s, 50 old tasks: hypnettorch all / ours all": 10.0,
        "s, 50 old tasks: hypnettorch all / ours rows": 20.0,
        "s, 50 old tasks: hypnettorch 1 task / ours rows": 1.5,
    }


@pytest.mark.slow
def test_measures_every_penalty_without_the_peer(tmp_path, capsys):
    out = tmp_path / "bench.json"
    arguments = ["--without-peer", "--settings", "laptop", "--old-tasks", "0", "9"]
    assert bench.main([*arguments, "--threads", "1", "--seconds", "0.01", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    kinds = [(r["old_tasks"], r["penalty"]) for r in written["rows"]]
    assert kinds == [(0, "none"), (9, "rows"), (9, "1 task"), (9, "8 tasks"), (9, "all")]
    products = {r["penalty"]: r["gflop"] for r in written["rows"]}
    # own chunks (10 rows of the last layer) and 0, 60, 10, 80 or 90 rows of old tasks
    last_layer = 6 * 350 * 7951 / 1e9
    assert products["all"] - products["none"] == pytest.approx(90 * last_layer, rel=0.1)
    assert products["rows"] - products["none"] == pytest.approx(60 * last_layer, rel=0.1)
    assert all(r["ms_min"] <= r["ms"] <= r["ms_max"] for r in written["rows"])
    assert "of rate" in capsys.readouterr().out


def test_the_peer_is_named_with_the_fix_where_it_is_missing(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise bench_peer.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bench_peer.importlib.metadata, "version", missing)
    assert bench.main(["--out", str(tmp_path / "bench.json")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "expected version 0.0.4, found none" in line
    assert "pip install --no-deps hypnettorch==0.0.4" in line
    assert not list(tmp_path.iterdir())


def test_one_version_of_the_peer_everywhere():
    root = paths.PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = f"hypnettorch=={bench_peer.HYPNETTORCH}"
    assert wanted in project["project"]["optional-dependencies"]["bench"]
    assert f"PEER := {wanted}" in (root / "Makefile").read_text()


def test_both_libraries_compute_the_same_penalty():
    pytest.importorskip("hypnettorch")
    assert "gradients too" in bench_peer.check_same_penalty()
