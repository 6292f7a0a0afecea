"""Plain networks: what tasks share, what each has of its own, and several run at once."""

import pytest
import torch
from torch import nn

from hnetlib.experiment import evaluation
from hnetlib.experiment.data import load_data
from hnetlib.experiment.plain import PlainNetwork, build_plain, run_tasks
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.targets import MLP

SIZES = (6, 5, 4)


@pytest.mark.parametrize("own", ["nothing", "head", "everything"])
def test_holds_what_each_task_owns(own):
    targets = [MLP(SIZES) for _ in range(3)]
    network = PlainNetwork(targets, own)
    body, head = 6 * 5 + 5, 5 * 4 + 4
    expected = {"nothing": body + head, "head": body + 3 * head, "everything": 3 * (body + head)}
    assert sum(p.numel() for p in network.parameters()) == expected[own]
    images = torch.rand(7, 6)
    for task in range(3):
        first, own_one = targets[0].layers, targets[task].layers
        body, head = {
            "nothing": (first, first),
            "head": (first, own_one),
            "everything": (own_one, own_one),
        }[own]
        expected_logits = head[2](nn.functional.relu(body[0](images)))
        assert torch.allclose(network.run_target(network(task), images), expected_logits)


@pytest.mark.parametrize("own", ["nothing", "head", "everything"])
def test_several_tasks_at_once_are_each_as_alone(own):
    network = PlainNetwork([MLP(SIZES) for _ in range(4)], own)
    tasks, images = torch.tensor([3, 1]), torch.rand(2, 7, 6)
    together = run_tasks(network, tasks, images)
    for row, task in enumerate([3, 1]):
        alone = network.run_target(network(task), images[row])
        assert torch.allclose(together[row], alone, atol=1e-6)
    same = run_tasks(network, tasks, images[0])
    assert torch.allclose(same[1], network.run_target(network(1), images[0]), atol=1e-6)


@pytest.mark.parametrize("own", ["nothing", "head", "everything"])
def test_is_evaluated_as_by_hand(tiny, own):
    config = tiny(num_tasks=3)
    network, tasks = build_plain(config, own), PermutedTasks(load_data("mnist5k"), 3)
    scores = evaluation.evaluate_task_aware(network, tasks, 3)
    for task in range(3):
        images, labels = tasks.eval_set(task)
        guesses = network.run_target(network(task), images).argmax(-1)
        assert scores[task] == pytest.approx(float((guesses == labels).double().mean()))


def test_starts_from_its_seed_alone(tiny):
    one, same = (build_plain(tiny(), "head").state_dict() for _ in range(2))
    other = build_plain(tiny(seed=1), "head").state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["values.0"], other["values.0"])
