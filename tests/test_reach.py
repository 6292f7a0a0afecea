"""What goes past a module's registered attributes, or shares memory with them, is refused."""

import copy
import weakref
from collections import deque
from functools import lru_cache, partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hnetlib import Hypernetwork


class Net(nn.Module):
    """One layer; `held` is what it keeps besides."""

    def __init__(self, hold):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.held = hold(self)

    def forward(self, x):
        return self.layer(x)


class Part:
    """An object of a user's that holds a module."""

    def __init__(self, layer):
        self.layer = layer


def local_class(net):
    layer = net.layer

    class Caller:
        def __call__(self, x):
            return layer(x)

    return Caller()


def nested(function, depth):
    return function if not depth else [nested(function, depth - 1)]


def closes_over(value):
    return lambda x: (value, x)


def default(net):
    def function(x, *, layer=net.layer):
        return layer(x)

    return function


PAST = {
    "closure": lambda net: closes_over(net.layer),
    "closure of a tensor": lambda net: closes_over(net.layer.weight),
    "partial of a closure": lambda net: partial(closes_over(net.layer), 1),
    "cached closure": lambda net: lru_cache(closes_over(net.layer)),
    "keyword default": default,
    "closure over a list": lambda net: closes_over([net.layer]),
    "closure over a dict": lambda net: closes_over({"a": {"b": net.layer}}),
    "closure over an object": lambda net: closes_over(Part(net.layer)),
    "object with a closure": lambda net: SimpleNamespace(f=closes_over(net.layer)),
    "local class": local_class,
    "deque": lambda net: deque([closes_over(net.layer)]),
    "deep": lambda net: nested(closes_over(net.layer), 5),
    "weak reference": lambda net: weakref.ref(net.layer),
    "tensor in a list": lambda net: [net.layer.weight],
}
WITHIN = {
    "list of modules": lambda net: [net.layer],
    "object with a module": lambda net: Part(net.layer),
    "optimizer": lambda net: torch.optim.Adam(net.layer.parameters()),
    "method": lambda net: net.layer.forward,
    "partial of a method": lambda net: partial(net.layer.forward),
    "closure over numbers": lambda net: closes_over([1.0, torch.randn(3)]),
    "closure over another module": lambda net: closes_over(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("name", PAST)
def test_what_a_copy_would_not_follow_is_refused(name):
    with pytest.raises(ValueError, match=r"^held: reaches a parameter or module past"):
        Hypernetwork(Net(PAST[name]), 1, hnet_hidden=(8,))


@pytest.mark.parametrize("name", WITHIN)
def test_what_a_copy_follows_is_not(name):
    hnet = Hypernetwork(Net(WITHIN[name]), 1, hnet_hidden=(8,))
    x, weights = torch.randn(3, 4), hnet(0)
    expected = x @ weights["layer.weight"].T + weights["layer.bias"]
    torch.testing.assert_close(hnet.run(x, task=0), expected)


@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_that_close_over_a_parameter_are_refused(kind):
    net = Net(lambda net: None)
    net.gain = nn.Parameter(torch.ones(4))
    getattr(net.layer, kind)(lambda module, *values: values[-1] * net.gain)
    with pytest.raises(
        ValueError, match=r"^layer\._(for|back)ward_(pre_)?hooks: reaches a parameter"
    ):
        Hypernetwork(net, 1, hnet_hidden=(8,))


def test_hooks_that_keep_what_they_see_outside_work():
    net, seen = Net(lambda net: None), []
    net.layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    hnet, x = Hypernetwork(net, 1, hnet_hidden=(8,)), torch.randn(3, 4)
    assert hnet.run(x, task=0) is seen[-1]


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_parameter_is_refused_until_it_is_removed(kind):
    net = Net(lambda net: None)
    hook = getattr(net.layer.bias, kind)(lambda _: None)
    with pytest.raises(ValueError, match=r"^layer\.bias: has a hook"):
        Hypernetwork(net, 1, hnet_hidden=(8,))
    hook.remove()
    Hypernetwork(net, 1, hnet_hidden=(8,))


class Twice(nn.Module):
    """Two layers, of which `tie` makes something share memory."""

    def __init__(self, tie):
        super().__init__()
        self.e, self.d = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        tie(self)

    def forward(self, x):
        return self.d(self.e(x))


def transposed(net):
    net.d.weight.data = net.e.weight.data.t()


def halves(net):
    flat = torch.randn(32)
    net.e.weight.data, net.d.weight.data = flat[:16].view(4, 4), flat[16:].view(4, 4)


def columns(net):
    both = torch.randn(4, 8)
    net.e.weight.data, net.d.weight.data = both[:, ::2], both[:, 1::2]


SHARED = {
    "transposed": transposed,
    "a buffer": lambda net: net.register_buffer("b", net.e.weight.data),
    "an attribute": lambda net: setattr(net, "view", net.e.weight.data[0]),
    "a frozen parameter": lambda net: net.register_parameter(
        "held", nn.Parameter(net.e.weight.data.t(), requires_grad=False)
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_tensors_that_share_memory_with_a_generated_one_are_refused(name):
    with pytest.raises(ValueError, match="shares memory with"):
        Hypernetwork(Twice(SHARED[name]), 1, hnet_hidden=(8,))


@pytest.mark.parametrize("tie", [halves, columns])
def test_pieces_of_one_memory_that_do_not_overlap_are_parameters_like_others(tie):
    hnet, x = Hypernetwork(Twice(tie), 1, hnet_hidden=(8,)), torch.randn(3, 4)
    weights = hnet(0)
    expected = x @ weights["e.weight"].T @ weights["d.weight"].T
    torch.testing.assert_close(hnet.run(x, task=0), expected)


def test_a_mask_of_the_smallest_numbers_is_no_parameter_to_generate():
    net = Net(lambda net: None)
    net.mask = nn.Parameter(torch.triu(torch.full((4, 4), torch.finfo().min), 1))
    with pytest.raises(ValueError, match=r"^mask: expected values of a finite spread"):
        Hypernetwork(net, 1, hnet_hidden=(8,))
    net.mask.requires_grad_(False)
    assert (
        copy.deepcopy(Hypernetwork(net, 1, hnet_hidden=(8,)))
        .run(torch.ones(1, 4), task=0)
        .isfinite()
        .all()
    )
