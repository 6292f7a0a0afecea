"""How long a report will take: from the times of executed notebooks, for those that must run."""

import json
import os

import pytest

from report import estimate


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    """Two notebooks, the first executed in 600 seconds and then changed, the second current."""
    monkeypatch.setattr(estimate, "reference_dir", lambda profile: tmp_path / "reference")
    pairs = []
    for number, (made, changed) in enumerate([(10, 20), (20, 10)]):
        source, executed = tmp_path / f"{number}.ipynb", tmp_path / "built" / f"{number}.ipynb"
        executed.parent.mkdir(exist_ok=True)
        source.write_text("{}")
        executed.write_text(json.dumps({"metadata": {"papermill": {"duration": 600.0}}}))
        os.utime(source, (changed, changed))
        os.utime(executed, (made, made))
        pairs.append((source, executed))
    return pairs


def plan(chapters, library=(), milliseconds=10.0):
    return estimate.make_plan(chapters, library, "some", milliseconds)


def test_counts_only_what_must_run(chapters, tmp_path):
    assert plan(chapters) == {"0.ipynb": 600.0}
    library = tmp_path / "library.py"
    library.touch()  # newer than both
    assert plan(chapters, [library]) == {"0.ipynb": 600.0, "1.ipynb": 600.0}
    said = estimate.describe(plan(chapters, [library]), 2, jobs=1)
    assert said.startswith("2 of 2 chapters to run, 1 at a time: about 20 minutes")
    assert "about 10 minutes" in estimate.describe(plan(chapters, [library]), 2, jobs=2)
    assert estimate.describe({}, 2, jobs=2) == "every chapter is up to date: seconds"


def test_takes_the_committed_time_first_at_the_speed_of_this_machine(chapters, tmp_path):
    times = tmp_path / "reference" / "times.json"
    times.parent.mkdir()
    known = {"step_ms": 4.0, "seconds": {"0.ipynb": 30.0}}
    times.write_text(json.dumps({"other": known}))  # of another data set
    assert plan(chapters) == {"0.ipynb": 600.0}
    times.write_text(json.dumps({"built": known}))
    assert plan(chapters, milliseconds=10.0) == {"0.ipynb": 75.0}
    for damaged in (
        "",
        "[]",
        "{}",
        '{"built": {"step_ms": 0, "seconds": {}}}',
        '{"built": {"step_ms": 1, "seconds": 3}}',
        '{"built": 3}',
    ):
        times.write_text(damaged)
        assert plan(chapters) == {"0.ipynb": 600.0}


def test_records_what_a_cold_run_took(chapters, tmp_path):
    folder = chapters[0][1].parent
    content = {"expected": {"0.ipynb": None}, "step_ms": 5.0, "threads": 1, "jobs": 2}
    (folder / "plan.json").write_text(json.dumps(content))
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "times.json").write_text('{"other": {}}')
    arguments = ["--profile", "some", "--plan", str(folder), "--record"]
    assert estimate.main(arguments) == 0
    assert plan(chapters, milliseconds=10.0) == {"0.ipynb": 1200.0}
    assert "other" in json.loads((tmp_path / "reference" / "times.json").read_text())


@pytest.mark.parametrize("content", [None, "", "{}", '{"metadata": {"papermill": {}}}'])
def test_says_when_there_is_no_time(chapters, content):
    executed = chapters[0][1]
    executed.unlink()
    if content is not None:
        executed.write_text(content)
        os.utime(executed, (1, 1))
    assert plan(chapters) == {"0.ipynb": None}
    assert "no measured time" in estimate.describe(plan(chapters), 2, jobs=1)


def test_what_is_left_follows_how_long_finished_chapters_took(tmp_path, monkeypatch):
    assert estimate.left(tmp_path) == ""
    written = {"expected": {"a": 100.0, "b": 200.0}, "begun": 1000.0, "jobs": 1}
    (tmp_path / "plan.json").write_text(json.dumps(written))
    monkeypatch.setattr(estimate.time, "time", lambda: 1140.0)
    assert estimate.left(tmp_path) == "2 to go, about 3 minutes"  # 300 - 140 s
    (tmp_path / "a").write_text(json.dumps({"metadata": {"papermill": {"duration": 150.0}}}))
    os.utime(tmp_path / "a", (1001, 1001))
    assert estimate.left(tmp_path) == "1 to go, about 5 minutes"  # half as long again: 450 - 140 s
    (tmp_path / "b").write_text(json.dumps({"metadata": {"papermill": {"duration": 1.0}}}))
    assert estimate.left(tmp_path) == ""


def test_the_real_step_is_timed():
    assert 0.1 < estimate.step_milliseconds("smoke", threads=1, seconds=0.1) < 1000


def test_lanes_fill_up_from_the_longest():
    assert estimate.together([5, 4, 3, 3], jobs=2) == 8
    assert estimate.together([5, 4, 3], jobs=1) == 12
    assert estimate.together([], jobs=2) == 0
