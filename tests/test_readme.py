"""What the README and the API pages show in code runs as it stands, and does what is said."""

import doctest
import re
from importlib import import_module

import pytest
import torch
from kinds import KINDS
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork
from hnetlib.chunks import Along
from hnetlib.experiment import paths

README = (paths.PACKAGE.parent / "README.md").read_text(encoding="utf-8")


def code_with(line):
    """The README's one block of Python that has this in it."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.S) if line in b]
    return block


def points(num_classes):
    """Points in the plane, and in which of so many equal sectors each one is."""
    x = torch.randn(512, 2)
    angle = torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi) + 0.5  # 0 to 1
    return x, (angle * num_classes).long().clamp(max=num_classes - 1)


@pytest.fixture
def names():
    """What a reader brings along."""
    module = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))
    return {"my_module": module, "beta": 0.1}


def test_the_loop_learns_and_keeps(names):
    stream = [300 * [points(2)], 300 * [points(3)]]
    names |= {"stream": stream}
    exec(code_with("for batches in stream:"), names)
    for task, batches in enumerate(stream):
        x, y = batches[0]
        right = names["hnet"].run(x, task=task).argmax(1) == y
        assert right.float().mean() > 0.9
    assert type(names["net"]) is nn.Sequential


def test_tokens_that_carry_the_task_are_made_as_it_says():
    torch.manual_seed(0)
    chosen = dict(re.findall(r"`(generate|cut|tokens)=(.*?)`", README))
    how = {name: eval(value, {"Along": Along}) for name, value in chosen.items()}
    module = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    small = {"task_token_dim": 8, "hnet_hidden": (64,), "hnet_activation": "sine"}
    hnet = Hypernetwork(module, **how, **small, frequency=1.5)
    x = torch.randn(512, 20)
    y = (x[:, :10].sum(1) > x[:, 10:].sum(1)).long()
    orders = [torch.randperm(20) for _ in range(3)]
    for number, order in enumerate(orders):
        task = hnet.add_task()
        optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=3e-2 if number else 3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            cross_entropy(hnet.run(x[:, order], task=task), y).backward()
            optimizer.step()
        if number == 0:
            hnet.freeze_generator()
    for task, order in enumerate(orders):  # none is forgotten
        assert (hnet.run(x[:, order], task=task).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("name", ["", ".chunks", ".experiment.stream_learner"])
def test_examples_of_the_api_pages_run(name):
    failed, tried = doctest.testmod(import_module(f"hnetlib{name}"))
    assert tried > 5
    assert not failed


def test_it_says_how_many_kinds_of_modules_are_tested():
    assert set(re.findall(r"(\d+) kinds", README)) == {str(len(KINDS))}
    chapter = (paths.PACKAGE.parent / "notebooks" / "08_any_network.ipynb").read_text()
    assert set(re.findall(r"(\d+) kinds of modules", chapter)) == {str(len(KINDS))}
