"""The ablation: its rows differ by what they say, and what is committed is what was planned."""

import json
import statistics

import pytest

from hnetlib.experiment import data, paths
from hnetlib.experiment.config import make_config
from hnetlib.experiment.files import RunError
from hnetlib.experiment.loop import DivergedError
from hnetlib.experiment.mnist_files import DataError
from hnetlib.experiment.workers import SweepError
from hnetlib.order import NotLearnedError
from report import (
    ablation,
    command,
    frontier,
    many_tasks,
    pace,
    reference,
    search,
    study,
    untold,
)
from report.search import Search

PLACE = paths.reference_dir("laptop")


@pytest.fixture(autouse=True)
def without_data(monkeypatch):
    """Configs of MNIST where there is none."""
    monkeypatch.setattr(data, "resolve_dataset", lambda dataset: dataset)


@pytest.fixture
def recorded():
    """The committed runs, and what the first row was found to do best with."""
    rows = json.loads((PLACE / "ablation.json").read_text())
    search = Search("laptop", PLACE / "ablation_search.json", plan=ablation.SEARCH)
    return rows, search.choose("hnet")


def test_each_row_adds_one_choice_and_the_last_is_laptop():
    changed = []
    before = ablation.make({}, 100, 0).as_dict() | ablation.STEPS[ablation.PAPER]
    for changes in list(ablation.STEPS.values())[1:]:
        config = ablation.make(changes, 100, 0).as_dict()
        changed.append({name for name in config if config[name] != before[name]})
        before = config
    rates = {"lr", "head_lr_factor"}  # a rate of Adam means nothing to a normalised step
    assert changed == [{"hnet_activation"}, {"head_optimizer", *rates}, {"head_optimizer"}]
    laptop = make_config("laptop", "mnist", threads=1).as_dict()
    assert before | {"steps_per_task": 400, "eval_every": 1} == laptop


def test_all_that_was_planned_is_committed_with_three_seeds(recorded):
    rows, best = recorded
    for name, config in ablation.planned(best, ablation.FEW_STEPS):
        settings = {setting: getattr(config, setting) for setting in ablation.KEPT}
        (row,) = [row for row in rows if row["name"] == name and settings.items() <= row.items()]
        assert 0 < row["acc"] <= row["learning_acc"] < 1
        assert "-dirty" not in row["commit"]


def test_the_best_settings_lie_inside_what_was_tried(recorded):
    _, best = recorded
    shared, order = ablation.SEARCH["hnet"]
    assert shared["num_tasks"] == 100
    for name in best:
        values = sorted({value for listed, some in order if listed == name for value in some})
        assert values[0] < best[name] < values[-1], name


def test_a_finished_ablation_trains_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(ablation.sweep, "train", lambda configs, jobs: asked.extend(configs) or [])
    assert ablation.main([]) == 0
    assert not asked


def test_chapter_6_says_what_is_kept(recorded):
    rows, _ = recorded
    kept = {}
    for row in rows:
        kept.setdefault((row["name"], row["beta"] > 0), []).append(row["acc"])
    mean = {key: statistics.mean(accs) for key, accs in kept.items()}
    free = {name for name, held in mean if not held}
    assert all(mean[name, False] < 1 / 3 for name in free)
    paper, sines, steps, least = (mean[name, True] for name in ablation.STEPS)
    assert paper < sines < least
    assert paper - steps > sines - paper  # steps alone lose more than sines brought
    tuned, whole, rates, both = (
        mean[name, True]
        for name in (ablation.TUNED, ablation.WHOLE, ablation.TUNED_SINES, ablation.WHOLE_SINES)
    )
    assert paper < tuned < min(whole, rates)
    assert max(whole, rates) < both
    assert abs(least - both) < 0.003  # as seeds differ
    times = json.loads((PLACE / "ablation_times.json").read_text())["ms"]
    assert times["+ least change"] < times[ablation.WHOLE_SINES] / 5
    assert times.keys() == {name for name, held in mean if held}


def test_steps_are_timed_behind_all_old_tasks(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(
        ablation,
        "planned",
        lambda *_: [("a", tiny(head_optimizer="adam")), ("b", tiny()), ("free", tiny(beta=0.0))],
    )
    ablation.measure({}, tmp_path / "times.json", rounds=2)
    written = json.loads((tmp_path / "times.json").read_text())
    assert written["ms"].keys() == {"a", "b"}
    assert all(ms > 0 for ms in written["ms"].values())


def test_the_readme_quotes_it(recorded):
    rows, _ = recorded
    readme = " ".join((paths.PACKAGE.parent / "README.md").read_text(encoding="utf-8").split())

    def mean(name):
        return statistics.fmean(
            100 * row["acc"] for row in rows if row["name"] == name and row["beta"]
        )

    quoted = (
        f"tuned, keeps {mean(ablation.TUNED):.2f} %, with its whole penalty "
        f"{mean(ablation.WHOLE):.2f} %, with sines too {mean(ablation.WHOLE_SINES):.2f} %, ours "
        f"{mean('+ least change'):.2f} %"
    )
    assert quoted in readme
    times = json.loads((PLACE / "ablation_times.json").read_text())["ms"]
    ratio = times[ablation.WHOLE_SINES] / times["+ least change"]
    assert f"with steps {ratio:.0f} times as fast (chapter 6)" in readme
    assert make_config("laptop", "mnist").steps_per_task == ablation.FEW_STEPS * 4


SAID = (DataError, RunError, SweepError, DivergedError, NotLearnedError, OSError, ValueError)


@pytest.mark.parametrize("error", SAID)
def test_scripts_that_train_say_what_goes_wrong_in_one_line(error, capsys):
    def main(arguments=None):
        raise error(f"no {arguments}")

    assert command.in_one_line(main)("data") == 1
    assert capsys.readouterr().err == "error: no data\n"
    for script in (ablation, frontier, many_tasks, pace, reference, search, study, untold):
        assert script.main.__wrapped__.__doc__ == script.main.__doc__
