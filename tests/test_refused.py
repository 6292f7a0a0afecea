"""Modules and settings that a hypernetwork can't be made of are refused by name."""

import copy
import pickle
import re
import threading
import types

import pytest
import torch
from torch import nn

from hnetlib import Hypernetwork
from hnetlib.chunks import Along


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


class Listed(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 2))
        self.all = {"list": [self.w], "dict": {"w": (self.w,)}}[kind]

    def forward(self, x):
        return x @ self.w


def closed_over():
    part = nn.Sequential(nn.Linear(4, 2))
    part.scaled = lambda x: 2 * part[0](x)
    return part


def patched():
    part = nn.Sequential(nn.Linear(4, 2))
    old = part[0].forward
    part[0].forward = lambda x: torch.relu(old(x))
    return part


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: Listed("list"), "all"),
        (lambda: Listed("dict"), "all"),
        (closed_over, "scaled"),
        (patched, "0.forward"),
    ],
)
def test_what_reaches_parameters_another_way_is_refused(made, name):
    with pytest.raises(ValueError, match=f"^{name}: reaches a parameter or module past"):
        Hypernetwork(made(), 1, hnet_hidden=(8,))


def test_bound_methods_and_lists_of_modules_see_generated_values():
    part = nn.Sequential(nn.Linear(4, 2))
    part.both = [part[0]]
    part.run_it = part[0].forward
    part.forward = types.MethodType(lambda self, x: self.run_it(x) + self.both[0](x), part)
    hnet = Hypernetwork(part, 1, hnet_hidden=(8,))
    x, weights = torch.randn(3, 4), hnet(0)
    expected = 2 * (x @ weights["0.weight"].T + weights["0.bias"])
    torch.testing.assert_close(hnet.run(x, task=0), expected)


class Fills(nn.Module):
    """Fills a buffer when it is first run."""

    def __init__(self, registered):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        if registered:
            self.register_buffer("mean", None, persistent=False)

    def forward(self, x):
        if getattr(self, "mean", None) is None:
            self.register_buffer("mean", x.mean(0).detach(), persistent=False)
        return self.layer(x - self.mean)


@pytest.mark.parametrize("registered", [True, False])
def test_a_buffer_that_the_first_run_fills_is_named_and_not_kept(registered):
    hnet = Hypernetwork(Fills(registered), 2, hnet_hidden=(8,))
    for task in (0, 1):
        with pytest.raises(RuntimeError, match="mean: the module made it in its forward"):
            hnet.run(torch.randn(3, 4) + 100 * task, task=task)
    run_before = Fills(registered)
    run_before(torch.zeros(1, 4))
    Hypernetwork(run_before, 1, hnet_hidden=(8,)).run(torch.randn(3, 4), task=0)


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (torch.tensor(1), lambda old, x: old * 0.5),
        (torch.zeros(4), lambda old, x: x.mean()),
        (torch.zeros(1, 4), lambda old, x: x),
    ],
)
def test_a_buffer_assigned_in_another_shape_or_type_is_named(start, change):
    class Assigns(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("kept", start)

        def forward(self, x):
            self.kept = change(self.kept, x)
            return self.layer(x)

    hnet = Hypernetwork(Assigns(), 1, hnet_hidden=(8,))
    with pytest.raises(ValueError, match="kept: expected the module to assign"):
        hnet.run(torch.randn(3, 4), task=0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hnet_hidden": 64}, r"hnet_hidden: expected positive layer sizes, as \(64, 64\), got 64"),
        ({"hnet_hidden": (8, 0)}, "hnet_hidden: expected positive layer sizes"),
        ({"cut": "flat"}, r"cut: expected FlatChunks or Along\({name: dim}\), got 'flat'"),
        ({"generate": []}, r"generate: expected a pattern of names or several, got \[\]"),
        ({"num_chunks": 2.0}, "num_chunks: expected a whole number of at least 1, got 2.0"),
        ({"hnet_activation": "sine", "frequency": 0.0}, "frequency: expected None or a finite"),
    ],
)
def test_settings_of_another_kind_are_named(settings, line):
    with pytest.raises(ValueError, match=line):
        Hypernetwork(module(), 1, **settings)


def test_sizes_may_come_one_by_one_and_arguments_have_any_name():
    hnet = Hypernetwork(module(), 1, hnet_hidden=map(int, ["16", "8"]))
    assert [layer.out_features for layer in hnet.body if hasattr(layer, "out_features")] == [16, 8]

    class Weighted(nn.Linear):
        def forward(self, x, weights):
            return weights * super().forward(x)

    doubled = Hypernetwork(Weighted(4, 2), 1, hnet_hidden=(8,)).run(
        torch.ones(1, 4), task=0, weights=2.0
    )
    assert doubled.shape == (1, 2)


def test_a_cut_is_made_of_names_and_dimensions():
    with pytest.raises(ValueError, match=r"cut: expected {name of a parameter: dimension}, got '0"):
        Along("0.weight")


