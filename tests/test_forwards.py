"""What a module's forward may not do to itself is refused by name: it would be lost, or shared."""

import copy
import pickle

import pytest
import torch
from torch import nn

from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer

SMALL = {"num_chunks": 2, "hnet_hidden": (16,), "task_token_dim": 4}
X = torch.randn(8, 4)


class AssignsItsParameter(nn.Module):
    """A codebook that follows a moving mean, as in VQ-VAEs."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.code = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        y = self.encoder(x)
        if self.training:
            self.code = nn.Parameter(0.9 * self.code.detach() + 0.1 * y.detach().mean(0))
        return y - self.code


class ChangesWhatIsFrozen(nn.Module):
    """A teacher that follows the student, as in BYOL."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(4, 3)
        self.teacher = nn.Linear(4, 3).requires_grad_(False)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.teacher.weight.lerp_(self.student.weight, 0.1)
        return self.student(x) - self.teacher(x)


class MakesALayer(nn.Module):
    """One whose size is known by the first input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), None

    def forward(self, x):
        y = self.first(x)
        if self.second is None:
            self.second = nn.Linear(y.shape[1], 2)
        return self.second(y)


class MakesAnActivation(MakesALayer):
    """Which has no values: each task may share it."""

    def forward(self, x):
        self.second = nn.ReLU()
        return self.second(self.first(x))


class Thaws(nn.Module):
    """And freezes again, as schedules of fine-tuning do."""

    def __init__(self, frozen):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 3).requires_grad_(not frozen)
        self.frozen = frozen

    def forward(self, x):
        if self.training:
            self.second.requires_grad_(self.frozen)
        return self.second(self.first(x))


@pytest.mark.parametrize("frozen", [True, False])
def test_what_tasks_share_is_not_frozen_or_thawed_by_one(frozen):
    hnet = Hypernetwork(Thaws(frozen), 2, generate="first.*", **SMALL)
    with pytest.raises(RuntimeError, match=r"second.weight: the module changed its requires_grad"):
        hnet.run(X, task=0)
    weight = hnet.kept.shared.by_name()["second.weight"]
    assert weight.requires_grad == (not frozen)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (AssignsItsParameter, "code: a parameter, but the module assigned another; .* a buffer"),
        (ChangesWhatIsFrozen, "teacher.weight: frozen, but the module changed it, .* a buffer"),
        (MakesALayer, "second: the module made it in its forward"),
    ],
)
def test_what_would_be_lost_or_shared_is_refused_each_time(made, said):
    hnet = Hypernetwork(made(), 2, **SMALL)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=said):
            hnet.run(X, task=0)
    copy.deepcopy(hnet)


@pytest.mark.parametrize("made", [AssignsItsParameter, ChangesWhatIsFrozen])
def test_it_is_fine_where_it_does_not(made):
    module = made().eval()
    hnet = Hypernetwork(module, 1, **SMALL)
    module.load_state_dict(hnet(0))
    torch.testing.assert_close(hnet.run(X, task=0), module(X))


class ByAssignment(nn.Linear):
    """Keeps its weight small, as EEGNet does."""

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.1)
        return super().forward(x)


class InPlace(nn.Linear):
    """The same, where it is."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.copy_(torch.renorm(self.weight, 2, 0, 0.1))
        return super().forward(x)


@pytest.mark.parametrize("made", [ByAssignment, InPlace])
def test_a_forward_may_change_what_was_generated_for_it(made):
    module = made(4, 3)
    hnet = Hypernetwork(module, 2, **SMALL)
    before = {name: value.clone() for name, value in hnet(0).items()}
    module.load_state_dict(before)
    outputs = hnet.run(X, task=0)
    torch.testing.assert_close(outputs, module(X))
    outputs.square().sum().backward()
    assert hnet.task_tokens[0].grad.any()
    assert torch.equal(hnet(0)["weight"], before["weight"])


def test_what_has_no_values_may_be_made():
    hnet = Hypernetwork(MakesAnActivation(), 2, **SMALL)
    assert torch.equal(hnet.run(X, task=0), hnet.run(X, task=0))


def test_weights_that_lack_a_generated_one_are_refused():
    hnet = Hypernetwork(nn.Linear(4, 3), 1, **SMALL)
    with pytest.raises(ValueError, match="expected all generated parameters, got no bias"):
        hnet.run_target({"weight": torch.zeros(3, 4)}, X)


class Unpicklable:
    """As compiled functions are."""

    def __reduce_ex__(self, protocol):
        raise pickle.PicklingError("can't be pickled")


def test_a_module_that_cannot_be_pickled_is_refused():
    module = nn.Linear(4, 3)
    module.activation = Unpicklable()
    with pytest.raises(ValueError, match="target: expected a module that can be copied"):
        Hypernetwork(module, **SMALL)


def by_weights_of(hnet, task):
    weights = {name: value[0] for name, value in hnet.weights_of([task]).items()}
    return hnet.run_target(weights, X)


def by_token(hnet, task):
    return hnet.run(X, task=hnet.task_tokens[task])


@pytest.mark.parametrize("run", [by_weights_of, by_token])
def test_a_task_is_learned_by_whichever_way_it_was_run(run):
    hnet = Hypernetwork(nn.Linear(4, 3), 2, **SMALL)
    keep = TaskRegularizer(hnet)
    for task in range(2):
        optimizer = torch.optim.SGD(hnet.parameters_of(task), lr=0.1)
        with keep.learning(task):
            run(hnet, task).square().sum().backward()
            optimizer.step()
            hnet.run(X, task=0)  # a look at an old one, with gradients on
    assert keep.old_tasks == [0, 1]
