"""The penalty: zero at the snapshot, a plain sum away from it, sampled kinds equal on average."""

import copy
import itertools

import pytest
import torch
from nets import CHUNKS, OLD_TASKS, gradients, learned, move, with_old_tasks

from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP


def same_but_exact(regularizer):
    """A regulariser over all pairs with the tokens and snapshots of another."""
    exact = copy.copy(regularizer)
    exact.kind = "all"
    return exact


@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_zero_at_the_snapshot_and_positive_away_from_it(snapshot, penalty):
    hnet, regularizer = learned(snapshot, penalty)
    assert regularizer.penalty() < 1e-24  # rows are multiplied in another order: rounding, squared
    move(hnet)
    assert regularizer.penalty() > 1e-3


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_bf16_leaves_the_penalty_in_full_precision(penalty):
    """Rounding weights to bf16 moves them further than a step does: it would be penalised."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, num_chunks=CHUNKS, hnet_hidden=(9,))
    regularizer = with_old_tasks(hnet, penalty=penalty, penalty_size=2)
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    for size in (0.0, 1e-4):
        move(hnet, size)
        exact = regularizer.penalty_over(pairs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights, together = regularizer.weights_and_penalty(pairs)
            assert torch.equal(exact, regularizer.penalty_over(pairs))
        torch.testing.assert_close(together, exact, rtol=1e-4, atol=1e-10)
        name, rounded = next(iter(weights.items()))
        assert not torch.equal(rounded, hnet(1)[name])


def test_zero_without_old_tasks():
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, hnet_hidden=(9,))
    assert with_old_tasks(hnet, 0).penalty() == 0


def test_equals_the_sum_by_hand_over_the_used_weights():
    hnet, regularizer = learned()
    before = [{n: w.detach().clone() for n, w in hnet(s).items()} for s in range(OLD_TASKS)]
    assert hnet.num_weights % CHUNKS, "the last chunk must have padding for this test to see it"
    move(hnet)
    by_hand = 0.0
    for task in range(OLD_TASKS):
        for name, weight in hnet(task).items():
            by_hand += (weight - before[task][name]).square().sum() / OLD_TASKS
    torch.testing.assert_close(regularizer.penalty(), by_hand)


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
        values.append(regularizer.penalty())
    mean = sum(values) / len(draws)
    torch.testing.assert_close(mean, exact.penalty())
    for ours, theirs in zip(gradients(hnet, mean), gradients(hnet, exact.penalty()), strict=True):
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
    torch.testing.assert_close(regularizer.penalty(), exact.penalty())


def test_no_gradient_reaches_frozen_tokens_or_snapshots():
    hnet, regularizer = learned("at_learning")
    move(hnet)
    regularizer.penalty().backward()
    assert all(hnet.task_tokens[task].grad is None for task in range(OLD_TASKS))
    assert not regularizer.snapshots.stored.requires_grad
    assert hnet.chunk_tokens.grad.abs().max() > 0


def test_wrong_settings_say_what_was_expected():
    hnet = Hypernetwork(MLP((6, 5, 3)), 1, hnet_hidden=(9,))
    with pytest.raises(ValueError, match="penalty: expected one of rows, tasks, all, got 'most'"):
        TaskRegularizer(hnet, penalty="most")
    with pytest.raises(ValueError, match="snapshot: expected one of"):
        TaskRegularizer(hnet, snapshot="never")
    with pytest.raises(
        ValueError, match="penalty_size: expected a whole number of at least 1, got 0"
    ):
        TaskRegularizer(hnet, penalty_size=0)
