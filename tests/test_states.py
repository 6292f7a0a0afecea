"""A hypernetwork's state: what it brings, what it leaves alone, and what it must be of."""

import copy

import numpy as np
import pytest
import torch
from nets import small
from torch import nn

from hnetlib.chunks import Along
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP

SIZES = {"num_chunks": 4, "hnet_hidden": (9,)}


@pytest.mark.parametrize(("of_state", "of_ours"), [(2, 3), (3, 2), (2, 0)])
def test_a_state_brings_its_tasks_and_leaves_the_others(of_state, of_ours):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    one, other = (Hypernetwork(module, n, hnet_hidden=(9,)) for n in (of_state, of_ours))
    one.freeze_token(0)
    one.run(torch.randn(8, 4), task=1)
    before = copy.deepcopy(other)
    other.load_state_dict(one.state_dict())
    assert other.num_tasks == max(of_state, of_ours)
    assert [t.requires_grad for t in other.task_tokens] == [False] + [True] * (other.num_tasks - 1)
    for task in range(of_state):
        for name, value in one(task).items():
            assert torch.equal(other(task)[name], value), name
    for task in range(of_state, of_ours):
        assert torch.equal(other.task_tokens[task], before.task_tokens[task])
    assert not other(other.add_task())["1.num_batches_tracked"]


@pytest.mark.parametrize(
    "differing",
    [
        {"module": MLP((5, 6, 3))},
        {"hnet_hidden": (8,)},
        {"hnet_hidden": (9, 9)},
        {"task_token_dim": 5},
        {"num_chunks": 3},
        {"tokens": "chunk"},
    ],
)
def test_a_state_of_another_network_fails_and_changes_nothing(differing):
    settings = {"module": MLP((4, 6, 3)), "num_chunks": 4, "hnet_hidden": (9,)}
    hnet, another = Hypernetwork(num_tasks=2, **settings), settings | differing
    before, tokens = copy.deepcopy(hnet.state_dict()), list(hnet.task_tokens)
    with pytest.raises(RuntimeError, match="expected a state with"):
        hnet.load_state_dict(Hypernetwork(num_tasks=4, **another).state_dict())
    assert_same_state(hnet, before)
    assert all(now is then for now, then in zip(hnet.task_tokens, tokens, strict=True))


def test_a_state_that_fails_leaves_selections_as_they_were():
    mine, other = (chunk_tokens(n, hidden) for n, hidden in ((2, 9), (4, 8)))
    mine.select_chunks(0, torch.tensor([True, False, True]))
    for task in (1, 3):
        other.select_chunks(task, torch.tensor([True, True, False]))
    before = copy.deepcopy(mine.state_dict())
    with pytest.raises(RuntimeError, match="with Linear of 64 to 9, got Linear of 64 to 8"):
        mine.load_state_dict(other.state_dict())
    assert_same_state(mine, before)


def chunk_tokens(num_tasks, hidden):
    settings = {"tokens": "chunk", "num_chunks": 3, "hnet_hidden": (hidden,)}
    return Hypernetwork(nn.Linear(4, 6), num_tasks, **settings)


def assert_same_state(hnet, before):
    after = hnet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_states_load_inside_another_module():
    one, other = (nn.Sequential(nn.Linear(2, 2), small(n)) for n in (3, 1))
    one[1].freeze_token(2)
    other.load_state_dict(one.state_dict())
    assert other[1].num_tasks == 3
    assert torch.equal(other[1].task_tokens[2], one[1].task_tokens[2])
    assert [token.requires_grad for token in other[1].task_tokens] == [True, True, False]


def in_order(*names):
    """Two layers of equal size, made in this order."""

    class InOrder(nn.Module):
        def __init__(self):
            super().__init__()
            for name in names:
                setattr(self, name, nn.Linear(4, 4))

        def forward(self, x):
            return self.out(torch.tanh(self.inp(x)))

    return InOrder()


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            {"module": in_order("inp", "out")},
            {"module": in_order("out", "inp")},
            r"generated: expected a state with inp.weight \[4, 4\], got out.weight \[4, 4\]",
        ),
        (
            {"module": nn.Linear(4, 3)},
            {"module": nn.Linear(2, 5)},
            r"\[3, 4\], got weight \[5, 2\]",
        ),
        ({}, {"hnet_activation": "elu"}, "layers: expected a state with ReLU, got ELU"),
        (
            {"cut": Along({"weight": 0}), "generate": "weight"},
            {"cut": Along({"weight": 1}), "generate": "weight"},
            r"cut: expected a state with \[\[\[0, 0\]\]\], got \[\[\[0, 1\]\]\]",
        ),
    ],
)
def test_a_state_is_known_by_more_than_its_shapes(one, other, said):
    one, other = (SIZES | {"module": nn.Linear(4, 4)} | settings for settings in (one, other))
    hnet = Hypernetwork(num_tasks=1, **one)
    with pytest.raises(RuntimeError, match=said):
        hnet.load_state_dict(Hypernetwork(num_tasks=1, **other).state_dict())


