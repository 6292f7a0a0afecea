"""What would be lost, or computed wrongly, without a word: one line instead, or it is right."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer

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
    assert last_layer.state() is None
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


def test_an_interrupted_state_of_least_change_wants_least_change_again():
    hnet, keep = learned(least_change=True)

    def stopped():
        steps(hnet, keep, 1, last_layer=keep.least_change)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(keep, 1, stopped)
    plain = TaskRegularizer(hnet, penalty="all")  # whose output layer would learn unseen
    for state in (keep.state_dict(), keep.state_dict() | {"form": "none"}):
        with pytest.raises(ValueError, match="expected"):
            plain.load_state_dict(state)
    assert not plain.old_tasks


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
    ("make", "line"),
    [
        (lambda hnet: Hypernetwork(nn.Linear), "module: expected Module, got the class Linear"),
        (lambda hnet: Hypernetwork([module()]), "module: expected Module, got list"),
        (lambda hnet: LeastChange(module()), "hnet: expected Hypernetwork, got Sequential"),
        (lambda hnet: TaskRegularizer(None), "hnet: expected Hypernetwork, got NoneType"),
        (
            lambda hnet: TaskRegularizer(hnet, least_change=LeastChange),
            "least_change: expected LeastChange, got the class LeastChange",
        ),
        (
            lambda hnet: TaskRegularizer(hnet, least_change=False),
            "least_change: expected LeastChange, got bool",
        ),
        (lambda hnet: LeastChange(hnet, damping="1"), "damping: expected Real, got str"),
        (lambda hnet: TaskRegularizer(hnet, old_tasks=1), "old_tasks: expected Iterable, got int"),
    ],
)
def test_a_thing_of_another_kind_is_named(make, line):
    hnet = Hypernetwork(module(), 2, **SMALL)
    with pytest.raises(TypeError, match=f"^{line}$"):
        make(hnet)


def test_old_tasks_count_once():
    hnet = Hypernetwork(module(), 2, **SMALL)
    assert TaskRegularizer(hnet, old_tasks=[1, 0, 1]).old_tasks == [1, 0]


def test_the_weights_of_no_task_are_none():
    with pytest.raises(ValueError, match="tasks: expected at least one, got none"):
        Hypernetwork(module(), 2, **SMALL).weights_of([])


def test_a_batch_that_is_no_number_costs_least_change_nothing():
    hnet = Hypernetwork(module(), 2, **SMALL)
    last_layer = LeastChange(hnet)
    keep = TaskRegularizer(hnet, least_change=last_layer)
    with keep.learning(0):
        steps(hnet, keep, 0, last_layer=last_layer)
    before = hnet(0)["0.weight"].detach().clone()
    with keep.learning(1):
        optimizer = torch.optim.Adam(hnet.parameters_of(1), lr=1e-2)
        for number in range(5):
            x = torch.full((8, 4), float("nan")) if number == 2 else torch.randn(8, 4)
            loss = cross_entropy(hnet.run(x, task=1), (x[:, 0] > 0).long()) + keep.penalty()
            optimizer.zero_grad()
            loss.backward()
            last_layer.step(lr=0.01)
            norm = nn.utils.clip_grad_norm_(hnet.parameters_of(1), 1.0)
            if norm.isfinite():
                optimizer.step()
    assert all(value.isfinite().all() for task in (0, 1) for value in hnet(task).values())
    assert (hnet(0)["0.weight"] - before).norm() < 0.5 * before.norm()


def test_a_change_that_is_no_number_is_not_written():
    hnet = Hypernetwork(module(), 2, **SMALL)
    last_layer = LeastChange(hnet)
    keep = TaskRegularizer(hnet, least_change=last_layer)

    def spoil():
        steps(hnet, keep, 0, last_layer=last_layer)
        last_layer.change.data.fill_(float("nan"))

    with pytest.raises(RuntimeError, match=r"learning\(0\): its change is not finite"):
        begin(keep, 0, spoil)
    assert hnet.output_layer.weight.isfinite().all()
    assert keep.old_tasks == []


def test_a_token_that_is_no_number_makes_no_old_task():
    hnet = Hypernetwork(module(), 2, **SMALL)
    keep = TaskRegularizer(hnet)

    def spoil():
        steps(hnet, keep, 0)
        hnet.task_tokens[0].data.fill_(float("nan"))

    with pytest.raises(RuntimeError, match=r"learning\(0\): its token is not finite"):
        begin(keep, 0, spoil)
    assert keep.old_tasks == []


def test_chunks_selected_while_a_task_is_learned_are_named():
    hnet = Hypernetwork(module(), 2, tokens="chunk", **SMALL)
    keep = TaskRegularizer(hnet)

    def select():
        steps(hnet, keep, 0, number=1)
        hnet.select_chunks(0, torch.tensor([True, False, True]))

    with pytest.raises(RuntimeError, match=r"learning\(0\): its chunks were selected meanwhile"):
        begin(keep, 0, select)


def test_what_tasks_share_and_no_penalty_holds_is_warned_of():
    hnet = Hypernetwork(module(), 2, generate="2.*", **SMALL)
    keep = TaskRegularizer(hnet)
    begin(keep, 0, lambda: steps(hnet, keep, 0))
    with pytest.warns(UserWarning, match=r"0.weight, 0.bias are shared by all tasks and learn"):
        begin(keep, 1, lambda: steps(hnet, keep, 1))


def test_the_state_of_a_regularizer_is_asked_for():
    hnet = Hypernetwork(module(), 1, **SMALL)
    with pytest.raises(ValueError, match=r"expected what TaskRegularizer.state_dict\(\) gave"):
        TaskRegularizer(hnet).load_state_dict(hnet.state_dict())
