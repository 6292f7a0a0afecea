"""`learn` refuses what can't be learned before anything is, and what diverges is no result."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hnetlib.experiment.loop import DivergedError
from hnetlib.experiment.stream_learner import learn
from hnetlib.experiment.streams import LoaderTasks
from hnetlib.hypernet import Hypernetwork


def _two_tasks(labels):
    x = torch.randn(20, 4)
    loader = [(x, labels)]
    return LoaderTasks([(loader, loader)] * 2, num_classes=np.int64(2))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"most": 0}, "most: expected a whole number of at least 1, got 0"),
        ({"beta": -1.0}, "expected lr above 0 and beta of at least 0"),
        ({"lr": float("nan")}, "expected lr above 0 and beta of at least 0"),
        (
            {"num_tasks": 1},
            "hnet: expected one with a token for each of the .* 2 tasks, got 1",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_learned_is_said_before_anything_is(changes, line):
    sound = {"steps": 2, "batch_size": 20, "lr": 1e-2, "beta": 0.1, "num_tasks": 2} | changes
    hnet = Hypernetwork(nn.Linear(4, 2), sound.pop("num_tasks"), hnet_hidden=(8,))
    before = [p.clone() for p in hnet.parameters()]
    with pytest.raises(ValueError, match=line):
        learn(hnet, _two_tasks(torch.zeros(20, dtype=torch.int32)), **sound)
    assert all(torch.equal(a, b) for a, b in zip(before, hnet.parameters(), strict=True))


def test_inputs_that_are_no_numbers_are_named():
    x, y = torch.full((4, 3), torch.nan), torch.tensor([0, 1, 0, 1])
    loader = DataLoader(TensorDataset(x, y), 2)
    hnet = Hypernetwork(nn.Linear(3, 2), 1, hnet_hidden=(4,))
    settings = {"steps": 2, "batch_size": 2, "lr": 0.1, "beta": 0.1}
    with pytest.raises(DivergedError, match="its inputs are not finite"):
        learn(hnet, LoaderTasks([(loader, loader)], 2), **settings)
    with pytest.raises(TypeError, match="hnet: expected Hypernetwork, got Linear"):
        learn(nn.Linear(3, 2), LoaderTasks([(loader, loader)], 2), **settings)


def test_labels_of_any_whole_kind_are_learned_and_what_diverges_is_no_result():
    stream = _two_tasks(torch.zeros(20, dtype=torch.int32))
    hnet = Hypernetwork(nn.Linear(4, 2), 2, hnet_hidden=(8,))
    R = learn(hnet, stream, steps=100, batch_size=20, lr=3e-2, beta=0.1)
    assert R[-1].tolist() == [1.0, 1.0]
    with pytest.raises(DivergedError, match="task 0: "):
        learn(
            Hypernetwork(nn.Linear(4, 2), 2, hnet_hidden=(8,)),
            stream,
            steps=20,
            batch_size=20,
            lr=1e30,
            beta=0.1,
        )


@pytest.mark.parametrize(
    ("module", "stream", "line"),
    [
        (nn.Linear(4, 1), None, r"logits \[2, at least 2\] for task 0, got \[2, 1\]"),
        (nn.LSTM(4, 2), None, r"logits \[2, at least 2\] for task 0, got tuple"),
        (nn.Linear(4, 2), [1], "stream: expected Stream, got list"),
    ],
)
def test_what_no_task_can_be_learned_with_is_said_first(module, stream, line):
    hnet = Hypernetwork(module, 2, hnet_hidden=(8,))
    stream = stream or _two_tasks(torch.zeros(20, dtype=torch.int64))
    with pytest.raises((TypeError, ValueError), match=line):
        learn(hnet, stream, steps=1, batch_size=20, lr=1e-2, beta=0.1)
    assert hnet.task_tokens[0].requires_grad


def test_a_part_that_evaluates_goes_on_to():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    module[1].eval()
    hnet = Hypernetwork(module, 2, hnet_hidden=(8,))
    sound = {"steps": 2, "batch_size": 20, "lr": 1e-2, "beta": 0.1}
    learn(hnet, _two_tasks(torch.zeros(20, dtype=torch.int64)), **sound)
    assert not hnet.target[1].training
    assert hnet.target[0].training
    assert hnet(1)["1.num_batches_tracked"] == 0


def test_loaders_come_in_pairs_and_classes_are_whole():
    loader = [(torch.randn(20, 4), torch.zeros(20, dtype=torch.int64))]
    with pytest.raises(ValueError, match="task 0: expected a loader to train from and one to"):
        LoaderTasks([loader], 2)
    with pytest.raises(ValueError, match="num_classes: expected a whole number of at least 1"):
        LoaderTasks([(loader, loader)], [2.0])


def _pairs(width=4, labels=(0, 1), batch_size=4):
    data = TensorDataset(torch.randn(len(labels), width), torch.tensor(labels, dtype=torch.long))
    return DataLoader(data, batch_size)


@pytest.mark.parametrize(
    ("second", "line"),
    [
        ((_pairs(batch_size=8), _pairs()), "batch_size: expected 8, as the loader of task 1 has"),
        ((_pairs(), _pairs(labels=())), "task 1: expected batches to evaluate with, got none"),
        ((_pairs(), _pairs(labels=(0, 5))), "task 1: expected labels from 0 to 1, got 5"),
        ((_pairs(), _pairs(width=3)), r"task 1: the module can't compute inputs \[2, 3\]"),
        ((_pairs(), [(torch.zeros(0, 4), torch.zeros(0).long())]), "task 1: .* inputs to evaluate"),
    ],
)
def test_what_a_later_task_lacks_is_said_before_the_first_is_learned(second, line):
    stream = LoaderTasks([(_pairs(), _pairs()), second], 2)
    hnet = Hypernetwork(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), 2)
    before = {name: value.clone() for name, value in hnet.state_dict().items()}
    with pytest.raises(ValueError, match=line):
        learn(hnet, stream, steps=1, batch_size=4, lr=1e-2, beta=0.1)
    assert all(torch.equal(value, before[name]) for name, value in hnet.state_dict().items())
