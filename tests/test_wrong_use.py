"""What would be lost, or computed wrongly, without a word: one line instead, or it is right."""

import copy
import types

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer
from hnetlib.chunks import Along

SMALL = {"num_chunks": 3, "task_token_dim": 4, "hnet_hidden": (16,)}


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def steps(hnet, keep, task, number=5, last_layer=None):
    """Moves what an optimizer of the task has, and returns the penalty after."""
    optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=1e-2)
    for _ in range(number):
        x = torch.randn(32, 4)
        optimizer.zero_grad()
        loss = cross_entropy(hnet.run(x, task=task), (x[:, 0] > 0).long()) + keep.penalty()
        loss.backward()
        optimizer.step()
        if last_layer:
            last_layer.step(lr=0.01)
    return float(keep.penalty().detach())


def begin(keep, task, then=lambda: None):
    """Begins a task, does something more, and ends it."""
    with keep.learning(task):
        then()


def learned(num_tasks=3, least_change=False, **settings):
    """A hypernetwork that learned task 0, and its regulariser."""
    hnet = Hypernetwork(module(), num_tasks, **SMALL)
    last_layer = LeastChange(hnet) if least_change else None
    keep = TaskRegularizer(hnet, penalty="all", least_change=last_layer, **settings)
    with keep.learning(0):
        steps(hnet, keep, 0, last_layer=last_layer)
    return hnet, keep


@pytest.mark.parametrize(
    "settings",
    [
        {"num_chunks": 16, "hnet_hidden": (16,)},  # ReLUs that are 0 for all chunks
        {"num_chunks": 16, "hnet_hidden": (32,), "task_token_dim": 8, "chunk_token_dim": 1},
    ],
    ids=str,
)
def test_chunks_without_independent_features_are_refused_before_anything_is_learned(settings):
    hnet = Hypernetwork(module(), 1, **settings)
    last_layer = LeastChange(hnet)
    keep = TaskRegularizer(hnet, least_change=last_layer)
    with pytest.raises(ValueError, match=r"num_chunks: expected chunks whose .* independent"):
        begin(keep, 0, lambda: pytest.fail("begun"))
    assert all(p.requires_grad for p in hnet.parameters())
    assert not hnet.extra_rows


def test_features_that_stop_being_independent_are_no_finished_task():
    hnet = Hypernetwork(module(), 1, **SMALL)
    last_layer = LeastChange(hnet)
    keep = TaskRegularizer(hnet, least_change=last_layer)

    @torch.no_grad()
    def spoil():
        with torch.enable_grad():
            steps(hnet, keep, 0, last_layer=last_layer)
        hnet.chunk_tokens.copy_(hnet.chunk_tokens[:1].clone().expand(3, -1))

    with pytest.raises(ValueError, match="independent"):
        begin(keep, 0, spoil)
    assert keep.old_tasks == []


@pytest.mark.parametrize("least_change", [False, True])
def test_states_are_loaded_in_either_order(least_change):
    hnet, keep = learned(least_change=least_change)
    with keep.learning(1):
        steps(hnet, keep, 1, last_layer=keep.least_change)
        both = copy.deepcopy((hnet.state_dict(), keep.state_dict()))
        expected = float(keep.penalty().detach())
    for hnet_first in (True, False):
        torch.manual_seed(1)
        other = Hypernetwork(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), 3, **SMALL)
        last_layer = LeastChange(other) if least_change else None
        again = TaskRegularizer(other, penalty="all", least_change=last_layer)
        loads = list(zip((other, again), both, strict=True))
        for one, state in loads if hnet_first else loads[::-1]:
            one.load_state_dict(state)
        with again.learning(1):
            assert float(again.penalty().detach()) == expected > 0


class Listed(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 2))
        self.all = {"list": [self.w], "dict": {"w": (self.w,)}}[kind]

    def forward(self, x):
        return x @ self.w


def closed_over():
    part = nn.Sequential(nn.Linear(4, 2))
    part.scaled = lambda x: 2 * part[0](x)
    return part


def patched():
    part = nn.Sequential(nn.Linear(4, 2))
    old = part[0].forward
    part[0].forward = lambda x: torch.relu(old(x))
    return part


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: Listed("list"), "all"),
        (lambda: Listed("dict"), "all"),
        (closed_over, "scaled"),
        (patched, "0.forward"),
    ],
)
def test_what_reaches_parameters_another_way_is_refused(made, name):
    with pytest.raises(ValueError, match=f"^{name}: reaches a parameter or module past"):
        Hypernetwork(made(), 1, hnet_hidden=(8,))


def test_bound_methods_and_lists_of_modules_see_generated_values():
    part = nn.Sequential(nn.Linear(4, 2))
    part.both = [part[0]]
    part.run_it = part[0].forward
    part.forward = types.MethodType(lambda self, x: self.run_it(x) + self.both[0](x), part)
    hnet = Hypernetwork(part, 1, hnet_hidden=(8,))
    x, weights = torch.randn(3, 4), hnet(0)
    expected = 2 * (x @ weights["0.weight"].T + weights["0.bias"])
    torch.testing.assert_close(hnet.run(x, task=0), expected)


class Fills(nn.Module):
    """Fills a buffer when it is first run."""

    def __init__(self, registered):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        if registered:
            self.register_buffer("mean", None, persistent=False)

    def forward(self, x):
        if getattr(self, "mean", None) is None:
            self.register_buffer("mean", x.mean(0).detach(), persistent=False)
        return self.layer(x - self.mean)


