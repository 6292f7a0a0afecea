"""Learning in the last layer: what is written is what was learned, and costs the least."""

import copy

import pytest
import torch

from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.step import TrainingStep
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP

OLD_TASKS, CHUNKS, UNITS = 3, 4, 9


def ready(old_tasks=OLD_TASKS, damping=0.01, one_scale=True):
    """A float64 hypernetwork, its regulariser over old tasks, and the last layer's next task."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(UNITS,)).double()
    if one_scale:  # the penalty is then exact, not only in the mean of a chunk
        hnet.scale[hnet.scale > 0] = 0.3
    head = LeastChange(hnet, damping=damping)
    regularizer = TaskRegularizer(
        hnet, penalty="all", least_change=head, old_tasks=range(old_tasks)
    )
    regularizer._begin(old_tasks)  # as `learning`, for the rest of a test
    with torch.no_grad():
        head.change.copy_(torch.randn_like(head.change) * (hnet.scale > 0))
    return hnet, regularizer, head


def old_rows(hnet, regularizer):
    """What old tasks' tokens generate, scaled as the penalty sees it: [t, C, N]."""
    return hnet.rows_of(regularizer.tokens) * hnet.scale


def cost(hnet, regularizer, dW, damping):
    """What a change of the last layer costs, from its definition: the penalty and its own size."""
    weight = hnet.output_layer.weight
    with torch.no_grad():
        before = old_rows(hnet, regularizer)
        weight += dW
        moved = (old_rows(hnet, regularizer) - before).square().sum()
        weight -= dW
    old = regularizer._old_features().unflatten(0, (-1, CHUNKS))
    S = 0.3**2 * sum(torch.outer(row, row) for row in old.flatten(0, 1))  # the one scale, squared
    mean_eigenvalue = torch.linalg.eigvalsh(S / len(old)).mean()
    return (moved / len(old) + damping * mean_eigenvalue * dW.square().sum()).item()


def written(hnet, head):
    """What writing adds to the last layer, which is then put back as it was."""
    before = hnet.output_layer.weight.detach().clone()
    head.write()
    dW = hnet.output_layer.weight.detach() - before
    hnet.output_layer.weight.data.copy_(before)
    return dW


@pytest.mark.parametrize("old_tasks", [0, 2, OLD_TASKS])  # 12 old rows are more than 9 features
def test_writing_moves_the_task_by_what_was_learned(old_tasks):
    hnet, _, head = ready(old_tasks, one_scale=False)
    token = hnet.task_tokens[old_tasks]
    before, change = hnet.rows_of(token).detach(), head.change.detach().clone()
    learned = hnet(old_tasks)
    head.write()
    torch.testing.assert_close(hnet.rows_of(token), before + change, rtol=1e-6, atol=1e-6)
    assert not head.change.any()
    for name, weight in hnet(old_tasks).items():
        torch.testing.assert_close(weight, learned[name], rtol=1e-6, atol=1e-6)


def test_no_other_way_to_write_it_costs_less():
    hnet, regularizer, head = ready()
    features = hnet.features(hnet.task_tokens[OLD_TASKS].expand(CHUNKS, -1), hnet.chunk_tokens)
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
    expected = head.price().item()
    assert regularizer.penalty().item() == pytest.approx(expected)
    dW = written(hnet, head)
    # the price also counts what the last chunk would write into its padding, 3 of its 14 numbers
    assert cost(hnet, regularizer, dW, damping) == pytest.approx(expected, rel=0.01)


def test_where_old_tasks_leave_room_nothing_changes_for_them():
    hnet, regularizer, head = ready(old_tasks=1, damping=1e-9)  # 4 of 9 dimensions are taken
    before = old_rows(hnet, regularizer)
    dW = written(hnet, head)
    assert dW.abs().max() > 0.1
    with torch.no_grad():
        hnet.output_layer.weight += dW
    assert (old_rows(hnet, regularizer) - before).square().sum() < 1e-9


def test_a_step_has_the_given_size_in_every_tensor():
    hnet, _, head = ready(one_scale=False)
    head.change.data.zero_()
    head.change.grad = torch.randn_like(head.change)
    head.step(0.02)
    flat = head.change.detach().flatten()[: hnet.num_weights]
    for part in flat.split([piece.shape.numel() for piece in hnet.layout]):
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
    hnet, regularizer = learner.hnet, learner.regularizer
    generator = torch.Generator().manual_seed(0)
    ((images, labels),) = learner.tasks.train_batches(1, 32, 1, generator)
    before = copy.deepcopy(hnet.output_layer)
    chunk_tokens = hnet.chunk_tokens.detach().clone()
    with regularizer.learning(1):
        step = TrainingStep(learner.config, hnet, regularizer, 1)
        for _ in range(3):
            step(images, labels, regularizer.draw(generator))
        assert not torch.equal(hnet.chunk_tokens, chunk_tokens)
        assert torch.equal(hnet.output_layer.weight, before.weight)
    assert not torch.equal(hnet.output_layer.weight, before.weight)
    assert torch.equal(hnet.output_layer.bias, before.bias)


