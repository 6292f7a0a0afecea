"""`fit`: learns, measures where it says, and repeats itself."""

import torch

from hnetlib.experiment.data import load_data
from hnetlib.experiment.loop import fit
from hnetlib.targets import make_target


def trained(seed=0, steps=150):
    torch.manual_seed(0)
    target = make_target("mlp-32", 784)
    settings = {"steps": steps, "batch_size": 64, "lr": 1e-2, "seed": seed}
    return fit(target, target.parameters(), load_data("mnist5k"), **settings), target


def test_learns_and_measures_to_the_end():
    measured, _ = trained()
    assert max(measured) == 150
    assert len(measured) == 15
    assert measured[150] > 0.9


def test_few_steps_are_measured_too():
    measured, _ = trained(steps=4)
    assert list(measured) == [1, 2, 3, 4]


def test_the_seed_decides_the_batches():
    (first, one), (second, two), (third, other) = trained(), trained(), trained(seed=1)
    weight = "layers.0.weight"
    assert first == second
    assert torch.equal(one.state_dict()[weight], two.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert max(third) == 150
