"""Parts of a module: generated, shared or each task's own; and what is refused by name."""

import pytest
import torch
from kinds import KINDS, LayerScale, TwoParents, frozen
from nets import SETTINGS, moved, state
from torch import nn
from torch.func import vmap
from torch.nn.utils import prune

from hnetlib import Hypernetwork


@pytest.mark.parametrize("size", [1e-6, 0.1, 1.0])
def test_a_constant_start_keeps_its_size(size):
    gamma = Hypernetwork(LayerScale(size), 1, **SETTINGS)(0)["gamma"]
    assert 0.7 * size < gamma.min() < gamma.max() < 1.3 * size
    assert gamma.std() > 0.01 * size


def test_statistics_belong_to_each_task():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    hnet = Hypernetwork(module, 2, **SETTINGS).eval()
    x = torch.randn(8, 4)
    before = hnet.run(x, task=0)
    hnet.train()
    for _ in range(5):
        hnet.run(3 + x, task=1)
    hnet.eval()
    assert torch.equal(hnet.run(x, task=0), before)
    assert hnet(1)["1.num_batches_tracked"] == 5
    assert hnet(1)["1.running_mean"].abs().max() > 0.1
    assert not hnet(hnet.add_task())["1.running_mean"].any()
    together = vmap(hnet.run_target, in_dims=(0, None))(hnet.weights_of([0, 1]), x)
    torch.testing.assert_close(together[0], before)
    torch.testing.assert_close(together[1], hnet.run(x, task=1))


def test_running_a_token_leaves_all_statistics_alone():
    hnet = Hypernetwork(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), 1, **SETTINGS)
    before = state(hnet)
    hnet.run(torch.randn(8, 4), task=torch.randn(6))
    hnet.run_target(hnet.unflatten(hnet.generate(torch.randn(6))), torch.randn(8, 4))
    assert not moved(before, hnet)


def test_assigned_buffers_are_kept():
    module, (x,), _ = KINDS["assigns its buffer"]()
    hnet = Hypernetwork(module, 2, **SETTINGS)
    hnet.run(x, task=1)
    torch.testing.assert_close(hnet(1)["mean"], 0.1 * x.mean(0))
    assert not hnet(0)["mean"].any()


def test_a_frozen_part_keeps_its_values_and_its_size_is_counted():
    module = nn.Sequential(frozen(nn.Linear(4, 6)), nn.Linear(6, 3))
    hnet = Hypernetwork(module, 1, **SETTINGS)
    weights = hnet(0)
    assert torch.equal(weights["0.weight"], module[0].weight)
    assert hnet.num_weights == 21
    assert hnet.relative_size == sum(p.numel() for p in hnet.parameters()) / (21 + 30)
    assert not any(weights[name].requires_grad for name in ("0.weight", "0.bias"))
    own = hnet.materialize(0)
    assert [p.requires_grad for p in own.parameters()] == [False, False, True, True]


def test_named_parameters_are_generated_and_others_shared():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    hnet = Hypernetwork(module, 2, generate=["2.*"], **SETTINGS)
    assert [piece.names for piece in hnet.layout] == [("2.weight",), ("2.bias",)]
    assert torch.equal(hnet(0)["0.weight"], module[0].weight)
    before = state(hnet)
    optimizer = torch.optim.Adam(hnet.parameters_of(0))
    hnet.run(torch.randn(5, 4), task=0).square().sum().backward()
    optimizer.step()
    assert {"kept.shared.0/weight", "kept.shared.0/bias"} <= moved(before, hnet)
    assert torch.equal(hnet(0)["0.weight"], hnet(1)["0.weight"])
    assert not torch.equal(module[0].weight, hnet(0)["0.weight"]), "the module's own is a copy"
    assert hnet.weights_of([0, 1])["0.weight"].shape == (2, 6, 4)


@pytest.mark.parametrize("kind", ["tied embedding", "layer of two parents"])
def test_what_is_tied_is_generated_once_and_stays_tied(kind):
    module, _, _ = KINDS[kind]()
    hnet = Hypernetwork(module, 1, **SETTINGS)
    assert hnet.num_weights == sum(p.numel() for p in module.parameters())
    own = hnet.materialize(0)
    assert len(list(own.parameters())) == len(list(module.parameters()))
    if isinstance(own, TwoParents):
        assert own.in_order[0] is own.one
        assert own.one[0] is own.two[0]


def test_what_is_materialized_is_its_own():
    hnet = Hypernetwork(KINDS["batch norm"]()[0], 1, **SETTINGS)
    own, before = hnet.materialize(0), state(hnet)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    own(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    assert not moved(before, hnet)
    assert all(p.is_leaf and p.requires_grad for p in own.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ReLU(), "target: expected a module with parameters, got ReLU"),
        (lambda: nn.LazyLinear(3), "weight: not initialised yet; run the module"),
        (lambda: nn.Linear(4, 3, dtype=torch.complex64), "weight: expected real numbers, got"),
        (lambda: nn.Linear(4, 3, device="meta"), "weight: expected values to start from"),
        (lambda: frozen(nn.Linear(4, 3)), r"'\*' matches only frozen ones .* weight, bias"),
        (
            lambda: nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(4, 3))),
            r"0: torch\.nn\.utils\.spectral_norm .*use torch\.nn\.utils\.parametrizations",
        ),
        (
            lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(4, 3), "weight", 0.5)),
            r"0\.weight: computed from parameters",
        ),
    ],
)
def test_what_cannot_be_generated_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        Hypernetwork(make(), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"use torch\.nn\.utils\.parametrizations\.weight_norm"):
        Hypernetwork(torch.nn.utils.weight_norm(nn.Linear(4, 3)), 1)


def test_patterns_that_match_nothing_are_named():
    with pytest.raises(ValueError, match=r"'head\.\*' matches none of the parameters weight, bias"):
        Hypernetwork(nn.Linear(4, 3), 1, generate=["weight", "head.*"])


def test_precision_follows_the_hypernetwork():
    hnet = Hypernetwork(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), 1, **SETTINGS).double()
    assert hnet.run(torch.randn(5, 4).double(), task=0).dtype == torch.float64
    assert hnet.materialize(0)[1].running_mean.dtype == torch.float64
    assert hnet(0)["1.num_batches_tracked"].dtype == torch.int64
