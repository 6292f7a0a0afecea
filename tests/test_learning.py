"""`with regularizer.learning(task)`: what becomes old, what is refused, stops and states."""

import copy

import pytest
import torch
from nets import CHUNKS

from hnetlib import snapshots as snapshots_module
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP


def ready(num_tasks=3, **settings):
    hnet = Hypernetwork(MLP((6, 5, 3)), num_tasks, num_chunks=CHUNKS, hnet_hidden=(9,))
    return hnet, TaskRegularizer(hnet, penalty_size=3, **settings)


def train(hnet, regularizer, task, optimizer=None, steps=2, run=None):
    optimizer = optimizer or torch.optim.SGD(hnet.parameters_of(task), lr=0.01)
    for _ in range(steps):
        output = hnet.run(torch.ones(2, 6), task=task if run is None else run)
        loss = output.square().sum() + regularizer.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_learning_freezes_the_token_and_makes_the_task_old():
    hnet, regularizer = ready()
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
        assert regularizer.old_tasks == []
    assert regularizer.old_tasks == [0]
    assert not hnet.task_tokens[0].requires_grad
    assert hnet.task_tokens[1].requires_grad


def test_a_task_that_failed_is_not_old():
    hnet, regularizer = ready()
    with pytest.raises(KeyboardInterrupt), regularizer.learning(0):
        raise KeyboardInterrupt
    assert regularizer.old_tasks == []
    assert hnet.task_tokens[0].requires_grad
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
    assert regularizer.old_tasks == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda keep: keep.penalty(),
        lambda keep: keep.draw(),
        lambda keep: keep.weights_and_penalty(),
        lambda keep: keep.penalty_over(torch.tensor([0])),
    ],
)
def test_the_penalty_outside_learning_is_an_error(call):
    _, regularizer = ready()
    with regularizer.learning(0):
        pass
    with pytest.raises(RuntimeError, match=r"expected within `with regularizer.learning\(task\):`"):
        call(regularizer)


def test_wrong_orders_of_calls_are_errors():
    hnet, regularizer = ready()
    with regularizer.learning(0), pytest.raises(RuntimeError, match="task 0 is still being"):
        regularizer.learning(1).__enter__()
    with pytest.raises(ValueError, match=r"learning\(0\): expected a task that is not learned yet"):
        regularizer.learning(0).__enter__()
    with pytest.raises(IndexError, match="one of the 3"):
        regularizer.learning(3).__enter__()
    another = TaskRegularizer(hnet)
    with pytest.raises(RuntimeError, match=r"tokens of tasks \[0\] are frozen.*old_tasks=\[0\]"):
        another.learning(1).__enter__()
    with TaskRegularizer(hnet, old_tasks=[0]).learning(1):
        pass


def test_running_another_task_than_the_one_learned_is_an_error():
    hnet, regularizer = ready()
    with (
        pytest.raises(RuntimeError, match=r"learning\(0\): only \[1\] were run"),
        regularizer.learning(0),
    ):
        train(hnet, regularizer, 0, run=1)
    assert regularizer.old_tasks == []


def test_a_token_no_optimizer_knows_is_an_error():
    hnet, regularizer = ready(num_tasks=1)
    optimizer = torch.optim.SGD(hnet.parameters(), lr=0.01)
    with regularizer.learning(0):
        train(hnet, regularizer, 0, optimizer)
    task = hnet.add_task()
    with (
        pytest.raises(RuntimeError, match=r"did not move.*hnet.parameters_of\(1\)"),
        regularizer.learning(task),
    ):
        train(hnet, regularizer, task, optimizer)


def test_a_generator_whose_units_are_all_dead_is_not_the_optimizers_fault():
    hnet, regularizer = ready(num_tasks=1)
    with torch.no_grad():
        hnet.body[-2].bias.fill_(-1e3)
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
    assert regularizer.old_tasks == [0]


FORMS = {
    "stored": ({}, {}),
    "at learning": ({"snapshot": "at_learning"}, {}),
    "remade": ({}, {"SNAPSHOT_BYTES": 0}),
    "gram": ({"penalty": "all"}, {"gram_is_cheaper": lambda *_: True}),
    "least change": ({}, {}),
}


def start(num_tasks, settings, with_least_change):
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), num_tasks, num_chunks=CHUNKS, hnet_hidden=(9,))
    least_change = LeastChange(hnet) if with_least_change else None
    return hnet, TaskRegularizer(hnet, penalty_size=3, least_change=least_change, **settings)


def take_steps(hnet, keep, task, steps):
    """Steps that depend on their number alone."""
    optimizer = torch.optim.SGD(hnet.parameters_of(task), lr=0.01)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(2, 6, generator=generator)
        loss = hnet.run(inputs, task=task).square().sum() + keep.penalty(generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if keep.least_change:
            keep.least_change.step(0.01)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stop", [(1, 0), (1, 2), (2, 3)])
def test_stopped_in_the_middle_of_a_task_goes_on_as_if_never_stopped(monkeypatch, form, stop):
    settings, patches = FORMS[form]
    for name, value in patches.items():
        monkeypatch.setattr(snapshots_module, name, value)
    whole, keep = start(3, settings, form == "least change")
    for task in range(3):
        with keep.learning(task):
            for step in range(4):
                if (task, step) == stop:
                    saved = copy.deepcopy((whole.state_dict(), keep.state_dict()))
                take_steps(whole, keep, task, [step])
    hnet, keep = start(0, settings, form == "least change")
    keep.load_state_dict(saved[1])
    hnet.load_state_dict(saved[0])
    assert keep.state_dict()["task"] == stop[0], "saving it again loses nothing"
    for task in range(stop[0], 3):
        with keep.learning(task):
            take_steps(hnet, keep, task, range(stop[1] if task == stop[0] else 0, 4))
    assert keep.old_tasks == [0, 1, 2]
    for (name, one), other in zip(whole.named_parameters(), hnet.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.isfinite().all()


def test_a_state_that_does_not_fit_is_refused():
    _, keep = ready()
    with keep.learning(0):
        state = keep.state_dict()
        with pytest.raises(RuntimeError, match="task 0 is being learned here"):
            keep.load_state_dict(state)
    _, other = ready(snapshot="at_learning")
    with pytest.raises(ValueError, match="expected a state with 'at_learning', got 'before_task'"):
        other.load_state_dict(state)
    hnet, keep = ready()
    with pytest.raises(ValueError, match="least_change: expected as in the state"):
        TaskRegularizer(hnet, least_change=LeastChange(hnet)).load_state_dict(state)
    keep.load_state_dict(state)
    with pytest.raises(RuntimeError, match="in the middle of task 0"):
        keep.learning(1).__enter__()
