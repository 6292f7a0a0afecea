"""The committed results: summary, runs and README say the same."""

import json

import numpy as np
import pytest

from hnetlib import evaluation, paths

ROOT = paths.PACKAGE.parent
REFERENCE = ROOT / "report" / "reference" / "laptop"
ROWS = json.loads((REFERENCE / "summary.json").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["method"])
def test_each_row_is_the_mean_of_its_recorded_runs(row):
    files = sorted((REFERENCE / "runs").glob(f"{row['method']}-s[0-9].json"))
    runs = [json.loads(file.read_text()) for file in files]
    assert len(runs) == row["n_seeds"]
    matrices = [np.array(run["results"]["R"], dtype=float) for run in runs]
    assert all(R.shape == (row["num_tasks"], row["num_tasks"]) for R in matrices)
    for name, metric in (
        ("acc_mean", "acc"),
        ("bwt_mean", "bwt"),
        ("forgetting_mean", "forgetting"),
    ):
        recomputed = np.mean([evaluation.metrics(R)[metric] for R in matrices])
        assert row[name] == pytest.approx(recomputed)
    assert all(run["config"]["split"] == "test" for run in runs)
    assert all(run["config"]["seed"] == run["config"]["permutation_seed"] for run in runs)


def test_the_readme_quotes_the_summary():
    readme = (ROOT / "README.md").read_text()
    by_method = {row["method"]: row for row in ROWS}
    hnet, without = by_method["hnet"], by_method["hnet-beta0"]
    for quoted in (
        f"{100 * hnet['acc_mean']:.2f} %",
        f"{100 * hnet['learning_acc_mean']:.2f} %",
        f"{100 * hnet['bwt_mean']:+.2f} points",
        f"{100 * without['acc_mean']:.2f} %, {100 * without['bwt_mean']:+.1f} points",
        f"{hnet['trainable']:,} numbers",
        f"n = {hnet['n_seeds']}",
    ):
        assert quoted in readme, quoted
