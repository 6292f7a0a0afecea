"""The penalty: zero at the snapshot, a plain sum away from it, sampled kinds equal on average."""

import copy
import itertools

import pytest
import torch

from hnetlib import regularizer as regularizer_module
from hnetlib import squares
from hnetlib.hypernet import hypernetize
from hnetlib.regularizer import TaskRegularizer
from hnetlib.snapshots import FeatureSnapshots, FrozenHead, StoredRows
from hnetlib.targets import MLP

OLD_TASKS, CHUNKS = 3, 4


def learned(snapshot="before_task", penalty="all", penalty_size=2):
    """A float64 hypernetwork with three old tasks, moved away from their snapshots."""
    torch.manual_seed(0)
    hnet = hypernetize(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(9,)).double()
    regularizer = TaskRegularizer(
        hnet, snapshot=snapshot, penalty=penalty, penalty_size=penalty_size
    )
    for task in range(OLD_TASKS):
        regularizer.begin_task()
        hnet.freeze_token(task)
        regularizer.end_task(task)
    regularizer.begin_task()
    return hnet, regularizer


def same_but_exact(regularizer):
    """A regulariser over all pairs with the tokens and snapshots of another."""
    exact = copy.copy(regularizer)
    exact.penalty = "all"
    return exact


def move(hnet, size=0.1):
    with torch.no_grad():
        for parameter in hnet.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)


def gradients(hnet, value):
    parameters = [p for p in hnet.parameters() if p.requires_grad]
    return torch.autograd.grad(value, parameters, allow_unused=True)


