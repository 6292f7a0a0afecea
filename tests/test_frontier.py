"""The search behind the frontier: its rows can be planned, measured and sized."""

import json

import pytest
import torch

from hnetlib.experiment import paths
from hnetlib.experiment.data import load_data
from hnetlib.experiment.frontier import points, searched
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.profiles import PROFILES
from hnetlib.experiment.tasks import PermutedTasks
from report import frontier


def test_each_row_has_sound_settings_on_validation(monkeypatch):
    monkeypatch.setattr(frontier, "make_config", on_any_data)
    rows = list(frontier.planned())
    assert len({str(row) for row in rows}) == len(rows)
    for kind, settings in rows:
        config = frontier.config_of(kind, settings)
        assert config.split == "validation"
        assert config.permutation_seed >= 1000


def on_any_data(profile, dataset, **settings):
    return make(profile, "mnist5k", **settings)


make = frontier.make_config


@pytest.mark.parametrize(
    ("profile", "settings"),
    [
        ("tokens-small", frontier.SMALL),
        ("tokens", frontier.MIDDLE),
        ("tokens-large", frontier.LARGE),
    ],
)
def test_profiles_are_points_of_the_frontier(profile, settings):
    shared = PROFILES["tokens"] | settings
    mine = {name: list(v) if isinstance(v, tuple) else v for name, v in PROFILES[profile].items()}
    shared = {name: list(v) if isinstance(v, tuple) else v for name, v in shared.items()}
    assert mine == shared


def test_a_row_says_what_a_hundred_tasks_store(tiny):
    config = tiny(
        "tokens-small",
        num_tasks=4,
        steps_per_task=5,
        first_task_factor=1,
        target="mlp-24",
        pixels_with_token=300,
        batch_size=64,
    )
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), 4))
    for task in range(4):
        learner.learn_task(task)
    row = frontier.results(learner)
    generator, shared, start = 4 * 40 + 40 + 40 * 24 + 24, 24 + 24 * 10 + 10, 2
    assert row["stored"] == generator + shared + start + 100 * 300 * 4 + 100 * 784 / 32
    eighth = 100 * (300 * 4 / 4 + 2 * 4 + 784 / 32)
    assert row["stored_8_bits"] == generator + shared + start + eighth
    assert 0 <= row["acc_4_bits"] <= 1


def test_rounding_keeps_the_ends_and_has_so_many_values():
    token = torch.randn(500, 3)
    rounded = frontier.rounded(token, 4)
    assert all(len(column.unique()) <= 16 for column in rounded.T)
    torch.testing.assert_close(rounded.amax(0), token.amax(0))
    step = (token.amax(0) - token.amin(0)) / 15
    assert ((rounded - token).abs() <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("kind", ["linear", "random"])
def test_simple_rivals_have_no_sine_or_learn_nothing(tiny, kind):
    config = tiny("tokens-small", num_tasks=2, steps_per_task=5, batch_size=64)
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), 2))
    frontier.prepare_generator(kind, learner.hnet)
    before = learner.hnet.body[0].weight.clone()
    learner.learn_task(0)
    learner.learn_task(1)
    assert torch.equal(before, learner.hnet.body[0].weight) == (kind == "random")
    assert len(learner.hnet.body) == (1 if kind == "linear" else 2)


def test_one_thing_changed_keeps_more_only_with_more_steps():
    rows = json.loads((paths.reference_dir("frontier") / "search.json").read_text())
    (middle,) = [r for r in rows if (r["kind"], r["settings"]) == ("tokens", frontier.MIDDLE)]
    tried = [row for row in rows if row["kind"] == "tried"]
    assert len(tried) == len(frontier.TRIED) == 13
    assert all("-dirty" not in row["commit"] for row in tried)
    changes = [
        {k: v for k, v in row["settings"].items() if frontier.MIDDLE.get(k) != v}
        for row in tried
        if row["acc"] > middle["acc"]
    ]
    assert [list(change) for change in changes] == [["first_task_factor"], ["steps_per_task"]]


@pytest.mark.parametrize("kind", ["tokens", "separate"])
def test_points_of_a_search_rise_with_what_is_stored(kind):
    stored, acc = zip(*searched(kind), strict=True)
    assert list(stored) == sorted(set(stored))
    assert list(acc) == sorted(set(acc))


def test_points_name_where_they_are_from():
    known = points()
    own = {"tokens", "laptop", "original", "standard", "separate"}  # of committed runs
    assert all(name.endswith(("(validation)", "(published)")) for name in known.keys() - own)
    assert len(known["tokens"]) >= 2
    stored, acc = min(known["tokens"])
    assert stored <= 165_000
    assert acc >= 0.97
