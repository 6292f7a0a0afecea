"""Dense layers with their activations, each initialised so that signals keep their size."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hnetlib.checks import expect_a, expect_one_of

HnetActivation = Literal["relu", "elu", "sine"]


def relu_layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Dense layers of these sizes, each with a ReLU behind it.

    Weights start with the variance 2 / fan-in that keeps the size of ReLU features constant
    (He et al., arXiv 1502.01852), biases at 0.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return layers


def elu_layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Dense layers of these sizes, each with an ELU behind it (Clevert et al., 1511.07289)."""
    return [nn.ELU() if isinstance(layer, nn.ReLU) else layer for layer in relu_layers(sizes)]


def sine_layers(sizes: Sequence[int], frequency: float | None = None) -> list[nn.Module]:
    """Dense layers of these sizes, each with a sine behind it (as in Sitzmann et al., 2006.09661).

    A sine is odd, so features of different tokens start nearly orthogonal. ReLU features all point
    the same way: inputs with a cosine of 1/3 between them (two tasks, the same chunk) leave three
    random layers with 0.7 after ReLUs (the arc-cosine kernel, Cho & Saul, 2009) and 0.2 after
    sines, and what one task changes, the others feel by that much.

    `frequency`: the standard deviation of the first layer's weights, whose biases are then phases
    drawn from a whole period (random Fourier features: Rahimi & Recht, 2007; Tancik et al.,
    2006.10739). Inputs of few numbers need one above 1 to have different features at all.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, std=fan_in**-0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, Sine()]
    if frequency is not None:
        nn.init.normal_(layers[0].weight, std=frequency)
        nn.init.uniform_(layers[0].bias, -math.pi, math.pi)
    return layers


class Sine(nn.Module):
    """The sine of its input, scaled to keep about unit variance."""

    def forward(self, x: Tensor) -> Tensor:
        """Values between -sqrt(2) and sqrt(2), in the shape of `x`."""
        return math.sqrt(2) * torch.sin(x)


def layers_of(
    activation: HnetActivation, frequency: float | None
) -> Callable[[Sequence[int]], list[nn.Module]]:
    """What makes the layers with an activation; one line says what is wrong with the two."""
    expect_one_of("hnet_activation", activation, get_args(HnetActivation))
    if frequency is not None:
        expect_a(Real, frequency=frequency)
        if activation != "sine":
            raise ValueError(f"frequency: expected None with {activation}, got {frequency}")
        if not 0 < frequency < math.inf:
            raise ValueError(f"frequency: expected None or a finite one above 0, got {frequency}")
    sines = partial(sine_layers, frequency=frequency)
    return {"relu": relu_layers, "elu": elu_layers, "sine": sines}[activation]
