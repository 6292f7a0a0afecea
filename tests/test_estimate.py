"""How long a report will take: from the times of executed notebooks, for those that must run."""

import json
import os
import sys

import pytest

from hnetlib import paths

sys.path.insert(0, str(paths.PACKAGE.parent / "report"))

import estimate


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


def test_counts_only_what_must_run(chapters, tmp_path):
    assert "1 of 2 chapters to run, 2 at a time: about 10 minutes" in estimate.describe(
        chapters, [], "some", 2
    )
    library = tmp_path / "library.py"
    library.touch()  # newer than both
    assert "about 20 minutes" in estimate.describe(chapters, [library], "some", 1)


def test_takes_the_committed_time_first_and_says_when_there_is_none(chapters, tmp_path):
    committed = tmp_path / "reference" / "notebooks" / "0.ipynb"
    committed.parent.mkdir(parents=True)
    committed.write_text(json.dumps({"metadata": {"papermill": {"duration": 30.0}}}))
    assert "about 30 seconds" in estimate.describe(chapters, [], "some", 1)
    committed.unlink()
    chapters[0][1].unlink()
    assert "no measured time" in estimate.describe(chapters, [], "some", 1)
    assert "seconds" in estimate.describe(chapters[1:], [], "some", 1)


def test_lanes_fill_up_from_the_longest():
    assert estimate.together([5, 4, 3, 3], jobs=2) == 8
    assert estimate.together([5, 4, 3], jobs=1) == 12
    assert estimate.together([], jobs=2) == 0
