"""What appendix D reads: how a sweep grows with its workers."""

import json

import pytest

from hnetlib.experiment import paths
from report import scaling

SMALL = {"num_tasks": 1, "steps_per_task": 2, "target": "mlp-8"}


@pytest.mark.slow
def test_it_measures_engines_jobs_and_notebooks(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "JOBS", 2)
    monkeypatch.setattr(scaling, "NOTHING", 3)
    monkeypatch.setattr(scaling, "SETTINGS", SMALL)
    monkeypatch.setattr(scaling, "a_task", lambda: 3.0)
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path)
    assert scaling.main() == 0
    found = json.loads((tmp_path / "scaling.json").read_text())
    joblib = [row for row in found["rows"] if row["engine"] == "joblib"]
    assert [row["workers"] for row in joblib] == [1, 2]
    assert all(row["seconds"] > 0 for row in found["rows"])
    assert found["empty_seconds"]["notebook"] > found["empty_seconds"]["script"]
    assert found["bytes"]["a_job"] > 100
