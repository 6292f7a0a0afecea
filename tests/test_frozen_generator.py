"""A generator that freezes while tokens learn, and tokens for some chunks alone."""

import copy

import pytest
import torch
from nets import BY_INPUT, SINES, by_input, learn

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer
from hnetlib.targets import MLP

# a generator that freezes


def test_nothing_can_be_forgotten_once_the_generator_is_frozen():
    hnet = by_input(3)
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    hnet.freeze_generator()
    assert [p is hnet.task_tokens[1] for p in hnet.parameters_of(1)] == [True]
    before = copy.deepcopy(hnet.state_dict())
    x = torch.randn(9, 12)
    outputs = hnet.run(x, task=0)
    for task in (2, 1):
        learn(hnet, keep, task)
    assert torch.equal(hnet.run(x, task=0), outputs)
    moved = {n for n, v in hnet.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"task_tokens.1", "task_tokens.2", "_extra_state"}


@pytest.mark.parametrize("penalty", ["all", "rows"])
def test_then_the_penalty_is_nothing_and_stores_nothing(penalty):
    hnet = by_input(3)
    keep = TaskRegularizer(hnet, penalty=penalty)
    learn(hnet, keep, 0)
    learn(hnet, keep, 1)
    hnet.freeze_generator()
    with keep.learning(2), torch.no_grad():
        assert keep.penalty() == 0
        assert not len(keep.draw())
        assert not keep.snapshots.state()["stored"].numel()
        weights, price = keep.weights_and_penalty()
        assert price == 0
        torch.testing.assert_close(weights["layers.0.weight"], hnet(2)["layers.0.weight"])


def test_learning_keeps_guarding():
    hnet = by_input(3)
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    hnet.freeze_generator()
    with pytest.raises(RuntimeError, match="its token did not move"), keep.learning(1):
        hnet.run(torch.randn(2, 12), task=1).sum().backward()
    with pytest.raises(ValueError, match="not learned yet"), keep.learning(0):
        pass
    with pytest.raises(RuntimeError, match="expected within"):
        keep.penalty()


def test_tasks_learned_in_any_order_end_with_the_same_bytes():
    start = by_input(4)
    learn(start, TaskRegularizer(start), 0)
    start.freeze_generator()
    ends = []
    for order in ((1, 2, 3), (3, 1, 2), (2,)):
        hnet = copy.deepcopy(start)
        keep = TaskRegularizer(hnet, old_tasks=[0])
        for task in order:
            torch.manual_seed(task)
            learn(hnet, keep, task)
        ends.append(hnet)
    for task in (1, 2, 3):
        assert torch.equal(ends[0].task_tokens[task], ends[1].task_tokens[task])
    assert torch.equal(ends[0].task_tokens[2], ends[2].task_tokens[2])


def test_what_was_frozen_in_the_module_stays_so_when_a_state_thaws():
    module = MLP((12, 8, 3))
    module.layers[2].bias.requires_grad_(False)
    learning, frozen = (Hypernetwork(module, 1, **SINES | BY_INPUT) for _ in range(2))
    frozen.freeze_generator()
    assert {n for n, p in frozen.named_parameters() if p.requires_grad} == {"task_tokens.0"}
    state = frozen.state_dict()
    frozen.load_state_dict(learning.state_dict())
    assert not frozen.generator_frozen
    still = {n for n, p in frozen.named_parameters() if not p.requires_grad}
    assert still == {"kept.shared.layers/2/bias"}
    learning.load_state_dict(state)
    assert learning.generator_frozen


def test_freezing_holds_what_was_thawed_by_hand():
    module = MLP((12, 8, 3))
    module.layers[2].bias.requires_grad_(False)
    hnet = Hypernetwork(module, 1, **SINES | BY_INPUT)
    hnet.kept.shared.by_name()["layers.2.bias"].requires_grad_(True)
    hnet.freeze_generator()
    assert not any(parameter.requires_grad for parameter in hnet.shared_parameters())


def test_least_change_wants_a_generator_that_learns():
    hnet = by_input(hnet_hidden=(20,))
    keep = TaskRegularizer(hnet, least_change=LeastChange(hnet))
    hnet.freeze_generator()
    with pytest.raises(ValueError, match="least_change: expected a generator that learns"):
        keep.learning(0).__enter__()


# chunks without a token


def chosen(number=5):
    return torch.arange(12) < number


def test_chunks_without_a_token_are_zero_and_cost_no_parameters():
    hnet = by_input()
    hnet.select_chunks(1, chosen())
    assert hnet.task_tokens[1].shape == (5, 4)
    weight = hnet(1)["layers.0.weight"]
    assert weight[:, :5].all()
    assert not weight[:, 5:].any()
    torch.testing.assert_close(hnet.chunks_of(1).T, weight[:, :5])
    assert hnet.chunks_of(0).shape == (12, 8)
    together = hnet.weights_of([0, 1])["layers.0.weight"]
    assert torch.equal(together[1], weight)
    assert torch.equal(together[0], hnet(0)["layers.0.weight"])
    assert torch.equal(hnet.materialize(1).layers[0].weight, weight)


@pytest.mark.parametrize("num_tasks", [0, 1, 3])
def test_a_state_brings_its_selections(num_tasks):
    one, other = by_input(2), by_input(num_tasks)
    one.select_chunks(1, chosen())
    if num_tasks == 3:
        other.select_chunks(0, chosen(3))
        other.select_chunks(2, chosen(2))
    one.freeze_generator()
    other.load_state_dict(one.state_dict())
    for task in (0, 1):
        for name, value in one(task).items():
            assert torch.equal(other(task)[name], value)
    assert other.selections.among(range(other.num_tasks)) == ([1, 2] if num_tasks == 3 else [1])
    halved = {name: value.half() for name, value in one.state_dict().items()}
    other.load_state_dict(halved)
    assert other.selections.of(1).dtype == torch.bool


def test_learns_with_a_selection_and_then_wants_a_frozen_generator():
    hnet = by_input()
    hnet.select_chunks(0, chosen())
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    with pytest.raises(ValueError, match="tokens for some chunks alone"):
        learn(hnet, keep, 1)
    hnet.freeze_generator()
    hnet.select_chunks(1, chosen(7))
    learn(hnet, keep, 1)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (torch.ones(12), "expected a bool for each of 12 chunks"),
        (torch.ones(11, dtype=torch.bool), r"got torch.bool \[11\]"),
        (torch.zeros(12, dtype=torch.bool), "at least one with a token, got none"),
    ],
)
def test_a_selection_that_is_none_is_refused(chunks, message):
    with pytest.raises(ValueError, match=message):
        by_input().select_chunks(0, chunks)


def test_a_selection_comes_first_and_once():
    hnet = by_input()
    hnet.select_chunks(0, chosen())
    hnet.freeze_token(1)
    for task in (0, 1):
        with pytest.raises(ValueError, match=f"tokens of task {task} are frozen or selected"):
            hnet.select_chunks(task, chosen())
    with pytest.raises(ValueError, match='expected a hypernetwork with tokens="chunk"'):
        by_input(tokens="task").select_chunks(0, chosen())
