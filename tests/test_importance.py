"""EWC and SI: importance against its definition, and the gradient of what it adds to the loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from hnetlib.experiment import importance
from hnetlib.experiment.importance import SI, Importance, OnlineEWC, fisher_diagonal
from hnetlib.experiment.plain import PlainNetwork
from hnetlib.targets import MLP, ConvLeNet


@pytest.fixture
def network():
    return PlainNetwork([MLP((6, 5, 4)) for _ in range(2)], "head")


def loss_of(network, task, images, labels):
    return cross_entropy(network.run_target(network(task), images), labels)


@pytest.mark.parametrize("dense", [True, False])
def test_fisher_is_the_mean_square_of_single_gradients(network, monkeypatch, dense):
    monkeypatch.setattr(importance, "_is_dense", lambda network: dense)
    images = torch.rand(120, 6)  # more than are held at once
    fisher = fisher_diagonal(network, 1, images, torch.Generator().manual_seed(3))
    probabilities = network.run_target(network(1), images).softmax(-1).detach()
    labels = torch.multinomial(
        probabilities, 1, generator=torch.Generator().manual_seed(3)
    )[:, 0]  # fmt: skip
    expected = [torch.zeros_like(p) for p in network.parameters()]
    for image, label in zip(images, labels, strict=True):
        loss = loss_of(network, 1, image[None], label[None])
        for total, g in zip(expected, torch.autograd.grad(loss, network.parameters()), strict=True):
            total += g**2 / 120
    for ours, theirs in zip(fisher, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-8)
    assert fisher[2][0].abs().sum() == 0, "the other task's head has no say"


def test_only_dense_networks_have_their_squares_as_products(network):
    assert importance._is_dense(network)
    assert not importance._is_dense(PlainNetwork([ConvLeNet(8)]))
    images = torch.rand(60, 64)
    assert all(
        (f > 0).any()
        for f in fisher_diagonal(PlainNetwork([ConvLeNet(8)]), 0, images, torch.Generator())
    )


@pytest.mark.parametrize("kind", [OnlineEWC, SI])
def test_adds_the_gradient_of_its_penalty(network, kind):
    memory = kind(network, strength=3.0)
    anchor = [p.detach().clone() for p in network.parameters()]
    importance = [torch.rand_like(p) for p in network.parameters()]
    memory._remember(importance)
    with torch.no_grad():
        for p in network.parameters():
            p += torch.randn_like(p)
    penalty = 3 * sum(
        (i * (p - a) ** 2).sum()
        for i, p, a in zip(importance, network.parameters(), anchor, strict=True)
    )
    assert memory.penalty() == pytest.approx(penalty.item(), rel=1e-5)
    expected = torch.autograd.grad(penalty, network.parameters())
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    memory.begin_task()
    memory.before_step()
    for p, gradient in zip(network.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_sum_over_tasks_is_held_to_the_last_anchor(network):
    memory = OnlineEWC(network, strength=1.0)
    ones = [torch.ones_like(p) for p in network.parameters()]
    memory._remember(ones)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    memory._remember(ones)
    assert memory.penalty() == 0
    assert all((i == 2).all() for i in memory.tensors["importance"])


def test_the_shares_of_si_sum_to_what_the_loss_fell(network):
    """The path integral of the gradient, in steps of gradient descent that are small enough."""
    images, labels = torch.rand(40, 6), torch.randint(4, (40,))
    memory = SI(network, strength=1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = loss_of(network, 0, images, labels).item()
    memory.begin_task()
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(network, 0, images, labels).backward()
        memory.before_step()
        optimizer.step()
        memory.after_step()
    fallen = before - loss_of(network, 0, images, labels).item()
    assert fallen > 0.05
    assert sum(float(share.sum()) for share in memory.share) == pytest.approx(fallen, rel=0.02)


def test_no_importance_adds_nothing(network):
    memory = Importance(network, strength=1.0)
    memory.end_task(0, torch.rand(5, 6), torch.Generator())
    assert memory.penalty() == 0.0
    assert memory.tensors == {}