def compiled_in_place():
    linear = nn.Linear(4, 3)
    linear.compile(backend="eager")
    return linear


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (torch.jit.script(nn.Linear(4, 3)), "0: expected a module that runs in Python"),
        (torch.compile(nn.Linear(4, 3), backend="eager"), "0: expected the module before torch"),
        (compiled_in_place(), "0: expected the module before torch.compile"),
        (nn.DataParallel(nn.Linear(4, 3)), "0: expected the module itself, .module, got DataP"),
        (nn.Embedding(5, 3, max_norm=1.0), "0.weight: generated, so expected max_norm=None"),
        (nn.EmbeddingBag(5, 3, sparse=True), "0.weight: generated, so expected sparse=False"),
    ],
    ids=["script", "compiled", "compiled-in-place", "parallel", "max-norm", "sparse"],
)
def test_what_cannot_run_with_generated_values_is_named_at_once(module, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        Hypernetwork(nn.Sequential(module, nn.Linear(3, 2)))


def test_an_embedding_that_is_not_generated_keeps_its_options():
    module = nn.Sequential(nn.Embedding(5, 3, max_norm=1.0), nn.Linear(3, 2))
    hnet = Hypernetwork(module, 1, generate="1.*")
    assert hnet.run(torch.tensor([0, 4]), task=0).shape == (2, 2)


class Aside(nn.Module):
    """Reaches its weight by an object that nothing looks into, or by its __dict__."""

    def __init__(self, kind):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4))
        if kind == "object":
            self.beside = types.SimpleNamespace(w=self.w)
        elif kind == "dict":
            self.__dict__["hidden"] = self.w
        self.kind, self.merged = kind, None

    def train(self, mode=True):
        self.merged = None if mode else self.w.detach().clone()
        return super().train(mode)

    def forward(self, x):
        w = {"object": lambda: self.beside.w, "dict": lambda: self.hidden}.get(self.kind)
        return nn.functional.linear(x, w() if w else self.w if self.training else self.merged)


@pytest.mark.parametrize("kind", ["object", "dict", "merged"])
def test_values_that_nothing_put_in_are_no_result(kind):
    hnet = Hypernetwork(Aside(kind), 1, hnet_hidden=(8,))
    if kind == "merged":
        assert hnet.run(torch.randn(2, 4), task=0).isfinite().all()
        hnet.eval()
    with pytest.raises(RuntimeError, match="a parameter or buffer without values was used"):
        hnet.run(torch.randn(2, 4), task=0)


def test_the_module_by_itself_has_no_values_also_from_a_copy():
    hnet = Hypernetwork(nn.Linear(4, 3, bias=False), 1, hnet_hidden=(8,))
    for one in (hnet, copy.deepcopy(hnet), pickle.loads(pickle.dumps(hnet)), hnet.double()):
        assert isinstance(one.target.weight, nn.Parameter)
        with pytest.raises(RuntimeError, match="without values was used"):
            one.target(torch.randn(2, 4, dtype=one.target.weight.dtype))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"module": nn.Embedding(5, 4, padding_idx=0)}, "weight: generated, so expected padding_"),
        ({"generate": 5}, "generate: expected a pattern of names or several, got 5"),
        ({"generate": [None]}, "generate: expected a pattern of names or several"),
        ({"cut": Along, "dims": {"weight": 1.0}}, "cut: expected a dimension of weight, got 1.0"),
        ({"hnet_activation": "sine", "frequency": "1.5"}, "frequency: expected Real, got str"),
    ],
    ids=str,
)
def test_what_is_no_pattern_dimension_or_number_is_named(changes, line):
    dims = changes.pop("dims", None)
    made = changes.pop("module", nn.Linear(4, 3))
    with pytest.raises((TypeError, ValueError), match=line):
        Hypernetwork(made, 1, **changes | ({"cut": Along(dims)} if dims else {}))


def test_starting_values_are_numbers_and_a_token_is_one():
    mask = nn.Linear(4, 4)
    mask.weight.data.fill_(float("-inf"))
    with pytest.raises(ValueError, match="weight: expected finite values to start from"):
        Hypernetwork(mask, 1)
    hnet = Hypernetwork(nn.Linear(4, 4), 1, task_token_dim=4)
    with pytest.raises(ValueError, match=r"token: expected shape \[4\], got \[2, 4\]"):
        hnet.run(torch.randn(2, 4), task=torch.randn(2, 4))


def test_a_module_that_cannot_be_copied_is_named():
    made = nn.Linear(4, 2)
    made.lock = threading.Lock()
    with pytest.raises(ValueError, match="target: expected a module that can be copied, but"):
        Hypernetwork(made, 1)


class Remade(nn.Linear):
    """Copies itself in a way of its own."""

    def __deepcopy__(self, memo):
        new = Remade(self.in_features, self.out_features)
        new.load_state_dict(self.state_dict())
        return new


class Same(nn.Linear):
    """Is not copied."""

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("kind", [Remade, Same])
def test_a_part_that_copies_itself_another_way_is_refused(kind):
    with pytest.raises(ValueError, match=r"^(target|0\.weight): expected"):
        Hypernetwork(nn.Sequential(kind(4, 4), nn.Linear(4, 3)), 1, hnet_hidden=(8,))


def test_a_sparse_buffer_is_refused_and_a_sparse_attribute_is_not():
    net = nn.Sequential(nn.Linear(4, 3))
    net.adjacency = torch.eye(4).to_sparse()
    assert Hypernetwork(net, 1, hnet_hidden=(8,)).run(torch.randn(2, 4), task=0).shape == (2, 3)
    del net.adjacency
    net.register_buffer("adjacency", torch.eye(4).to_sparse())
    with pytest.raises(ValueError, match=r"^adjacency: expected a dense one"):
        Hypernetwork(net, 1, hnet_hidden=(8,))
