"""One optimiser step: what it adds up, where look-ahead takes the penalty, what is restored."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.step import TrainingStep
from hnetlib.experiment.tasks import PermutedTasks

RATE = 0.8


def second_task(tiny, **settings):
    """A learner with one task learned, in the middle of the second; a batch and drawn pairs."""
    config = tiny(**settings)
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), config.num_tasks))
    learner.learn_task(0)
    learner.regularizer._begin(1)  # as `learning`, for the rest of a test
    generator = torch.Generator().manual_seed(0)
    ((images, labels),) = learner.tasks.train_batches(1, 32, 1, generator)
    return learner, (images, labels, learner.regularizer.draw(generator))


def take(learner, batch, steps=1):
    step = TrainingStep(learner.config, learner.hnet, learner.regularizer, task=1)
    for _ in range(steps):
        losses = step(*batch, rate=RATE)
    return step, losses


def test_a_step_is_adam_on_cross_entropy_plus_beta_times_penalty(tiny):
    learner, batch = second_task(tiny, beta=0.5, lr=0.01, head_lr_factor=0.2)
    plain = copy.deepcopy(learner)
    take(learner, batch, steps=3)
    images, labels, pairs = batch
    hnet = plain.hnet
    others = [token for task, token in enumerate(hnet.task_tokens) if task != 1]
    head = list(hnet.output_layer.parameters())
    rest = [p for p in hnet.parameters() if all(p is not other for other in others + head)]
    groups = [{"params": rest, "lr": 0.01 * RATE}, {"params": head, "lr": 0.002 * RATE}]
    optimizer = torch.optim.Adam(groups)
    for _ in range(3):
        loss = cross_entropy(hnet.run_target(hnet(1), images), labels)
        loss = loss + 0.5 * plain.regularizer.penalty_over(pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(learner.hnet.parameters(), hnet.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_look_ahead_takes_the_penalty_where_adam_would_go(tiny):
    learner, batch = second_task(tiny, look_ahead=True)
    step, _ = take(learner, batch, steps=2)  # so that Adam has a state
    alone = copy.deepcopy(step)  # hypernetwork and optimiser state too
    alone.beta = 0.0
    alone(*batch, rate=RATE)
    before = [p.clone() for p in learner.hnet.parameters()]
    expected = alone.regularizer.penalty_over(batch[2])
    step._set_rate(RATE)
    step.optimizer.zero_grad()
    _, penalty = step._gradients(*batch)
    torch.testing.assert_close(penalty, expected.detach(), rtol=1e-3, atol=1e-6)
    assert penalty > 1e-4
    after = list(learner.hnet.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_look_ahead_is_another_run_with_its_own_numbers(tiny):
    plain, ahead = (
        train_or_load(tiny(look_ahead=value), progress=False) for value in (False, True)
    )
    assert plain.directory != ahead.directory
    assert ahead.results["acc"] > 0.3
    assert not torch.equal(load_hnet(plain).body[0].weight, load_hnet(ahead).body[0].weight)


@pytest.mark.parametrize("penalty", ["rows", "all"])
def test_half_precision_is_recorded_and_learns_about_the_same(tiny, penalty):
    settings = {"steps_per_task": 60, "penalty": penalty}
    full, half = (
        train_or_load(tiny(precision=name, **settings), progress=False)
        for name in ("float32", "bf16")
    )
    assert not torch.equal(load_hnet(half).body[0].weight, load_hnet(full).body[0].weight)
    assert half.results["acc"] == pytest.approx(full.results["acc"], abs=0.1)
    assert '"precision": "bf16"' in (half.directory / "config.json").read_text()
