"""Learning in the last layer: what is written is what was learned, and costs the least."""

import copy

import pytest
import torch

from hnetlib.data import load_data
from hnetlib.hypernet import hypernetize
from hnetlib.learner import Learner
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer
from hnetlib.step import TrainingStep
from hnetlib.targets import MLP
from hnetlib.tasks import PermutedTasks

OLD_TASKS, CHUNKS, UNITS = 3, 4, 9


def ready(old_tasks=OLD_TASKS, damping=0.01, one_scale=True):
    """A float64 hypernetwork, its regulariser over old tasks, and the last layer's next task."""
    torch.manual_seed(0)
    hnet = hypernetize(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(UNITS,)).double()
    if one_scale:  # the penalty is then exact, not only in the mean of a chunk
        hnet.scale[hnet.scale > 0] = 0.3
    regularizer = TaskRegularizer(hnet, penalty="all")
    for task in range(old_tasks):
        hnet.freeze_token(task)
        regularizer.end_task(task)
    regularizer.begin_task()
    head = LeastChange(hnet, old_tasks, regularizer.old_features(), damping)
    with torch.no_grad():
        head.change.copy_(torch.randn_like(head.change) * (hnet.scale > 0))
    return hnet, regularizer, head


def cost(hnet, regularizer, dW, damping):
    """What a change of the last layer costs, from its definition: the penalty and its own size."""
    before = hnet.head.weight.detach().clone()
    with torch.no_grad():
        hnet.head.weight += dW
        penalty = regularizer().item()
        hnet.head.weight.copy_(before)
    old = regularizer.old_features().unflatten(0, (-1, CHUNKS))
    S = 0.3**2 * sum(torch.outer(row, row) for row in old.flatten(0, 1))  # the one scale, squared
    mean_eigenvalue = torch.linalg.eigvalsh(S / len(old)).mean()
    return penalty + (damping * mean_eigenvalue * dW.square().sum()).item()


def written(hnet, head):
    """What writing adds to the last layer, which is then put back as it was."""
    before = hnet.head.weight.detach().clone()
    head.write()
    dW = hnet.head.weight.detach() - before
    hnet.head.weight.data.copy_(before)
    return dW


@pytest.mark.parametrize("old_tasks", [0, 2, OLD_TASKS])  # 12 old rows are more than 9 features
def test_writing_moves_the_task_by_what_was_learned(old_tasks):
    hnet, _, head = ready(old_tasks, one_scale=False)
    token = hnet.task_tokens[old_tasks]
    before, change = hnet.generate_chunks(token).detach(), head.change.detach().clone()
    head.write()
    torch.testing.assert_close(
        hnet.generate_chunks(token), before + change * hnet.scale, rtol=1e-6, atol=1e-6
    )
    assert not head.change.any()


def test_no_other_way_to_write_it_costs_less():
    hnet, regularizer, head = ready()
    features = head._features()
    dW = written(hnet, head)
    least = cost(hnet, regularizer, dW, 0.01)
    free = torch.eye(UNITS).double() - torch.linalg.pinv(features) @ features  # does not touch phi
    for seed in range(20):
        torch.manual_seed(seed)
        other = dW + 0.1 * torch.randn_like(dW) @ free
        torch.testing.assert_close(features @ other.T, features @ dW.T)
        assert cost(hnet, regularizer, other, 0.01) > least


def test_the_penalty_is_what_writing_costs():
    damping = 0.01
    hnet, regularizer, head = ready(damping=damping)
    expected = head.penalty().item()
    dW = written(hnet, head)
    # the price also counts what the last chunk would write into its padding, 3 of its 14 numbers
    assert cost(hnet, regularizer, dW, damping) == pytest.approx(expected, rel=0.01)


def test_where_old_tasks_leave_room_nothing_changes_for_them():
    _, regularizer, head = ready(old_tasks=1, damping=1e-9)  # 4 of 9 dimensions are taken
    head.write()
    assert regularizer() < 1e-9


def test_a_step_has_the_given_size_in_every_tensor():
    hnet, _, head = ready(one_scale=False)
    head.change.data.zero_()
    head.change.grad = torch.randn_like(head.change)
    head.step(0.02)
    flat = head.change.detach().flatten()[: hnet.num_weights]
    for part in flat.split([shape.numel() for _, shape in hnet.layout]):
        assert part.square().mean().sqrt() == pytest.approx(0.02)


def second_task(tiny, **settings):
    config = tiny("smoke", **settings)
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), config.num_tasks))
    learner.learn_task(0)
    return learner


def test_old_tasks_move_less_than_without_the_penalty(tiny):
    moved = {}
    for beta in (0.0, 0.1):
        learner = second_task(tiny, beta=beta, lr=1e-4, head_lr_factor=100)
        hnet = learner.hnet
        token = hnet.task_tokens[0]
        before = hnet.generate(token).detach()
        learner.learn_task(1)
        moved[beta] = (hnet.generate(token) - before).norm().item()
    assert moved[0.1] < 0.2 * moved[0.0]


def test_the_last_layer_is_written_once_a_task_and_never_touched_by_adam(tiny):
    learner = second_task(tiny)
    learner.regularizer.begin_task()
    generator = torch.Generator().manual_seed(0)
    ((images, labels),) = learner.tasks.train_batches(1, 32, 1, generator)
    before = copy.deepcopy(learner.hnet.head)
    step = TrainingStep(learner.config, learner.hnet, learner.regularizer, 1)
    chunk_tokens = learner.hnet.chunk_tokens.detach().clone()
    for _ in range(3):
        step(images, labels, learner.regularizer.draw(generator))
    assert not torch.equal(learner.hnet.chunk_tokens, chunk_tokens)
    assert torch.equal(learner.hnet.head.weight, before.weight)
    step.finish()
    assert not torch.equal(learner.hnet.head.weight, before.weight)
    assert torch.equal(learner.hnet.head.bias, before.bias)


def test_a_chunk_of_padding_alone_has_no_say():
    torch.manual_seed(0)
    hnet = hypernetize(MLP((6, 5, 3)), 2, num_chunks=12, hnet_hidden=(16,))
    assert not hnet.scale[-1].any()  # 53 weights in chunks of 5 fill eleven of the twelve
    regularizer = TaskRegularizer(hnet)
    hnet.freeze_token(0)
    regularizer.end_task(0)
    regularizer.begin_task()
    head = LeastChange(hnet, 1, regularizer.old_features(), damping=0.01)
    head.change.data.fill_(1.0)
    assert 0 < head.penalty() < float("inf")
