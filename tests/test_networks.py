"""Chapter 8's networks learn their streams: what is measured, what moves, what stays."""

import numpy as np
import pytest
import torch

from hnetlib.experiment.data import load_data
from hnetlib.experiment.evaluation import metrics
from hnetlib.experiment.networks import build, make_cases, make_streams, pretrained_lenet
from hnetlib.experiment.stream_learner import accuracy_on, learn
from hnetlib.targets import ConvLeNet

FROZEN = "LeNet, frozen convolutions"
QUICK = {"steps": 2, "batch_size": 8, "lr": 1e-2, "most": 20}


@pytest.fixture(scope="module")
def data():
    return load_data("mnist5k")


def learned(name, data, num_tasks=2, pretrained=None, **settings):
    """R and the hypernetwork of a case after its stream."""
    case = make_cases(pretrained or ConvLeNet())[name]
    hnet = build(case, num_tasks, num_chunks=4, hnet_hidden=[16])
    stream = make_streams(data, num_tasks)[case.stream]
    return learn(hnet, stream, **QUICK | {"beta": 0.1} | settings), hnet, stream


@pytest.mark.parametrize("name", make_cases(ConvLeNet()))
def test_every_case_learns_its_stream(name, data):
    R, hnet, stream = learned(name, data)
    assert np.isnan(R).tolist() == [[False, True], [False, False]]
    assert R[1].tolist() == [accuracy_on(hnet, stream, task, 20) for task in (0, 1)]
    assert not any(token.requires_grad for token in hnet.task_tokens)
    assert all(np.isfinite(value) for value in metrics(R).values())


def test_the_same_seed_gives_the_same_and_beta_counts(data):
    parameters = [
        torch.cat([p.detach().flatten() for p in learned("dense", data, beta=beta)[1].parameters()])
        for beta in (0.1, 0.1, 0.0)
    ]
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])


def test_many_steps_are_learned_and_with_the_penalty_kept(data):
    settings = {"steps": 60, "batch_size": 32, "most": 500}
    with_it, without = (
        metrics(learned("dense", data, 3, beta=beta, **settings)[0]) for beta in (0.1, 0.0)
    )
    assert with_it["learning_acc"] > 0.6
    assert with_it["bwt"] > without["bwt"] + 0.1


def test_frozen_convolutions_are_those_of_the_pretrained_network(data):
    pretrained = pretrained_lenet(data, steps=3, batch_size=8)
    assert not any(p.requires_grad for p in pretrained.features.parameters())
    _, hnet, _ = learned(FROZEN, data, pretrained=pretrained)
    for task in (0, 1):
        assert torch.equal(hnet(task)["features.0.weight"], pretrained.features[0].weight)
    assert all(names[0].startswith("classifier.") for names, *_ in hnet.layout)


def test_tied_layers_are_generated_once(data):
    _, hnet, _ = learned("dense, tied layers", data)
    own = hnet.materialize(1)
    assert own.layers[2].weight is own.layers[4].weight


@pytest.mark.parametrize("num_tasks", [1, 2, 13])
def test_streams_have_as_many_tasks_as_asked_for(data, num_tasks):
    for stream in make_streams(data, num_tasks).values():
        assert stream.num_tasks == num_tasks