def test_a_chunk_of_padding_alone_has_no_say():
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, num_chunks=12, hnet_hidden=(16,))
    assert not hnet.scale[-1].any()  # 53 weights in chunks of 5 fill eleven of the twelve
    head = LeastChange(hnet)
    with TaskRegularizer(hnet, least_change=head, old_tasks=[0]).learning(1):
        head.change.data.fill_(1.0)
        assert 0 < head.price() < float("inf")


def small(least_change=True, **settings):
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, num_chunks=CHUNKS, hnet_hidden=(UNITS,))
    head = LeastChange(hnet, **settings)
    return hnet, head, TaskRegularizer(hnet, least_change=head if least_change else None)


def take_steps(hnet, head, keep, task, steps=3):
    optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=1e-3)
    x = torch.ones(2, 6)
    for _ in range(steps):
        loss = (hnet.run(x, task=task) - 1).square().sum() + keep.penalty()
        optimizer.zero_grad()
        loss.backward()
        head.step(lr=0.05)
        optimizer.step()
    return x


def stop():
    raise KeyboardInterrupt


def test_what_is_evaluated_while_learning_is_what_is_written():
    hnet, head, keep = small()
    with keep.learning(0):
        x = take_steps(hnet, head, keep, 0)
        during, other = hnet.run(x, task=0), hnet.run(x, task=1)
        together = hnet.weights_of([1, 0])
        torch.testing.assert_close(hnet.run_target(hnet(0), x), during)
        assert head.change.abs().max() > 0.05
    torch.testing.assert_close(hnet.run(x, task=0), during, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(hnet.run(x, task=1), other), "writing moves tasks not learned yet"
    last = {name: weight[1] for name, weight in together.items()}
    torch.testing.assert_close(hnet.run_target(last, x), during)


def test_the_layer_is_given_back_and_a_failed_task_writes_nothing():
    hnet, head, keep = small()
    before = hnet.output_layer.weight.detach().clone()
    with keep.learning(0):
        assert not any(p.requires_grad for p in hnet.output_layer.parameters())
        assert len(hnet.parameters_of(0)) == len(list(hnet.parameters())) - 3
    assert all(p.requires_grad for p in hnet.output_layer.parameters())
    torch.testing.assert_close(hnet.output_layer.weight, before)
    with pytest.raises(KeyboardInterrupt), keep.learning(1):
        head.change.data.fill_(stop())
    torch.testing.assert_close(hnet.output_layer.weight, before)
    assert all(p.requires_grad for p in hnet.output_layer.parameters())
    assert not hnet.extra_rows


def test_more_chunks_than_features_are_refused():
    hnet = Hypernetwork(MLP((6, 5, 3)), 1, num_chunks=10, hnet_hidden=(UNITS,))
    with pytest.raises(ValueError, match=r"at most one for each of the 9 features.* got 10"):
        LeastChange(hnet)


def test_wrong_settings_and_orders_of_calls_are_errors():
    hnet, head, keep = small()
    for settings in ({"damping": 0.0}, {"damping": float("nan")}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="expected damping > 0 and 0 <= momentum < 1"):
            LeastChange(hnet, **settings)
    with pytest.raises(RuntimeError, match="step: expected a call within learning"):
        head.step(0.1)
    with keep.learning(0), pytest.raises(RuntimeError, match="after backward"):
        head.step(0.1)
    other, _, _ = small()
    with pytest.raises(ValueError, match="expected one of the same hypernetwork"):
        TaskRegularizer(other, least_change=head)
    _, head, without = small(least_change=False)
    with without.learning(0), pytest.raises(RuntimeError, match="within learning"):
        head.step(0.1)


def test_momentum_adds_up_steps():
    sizes = {}
    for momentum in (0.0, 0.9):
        hnet, head, keep = small(momentum=momentum)
        with keep.learning(0):
            for _ in range(3):
                head.change.grad = torch.ones_like(head.change)
                head.step(0.1)
            used = head.change.detach()[hnet.scale > 0]
        sizes[momentum] = used.abs().mean().item()
    assert sizes[0.0] == pytest.approx(0.3)
    assert sizes[0.9] == pytest.approx(0.1 * (1 + 1.9 + 2.71))


def test_bf16_leaves_the_price_in_full_precision():
    hnet, head, _ = small()
    keep = TaskRegularizer(hnet, least_change=head, old_tasks=[0])
    with keep.learning(1):
        head.change.data.normal_()
        exact = head.price()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(head.price(), exact)


def test_without_protection_old_tasks_cost_nothing_and_move_more():
    moved = {}
    for protect in (True, False):
        hnet, head, keep = small(protect=protect)
        with keep.learning(0):
            take_steps(hnet, head, keep, 0)
        before = hnet.generate(hnet.task_tokens[0]).detach()
        with keep.learning(1):
            head.change.data.fill_(1.0)
            assert bool(head.price() > 0) == protect
        moved[protect] = (hnet.generate(hnet.task_tokens[0]) - before).norm().item()
    assert moved[True] < 0.7 * moved[False]
