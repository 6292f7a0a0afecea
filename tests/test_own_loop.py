"""Hypernetwork and penalty in a training loop of one's own, without learner, config or runs."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer


def two_tasks():
    """Points in the plane by the sign of x, then the same points by the opposite sign."""
    points = torch.randn(256, 2)
    labels = (points[:, 0] > 0).long()
    return [150 * [(points, labels)], 150 * [(points, 1 - labels)]]


def accuracies(hnet, stream):
    """Of each task, when all are learned."""
    right = [
        hnet.run(points, task=task).argmax(1) == labels
        for task, ((points, labels), *_) in enumerate(stream)
    ]
    return [float(each.float().mean()) for each in right]


def own_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))


SETTINGS = {"num_chunks": 3, "task_token_dim": 4, "hnet_hidden": (16,)}


def learn(stream, beta=1.0, num_tasks=0, least_change=False):
    """The loop of the README."""
    hnet = Hypernetwork(own_module(), num_tasks, **SETTINGS)
    last_layer = LeastChange(hnet) if least_change else None
    keep = TaskRegularizer(hnet, penalty="all", least_change=last_layer)
    for number, batches in enumerate(stream):
        task = number if num_tasks else hnet.add_task()
        optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=1e-2)
        with keep.learning(task):
            for x, y in batches:
                loss = cross_entropy(hnet.run(x, task=task), y) + beta * keep.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if last_layer:
                    last_layer.step(lr=0.01)
    return hnet


@pytest.mark.parametrize("num_tasks", [0, 2])
@pytest.mark.parametrize("least_change", [False, True])
def test_contradicting_tasks_are_both_kept(num_tasks, least_change):
    stream = two_tasks()
    hnet = learn(stream, num_tasks=num_tasks, least_change=least_change)
    assert min(accuracies(hnet, stream)) > 0.95
    points, labels = stream[1][0]
    net = hnet.materialize(1)
    assert float((net(points).argmax(1) == labels).float().mean()) > 0.95


def test_without_the_penalty_the_first_is_overwritten():
    stream = two_tasks()
    first, second = accuracies(learn(stream, beta=0.0), stream)
    assert second > 0.95
    assert first == pytest.approx(1 - second, abs=0.3)


def test_one_optimizer_for_all_tasks_and_one_pass_for_weights_and_penalty():
    stream = two_tasks()
    hnet = Hypernetwork(own_module(), 2, **SETTINGS)
    keep, optimizer = TaskRegularizer(hnet), torch.optim.Adam(hnet.parameters(), lr=1e-2)
    for task, batches in enumerate(stream):
        with keep.learning(task):
            for x, y in batches:
                weights, penalty = keep.weights_and_penalty()
                loss = cross_entropy(hnet.run_target(weights, x), y) + penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert min(accuracies(hnet, stream)) > 0.95