@pytest.mark.parametrize("cast", [torch.Tensor.half, torch.Tensor.double, torch.Tensor.clone])
def test_a_state_in_another_precision_is_still_known(cast):
    hnet = Hypernetwork(nn.Linear(4, 3), 1, **SIZES)
    hnet.load_state_dict({name: cast(value) for name, value in hnet.state_dict().items()})


def test_a_state_without_a_description_loads_by_its_shapes():
    """Those written before there was one."""
    one, other = (Hypernetwork(nn.Linear(4, 3), 1, **SIZES) for _ in range(2))
    state = one.state_dict()
    del state["description"]
    other.load_state_dict(state)
    assert torch.equal(other(0)["weight"], one(0)["weight"])


def test_a_state_that_fails_inside_another_module_leaves_the_hypernetwork_alone():
    one, other = (nn.Sequential(Hypernetwork(nn.Linear(4, n), n, **SIZES)) for n in (3, 5))
    before = copy.deepcopy(one[0].state_dict())
    with pytest.raises(RuntimeError, match=r"got weight \[5, 4\]"):
        one.load_state_dict(other.state_dict())
    assert_same_state(one[0], before)


def test_what_is_no_description_is_named_and_means_of_states_are_fine():
    hnet = Hypernetwork(nn.Linear(4, 3), 1, **SIZES)
    state = hnet.state_dict()
    hnet.load_state_dict({name: (value + value + value) / 3 for name, value in state.items()})
    with pytest.raises(RuntimeError, match="expected a state with a description as it was written"):
        hnet.load_state_dict(state | {"description": torch.zeros(3)})


@pytest.mark.parametrize("dim", [1, np.int64(1)])
def test_cuts_of_any_whole_number_have_a_state(dim):
    hnet = Hypernetwork(nn.Linear(4, 3), 1, generate="weight", cut=Along({"weight": dim}))
    hnet.load_state_dict(hnet.state_dict())


def test_what_fails_with_assign_leaves_both_as_they_were():
    one, other = (Hypernetwork(nn.Linear(4, n), 1, **SIZES) for n in (3, 5))
    states = [copy.deepcopy(hnet.state_dict()) for hnet in (one, other)]
    taken = one.state_dict()
    with pytest.raises(RuntimeError, match="expected a state with"):
        other.load_state_dict(taken, assign=True)
    for hnet, before in zip((one, other), states, strict=True):
        assert_same_state(hnet, before)


def test_a_failed_load_leaves_frozen_ones_frozen_and_attributes_as_they_were():
    module = nn.Linear(4, 3)
    hnet = Hypernetwork(module, 2, **SIZES)
    hnet.freeze_token(1)
    another = Hypernetwork(nn.Linear(4, 5), 3, **SIZES)
    another.freeze_generator()
    learned = {name for name, p in hnet.named_parameters() if p.requires_grad}
    with pytest.raises(RuntimeError, match="expected a state with"):
        hnet.load_state_dict(another.state_dict())
    assert {name for name, p in hnet.named_parameters() if p.requires_grad} == learned
    assert not hnet.generator_frozen
    assert hnet.num_tasks == 2


def test_a_frozen_table_of_integers_stays_one_when_a_state_thaws():
    module = nn.Linear(4, 3)
    module.table = nn.Parameter(torch.arange(3), requires_grad=False)
    hnet = Hypernetwork(module, 1, **SIZES)
    state = copy.deepcopy(hnet.state_dict())
    hnet.freeze_generator()
    hnet.load_state_dict(state)
    assert hnet.output_layer.weight.requires_grad
    assert not hnet.kept.shared.by_name()["table"].requires_grad


def test_a_state_is_not_loaded_where_least_change_has_the_rest_of_it():
    hnet = Hypernetwork(nn.Linear(4, 2), 1, hnet_hidden=(8,))
    last = LeastChange(hnet)
    keep, best = TaskRegularizer(hnet, least_change=last), copy.deepcopy(hnet.state_dict())
    with keep.learning(0):
        expected = pytest.raises(RuntimeError, match="task 0 is being learned with LeastChange")
        with expected:
            hnet.load_state_dict(best)
    hnet.load_state_dict(best)


def test_a_penalty_of_another_hypernetwork_than_the_one_that_learns_is_warned_of():
    hnet = Hypernetwork(nn.Linear(4, 2), 2, hnet_hidden=(8,))
    keep = TaskRegularizer(hnet, old_tasks=[0])
    other = copy.deepcopy(hnet)

    def learn_the_copy():
        with keep.learning(1):
            other.run(torch.randn(3, 4), task=1)
            keep.penalty()

    with pytest.warns(UserWarning, match="was not run, and has not learned the task"):
        learn_the_copy()


@pytest.mark.parametrize("name", ["replace", "by_name", "names_of", "_names"])
def test_a_buffer_may_have_any_name(name):
    module = nn.Linear(4, 2)
    module.register_buffer(name, torch.arange(3.0))
    hnet, again = (Hypernetwork(module, 1, hnet_hidden=(8,)) for _ in range(2))
    again.load_state_dict(hnet.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(hnet.run(x, task=0), again.run(x, task=0))
    assert torch.equal(getattr(hnet.materialize(0), name), torch.arange(3.0))
