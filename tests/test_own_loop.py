"""Hypernetwork and penalty in a training loop of one's own, without learner, config or runs."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib import LeastChange, TaskRegularizer, hypernetize


def two_tasks():
    """Points in the plane by the sign of x, then the same points by the opposite sign."""
    points = torch.randn(256, 2)
    labels = (points[:, 0] > 0).long()
    return [(points, labels), (points, 1 - labels)]


def accuracies_after_both(beta):
    torch.manual_seed(0)
    own = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    hnet = hypernetize(own, num_tasks=2, num_chunks=3, task_token_dim=4, hnet_hidden=(16,))
    regularizer = TaskRegularizer(hnet, penalty="all")
    optimizer = torch.optim.Adam(hnet.parameters(), lr=1e-2)
    tasks = two_tasks()
    for task, (points, labels) in enumerate(tasks):
        regularizer.begin_task()
        for _ in range(150):
            logits = hnet.run_target(hnet(task), points)
            loss = cross_entropy(logits, labels) + beta * regularizer()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        hnet.freeze_token(task)
        regularizer.end_task(task)
    return [
        float((hnet.run_target(hnet(task), points).argmax(1) == labels).float().mean())
        for task, (points, labels) in enumerate(tasks)
    ]


def test_contradicting_tasks_are_both_kept():
    first, second = accuracies_after_both(beta=1.0)
    assert first > 0.95
    assert second > 0.95


def test_without_the_penalty_the_first_is_overwritten():
    first, second = accuracies_after_both(beta=0.0)
    assert second > 0.95
    assert first == pytest.approx(1 - second, abs=0.3)


def test_least_change_keeps_both_in_the_loop_of_the_readme():
    torch.manual_seed(0)
    own = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    hnet = hypernetize(own, num_tasks=2, num_chunks=3, hnet_hidden=(16,), hnet_activation="sine")
    regularizer = TaskRegularizer(hnet, penalty="rows", penalty_size=2)
    optimizer = torch.optim.Adam(hnet.parameters(), lr=1e-3)
    scores = []
    for task, (points, labels) in enumerate(two_tasks()):
        regularizer.begin_task()
        head = LeastChange(hnet, task, regularizer.old_features(), damping=0.01)
        for _ in range(50):
            drawn = regularizer.draw()
            weights, penalty = regularizer.weights_and_penalty(task, drawn, head.change)
            loss = cross_entropy(hnet.run_target(weights, points), labels)
            loss = loss + 0.1 * (penalty + head.penalty())
            optimizer.zero_grad()
            loss.backward()
            head.step(lr=0.01)
            optimizer.step()
        head.write()
        hnet.freeze_token(task)
        regularizer.end_task(task)
    for task, (points, labels) in enumerate(two_tasks()):
        # the points are drawn anew: what was learned is the side, not the points
        scores.append((hnet.run_target(hnet(task), points).argmax(1) == labels).float().mean())
    assert min(scores) > 0.95
