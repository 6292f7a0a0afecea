"""What the penalty compares with: stored, made again, features; cheaper forms give the same."""

import pytest
import torch
from nets import CHUNKS, OLD_TASKS, gradients, learned, move, with_old_tasks

from hnetlib import snapshots as snapshots_module
from hnetlib import squares
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.snapshots import Features, GramRows, RemadeRows, StoredRows
from hnetlib.targets import MLP


def test_the_two_snapshots_differ_once_an_old_task_has_drifted():
    results = {}
    for snapshot in ("at_learning", "before_task"):
        hnet, regularizer = learned(snapshot)
        learned_weights = hnet(0)["layers.0.weight"].detach().clone()
        move(hnet)  # drift while the fourth task is learned
        drifted = hnet(0)["layers.0.weight"].detach().clone()
        regularizer.task = None
        regularizer._make_old(3)
        regularizer._begin(4)
        rows = regularizer.snapshots.rows(torch.arange(CHUNKS)) * hnet.scale + hnet.shift
        held = hnet.unflatten(rows.flatten()[: hnet.num_weights])
        results[snapshot] = held["layers.0.weight"]
        expected = learned_weights if snapshot == "at_learning" else drifted
        torch.testing.assert_close(results[snapshot], expected)
    assert not torch.equal(results["at_learning"], results["before_task"])


@pytest.fixture
def exact_forms(monkeypatch):
    """Makes the regulariser take one of the three forms of the exact penalty at any size."""

    def choose(form):
        monkeypatch.setattr(snapshots_module, "FEW_ROWS", 10**6 if form == "plain" else 0)
        monkeypatch.setattr(snapshots_module, "gram_is_cheaper", lambda *_: form == "gram")
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
        assert type(regularizer.snapshots) is (GramRows if one == "gram" else StoredRows)
        torch.manual_seed(1)
        move(hnet, distance)
        value = regularizer.penalty()
        found.append([value, *(g for g in gradients(hnet, value) if g is not None)])
    for ours, plain in zip(*reversed(found), strict=True):
        # the plain difference itself keeps no more digits than the distance leaves of 16
        torch.testing.assert_close(ours, plain, rtol=1e-14 / distance + 1e-10, atol=0)


def test_few_rows_take_the_gram_form_too_where_the_last_layer_is_narrow():
    """As in `paper10`: 25 features, so that 216 rows of 75,000 numbers are many."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((64, 60, 3)), 6, num_chunks=8, hnet_hidden=(4,))
    regularizer = with_old_tasks(hnet, 5, penalty="all")
    assert 20 < len(regularizer.snapshots.base) < len(regularizer.draw()) == 40
    before = [hnet.generate(hnet.task_tokens[s]).detach() for s in range(5)]
    move(hnet, 0.01)
    now = [hnet.generate(hnet.task_tokens[s]) for s in range(5)]
    by_hand = sum((a - b).square().sum() for a, b in zip(now, before, strict=True)) / 5
    torch.testing.assert_close(regularizer.penalty(), by_hand, rtol=1e-4, atol=0)
    _, penalty = regularizer.weights_and_penalty()
    torch.testing.assert_close(penalty, by_hand, rtol=1e-4, atol=0)


def test_the_gram_form_takes_chunks_of_one_scale_and_blocks_take_the_rest(exact_forms):
    exact_forms("gram")
    hnet, regularizer = learned()
    uniform = [len(set(row.tolist())) == 1 for row in hnet.scale]
    assert 0 < sum(uniform) < CHUNKS
    assert len(regularizer.snapshots.base) == OLD_TASKS * sum(uniform)
    assert sorted(regularizer.draw().tolist()) == list(range(OLD_TASKS * CHUNKS))


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_features_are_snapshots_enough_where_the_last_layer_stays(penalty):
    """Value and gradient as with stored rows, while only what comes before that layer moves."""
    found = []
    for still in (False, True):
        torch.manual_seed(0)
        hnet = Hypernetwork(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(9,)).double()
        least_change = LeastChange(hnet) if still else None
        settings = {"penalty": penalty, "penalty_size": 2, "least_change": least_change}
        regularizer = with_old_tasks(hnet, OLD_TASKS, **settings)
        assert isinstance(regularizer.snapshots, Features if still else StoredRows)
        assert regularizer.penalty() < 1e-24
        moving = [*hnet.body.parameters(), hnet.chunk_tokens]
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in moving:
                parameter += 0.1 * torch.randn_like(parameter)
        pairs = regularizer.draw(torch.Generator().manual_seed(2))
        weights, value = regularizer.weights_and_penalty(pairs)
        assert value > 1e-3
        loss = value + sum(weight.square().sum() for weight in weights.values())
        found.append([value, *torch.autograd.grad(loss, [*moving, hnet.task_tokens[3]])])
    for stored, features in zip(*found, strict=True):
        torch.testing.assert_close(features, stored, rtol=1e-9, atol=1e-12)


def test_snapshots_too_large_to_store_are_made_again(monkeypatch):
    values = []
    for limit in (2**28, 0):
        monkeypatch.setattr(snapshots_module, "SNAPSHOT_BYTES", limit)
        hnet, regularizer = learned(penalty="rows", penalty_size=7)
        torch.manual_seed(1)
        move(hnet)
        values.append(regularizer.penalty(torch.Generator().manual_seed(0)))
        assert type(regularizer.snapshots) is (StoredRows if limit else RemadeRows)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
@pytest.mark.parametrize("few_rows", [0, 512])
def test_one_pass_gives_the_same_weights_and_penalty_as_two(monkeypatch, penalty, few_rows):
    monkeypatch.setattr(snapshots_module, "FEW_ROWS", few_rows)
    hnet, regularizer = learned(penalty=penalty)
    move(hnet)
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    weights, value = regularizer.weights_and_penalty(pairs)
    torch.testing.assert_close(value, regularizer.penalty_over(pairs))
    for name, weight in hnet(3).items():
        torch.testing.assert_close(weights[name], weight)


@pytest.mark.parametrize("frozen_layer", [False, True])
def test_blocks_give_no_gradient_to_a_layer_that_does_not_learn(monkeypatch, frozen_layer):
    monkeypatch.setattr(snapshots_module, "FEW_ROWS", 0)
    hnet, regularizer = learned("at_learning")
    move(hnet)
    hnet.output_layer.requires_grad_(not frozen_layer)
    products, original = [], torch.Tensor.addmm_

    def counted(*args, **kwargs):
        products.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "addmm_", counted)
    regularizer.penalty().backward()
    assert bool(products) != frozen_layer
    assert (hnet.output_layer.weight.grad is None) == frozen_layer
    assert hnet.chunk_tokens.grad.abs().max() > 0