@pytest.mark.parametrize("registered", [True, False])
def test_a_buffer_that_the_first_run_fills_is_named_and_not_kept(registered):
    hnet = Hypernetwork(Fills(registered), 2, hnet_hidden=(8,))
    for task in (0, 1):
        with pytest.raises(RuntimeError, match="mean: the module made it in its forward"):
            hnet.run(torch.randn(3, 4) + 100 * task, task=task)
    run_before = Fills(registered)
    run_before(torch.zeros(1, 4))
    Hypernetwork(run_before, 1, hnet_hidden=(8,)).run(torch.randn(3, 4), task=0)


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (torch.tensor(1), lambda old, x: old * 0.5),
        (torch.zeros(4), lambda old, x: x.mean()),
        (torch.zeros(1, 4), lambda old, x: x),
    ],
)
def test_a_buffer_assigned_in_another_shape_or_type_is_named(start, change):
    class Assigns(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("kept", start)

        def forward(self, x):
            self.kept = change(self.kept, x)
            return self.layer(x)

    hnet = Hypernetwork(Assigns(), 1, hnet_hidden=(8,))
    with pytest.raises(ValueError, match="kept: expected the module to assign"):
        hnet.run(torch.randn(3, 4), task=0)


def test_what_was_thawed_is_no_longer_held():
    hnet, keep = learned()
    hnet.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"tasks \[0\] are old ones, but have no frozen token"):
        begin(keep, 1)
    hnet.freeze_token(0)
    hnet.freeze_generator()
    hnet.requires_grad_(False).requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"hnet.freeze_generator\(\) freezes it again"):
        begin(keep, 1)


def test_the_state_of_the_regulariser_wants_that_of_the_hypernetwork():
    _, keep = learned()
    other = TaskRegularizer(Hypernetwork(module(), 3, **SMALL), penalty="all")
    other.load_state_dict(keep.state_dict())
    with pytest.raises(RuntimeError, match=r"hnet.load_state_dict\(...\) .* is missing"):
        begin(other, 1)


def test_a_generator_frozen_within_a_task_stays_frozen():
    hnet, keep = learned(least_change=True)
    with keep.learning(1):
        steps(hnet, keep, 1, last_layer=keep.least_change)
        hnet.freeze_generator()
    assert not hnet.output_layer.weight.requires_grad


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("least_change", [False, True])
def test_who_begins_again_after_an_interruption_is_held_to_what_was_before(least_change, reloaded):
    hnet, keep = learned(least_change=least_change)
    before = hnet(0)["0.weight"].detach().clone()

    def stopped():
        steps(hnet, keep, 1, last_layer=keep.least_change)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(keep, 1, stopped)
    assert not torch.equal(hnet(0)["0.weight"], before)
    if reloaded:
        state = copy.deepcopy(keep.state_dict())
        keep = TaskRegularizer(hnet, penalty="all", least_change=keep.least_change)
        keep.load_state_dict(state)
    with keep.learning(2):  # whichever comes next
        moved = hnet(0)["0.weight"] - before
        assert float(keep.penalty().detach()) > 0
        assert moved.abs().max() > 0
        steps(hnet, keep, 2, last_layer=keep.least_change)
    with keep.learning(1):
        assert float(keep.penalty().detach()) < 1e-10  # the next task starts from where it is


def test_least_change_learns_nothing_without_its_step():
    hnet, keep = learned(least_change=True)
    with pytest.raises(RuntimeError, match="step: expected a call after each backward"):
        begin(keep, 1, lambda: steps(hnet, keep, 1))
    assert keep.old_tasks == [0]


def test_chunks_of_a_task_hold_what_is_being_learned():
    hnet, keep = learned(least_change=True)
    with keep.learning(1):
        steps(hnet, keep, 1, last_layer=keep.least_change)
        flat = hnet.chunks.flatten(hnet.chunks_of(1))
        torch.testing.assert_close(hnet.unflatten(flat)["0.weight"], hnet(1)["0.weight"])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hnet_hidden": 64}, r"hnet_hidden: expected positive layer sizes, as \(64, 64\), got 64"),
        ({"hnet_hidden": (8, 0)}, "hnet_hidden: expected positive layer sizes"),
        ({"cut": "flat"}, r"cut: expected FlatChunks or Along\({name: dim}\), got 'flat'"),
        ({"generate": []}, r"generate: expected a pattern of names or several, got \[\]"),
        ({"num_chunks": 2.0}, "num_chunks: expected a whole number of at least 1, got 2.0"),
        ({"hnet_activation": "sine", "frequency": 0.0}, "frequency: expected None or above 0"),
    ],
)
def test_settings_of_another_kind_are_named(settings, line):
    with pytest.raises(ValueError, match=line):
        Hypernetwork(module(), 1, **settings)


def test_sizes_may_come_one_by_one_and_arguments_have_any_name():
    hnet = Hypernetwork(module(), 1, hnet_hidden=map(int, ["16", "8"]))
    assert [layer.out_features for layer in hnet.body if hasattr(layer, "out_features")] == [16, 8]

    class Weighted(nn.Linear):
        def forward(self, x, weights):
            return weights * super().forward(x)

    doubled = Hypernetwork(Weighted(4, 2), 1, hnet_hidden=(8,)).run(
        torch.ones(1, 4), task=0, weights=2.0
    )
    assert doubled.shape == (1, 2)


def test_a_cut_is_made_of_names_and_dimensions():
    with pytest.raises(ValueError, match=r"cut: expected {name of a parameter: dimension}, got '0"):
        Along("0.weight")