@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_zero_at_the_snapshot_and_positive_away_from_it(snapshot, penalty):
    hnet, regularizer = learned(snapshot, penalty)
    assert regularizer() < 1e-24  # rows are multiplied in another order: rounding, squared
    move(hnet)
    assert regularizer() > 1e-3


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_bf16_leaves_the_penalty_in_full_precision(penalty):
    """Rounding weights to bf16 moves them further than a step does: it would be penalised."""
    torch.manual_seed(0)
    hnet = hypernetize(MLP((6, 5, 3)), 2, num_chunks=CHUNKS, hnet_hidden=(9,))
    regularizer = TaskRegularizer(hnet, penalty=penalty, penalty_size=2)
    hnet.freeze_token(0)
    regularizer.end_task(0)
    regularizer.begin_task()
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    for size in (0.0, 1e-4):
        move(hnet, size)
        exact = regularizer.penalty_over(pairs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights, together = regularizer.weights_and_penalty(1, pairs)
            assert torch.equal(exact, regularizer.penalty_over(pairs))
        torch.testing.assert_close(together, exact, rtol=1e-4, atol=1e-10)
        name, rounded = next(iter(weights.items()))
        assert not torch.equal(rounded, hnet(1)[name])


def test_zero_without_old_tasks():
    hnet = hypernetize(MLP((6, 5, 3)), 2, hnet_hidden=(9,))
    regularizer = TaskRegularizer(hnet)
    regularizer.begin_task()
    assert regularizer() == 0


def test_equals_the_sum_by_hand_over_the_used_weights():
    hnet, regularizer = learned()
    before = [{n: w.detach().clone() for n, w in hnet(s).items()} for s in range(OLD_TASKS)]
    assert hnet.num_weights % CHUNKS, "the last chunk must have padding for this test to see it"
    move(hnet)
    by_hand = 0.0
    for task in range(OLD_TASKS):
        for name, weight in hnet(task).items():
            by_hand += (weight - before[task][name]).square().sum() / OLD_TASKS
    torch.testing.assert_close(regularizer(), by_hand)


@pytest.mark.parametrize(("penalty", "population"), [("tasks", 3), ("rows", 12)])
def test_sampled_kinds_equal_all_in_expectation_with_their_gradients(
    monkeypatch, penalty, population
):
    """Averages over every possible draw of two, instead of many random ones: exact."""
    hnet, regularizer = learned(penalty=penalty)
    move(hnet)
    exact = same_but_exact(regularizer)
    draws = list(itertools.combinations(range(population), 2))
    values = []
    for draw in draws:
        monkeypatch.setattr(regularizer, "_choose", lambda *_, draw=draw: torch.tensor(draw))
        values.append(regularizer())
    mean = sum(values) / len(draws)
    torch.testing.assert_close(mean, exact())
    for ours, theirs in zip(gradients(hnet, mean), gradients(hnet, exact()), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


def test_draws_are_uniform_and_without_replacement():
    _, regularizer = learned(penalty="rows", penalty_size=5)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([regularizer._choose(12, generator) for _ in range(2000)])
    assert all(len(set(draw)) == 5 for draw in draws.tolist())
    counts = draws.flatten().bincount(minlength=12)
    assert (counts - 2000 * 5 / 12).abs().max() < 5 * (2000 * 5 / 12) ** 0.5


def test_a_draw_larger_than_the_population_is_exact():
    hnet, regularizer = learned(penalty="rows", penalty_size=1000)
    move(hnet)
    exact = same_but_exact(regularizer)
    torch.testing.assert_close(regularizer(), exact())


def test_the_two_snapshots_differ_once_an_old_task_has_drifted():
    results = {}
    for snapshot in ("at_learning", "before_task"):
        hnet, regularizer = learned(snapshot)
        learned_weights = hnet(0)["layers.0.weight"].detach().clone()
        move(hnet)  # drift while the fourth task is learned
        drifted = hnet(0)["layers.0.weight"].detach().clone()
        hnet.freeze_token(3)
        regularizer.end_task(3)
        regularizer.begin_task()
        rows = regularizer.snapshots.rows(torch.arange(CHUNKS)) * hnet.scale + hnet.shift
        held = hnet.unflatten(rows.flatten()[: hnet.num_weights])
        results[snapshot] = held["layers.0.weight"]
        expected = learned_weights if snapshot == "at_learning" else drifted
        torch.testing.assert_close(results[snapshot], expected)
    assert not torch.equal(results["at_learning"], results["before_task"])


def test_no_gradient_reaches_frozen_tokens_or_snapshots():
    hnet, regularizer = learned("at_learning")
    move(hnet)
    regularizer().backward()
    assert all(hnet.task_tokens[task].grad is None for task in range(OLD_TASKS))
    assert not regularizer.snapshots.stored.requires_grad
    assert hnet.chunk_tokens.grad.abs().max() > 0


def test_wrong_settings_say_what_was_expected():
    hnet = hypernetize(MLP((6, 5, 3)), hnet_hidden=(9,))
    with pytest.raises(ValueError, match="penalty: expected one of rows, tasks, all, got 'most'"):
        TaskRegularizer(hnet, penalty="most")
    with pytest.raises(ValueError, match="snapshot: expected one of"):
        TaskRegularizer(hnet, snapshot="never")
    with pytest.raises(ValueError, match="penalty_size: expected at least 1, got 0"):
        TaskRegularizer(hnet, penalty_size=0)
    regularizer = TaskRegularizer(hnet)
    regularizer.end_task(0)
    with pytest.raises(ValueError, match="not old yet, got 0"):
        regularizer.end_task(0)


@pytest.fixture
def exact_forms(monkeypatch):
    """Makes the regulariser take one of the three forms of the exact penalty at any size."""

    def choose(form):
        monkeypatch.setattr(regularizer_module, "FEW_ROWS", 10**6 if form == "plain" else 0)
        monkeypatch.setattr(regularizer_module, "gram_is_cheaper", lambda *_: form == "gram")
        monkeypatch.setattr(squares, "BLOCK", 5)

    return choose


@pytest.mark.parametrize("distance", [1e-6, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("form", ["blocks", "gram"])
def test_cheaper_exact_forms_keep_value_and_gradient(exact_forms, form, distance):
    """Against the plain sum, in float64, near the snapshot and far from it."""
    found = []
    for one in ("plain", form):
        exact_forms(one)
        hnet, regularizer = learned()
        assert isinstance(regularizer.snapshots, FrozenHead if one == "gram" else StoredRows)
        torch.manual_seed(1)
        move(hnet, distance)
        value = regularizer()
        found.append([value, *(g for g in gradients(hnet, value) if g is not None)])
    for ours, plain in zip(*reversed(found), strict=True):
        # the plain difference itself keeps no more digits than the distance leaves of 16
        torch.testing.assert_close(ours, plain, rtol=1e-14 / distance + 1e-10, atol=0)


def test_few_rows_take_the_gram_form_too_where_the_last_layer_is_narrow():
    """As in `paper10`: 25 features, so that 216 rows of 75,000 numbers are many."""
    torch.manual_seed(0)
    hnet = hypernetize(MLP((64, 60, 3)), 6, num_chunks=8, hnet_hidden=(4,))
    regularizer = TaskRegularizer(hnet, penalty="all")
    for task in range(5):
        hnet.freeze_token(task)
        regularizer.end_task(task)
    regularizer.begin_task()
    assert 20 < len(regularizer._base.rows) < len(regularizer.draw()) == 40
    before = [hnet.generate(hnet.task_tokens[s]).detach() for s in range(5)]
    move(hnet, 0.01)
    now = [hnet.generate(hnet.task_tokens[s]) for s in range(5)]
    by_hand = sum((a - b).square().sum() for a, b in zip(now, before, strict=True)) / 5
    torch.testing.assert_close(regularizer(), by_hand, rtol=1e-4, atol=0)
    _, penalty = regularizer.weights_and_penalty(5, regularizer.draw())
    torch.testing.assert_close(penalty, by_hand, rtol=1e-4, atol=0)


def test_the_gram_form_takes_chunks_of_one_scale_and_blocks_take_the_rest(exact_forms):
    exact_forms("gram")
    hnet, regularizer = learned()
    uniform = [len(set(row.tolist())) == 1 for row in hnet.scale]
    assert 0 < sum(uniform) < CHUNKS
    assert len(regularizer._base.rows) == OLD_TASKS * sum(uniform)
    assert sorted(regularizer.draw().tolist()) == list(range(OLD_TASKS * CHUNKS))


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_features_are_snapshots_enough_where_the_last_layer_stays(penalty):
    """Value and gradient as with stored rows, while only what comes before that layer moves."""
    found = []
    for still in (False, True):
        torch.manual_seed(0)
        hnet = hypernetize(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(9,)).double()
        hnet.head.requires_grad_(not still)
        regularizer = TaskRegularizer(hnet, penalty=penalty, penalty_size=2)
        for task in range(OLD_TASKS):
            hnet.freeze_token(task)
            regularizer.end_task(task)
        regularizer.begin_task()
        assert isinstance(regularizer.snapshots, FeatureSnapshots if still else StoredRows)
        assert regularizer() < 1e-24
        moving = [*hnet.body.parameters(), hnet.chunk_tokens]
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in moving:
                parameter += 0.1 * torch.randn_like(parameter)
        pairs = regularizer.draw(torch.Generator().manual_seed(2))
        weights, value = regularizer.weights_and_penalty(3, pairs)
        assert value > 1e-3
        loss = value + sum(weight.square().sum() for weight in weights.values())
        found.append([value, *torch.autograd.grad(loss, [*moving, hnet.task_tokens[3]])])
    for stored, features in zip(*found, strict=True):
        torch.testing.assert_close(features, stored, rtol=1e-9, atol=1e-12)


def test_a_last_layer_that_was_said_to_stay_and_did_not_is_named():
    hnet, _ = learned()
    hnet.head.requires_grad_(False)
    regularizer = TaskRegularizer(hnet)
    regularizer.end_task(0)
    regularizer.begin_task()
    with torch.no_grad():
        hnet.head.weight.mul_(2)
    with pytest.raises(RuntimeError, match="call begin_task again"):
        regularizer()
    regularizer.begin_task()
    assert regularizer() < 1e-24


def test_snapshots_too_large_to_store_are_made_again(monkeypatch):
    values = []
    for limit in (2**28, 0):
        monkeypatch.setattr(regularizer_module, "SNAPSHOT_BYTES", limit)
        hnet, regularizer = learned(penalty="rows", penalty_size=7)
        torch.manual_seed(1)
        move(hnet)
        values.append(regularizer(torch.Generator().manual_seed(0)))
        assert isinstance(regularizer.snapshots, StoredRows if limit else FrozenHead)
    torch.testing.assert_close(*values)


def test_half_precision_snapshots_take_half_the_memory_and_stay_near():
    stored = []
    for precision in ("float32", "float16"):
        torch.manual_seed(0)
        hnet = hypernetize(MLP((6, 5, 3)), 2, num_chunks=CHUNKS, hnet_hidden=(9,))
        regularizer = TaskRegularizer(hnet, snapshot="at_learning", snapshot_precision=precision)
        regularizer.end_task(0)
        regularizer.begin_task()
        stored.append(regularizer.snapshots.stored)
        assert regularizer() < 1e-5
    assert stored[1].nbytes * 2 == stored[0].nbytes
    torch.testing.assert_close(stored[1].float(), stored[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
@pytest.mark.parametrize("few_rows", [0, 512])
def test_one_pass_gives_the_same_weights_and_penalty_as_two(monkeypatch, penalty, few_rows):
    monkeypatch.setattr(regularizer_module, "FEW_ROWS", few_rows)
    hnet, regularizer = learned(penalty=penalty)
    move(hnet)
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    weights, value = regularizer.weights_and_penalty(3, pairs)
    torch.testing.assert_close(value, regularizer.penalty_over(pairs))
    for name, weight in hnet(3).items():
        torch.testing.assert_close(weights[name], weight)
