"""What only a GPU runs, in one place. **It has never run on a GPU**: none was at hand.

Tests on a CPU can't reach it, but for its interface. What it is to do: take a step as often as it
is called, with the numbers that the same steps give without it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EAGER_STEPS = 3  # before a CUDA graph is captured, so that libraries have set themselves up
Losses = tuple[Tensor, ...]


class GraphedStep:
    """Calls `step`; from the fourth call on by replaying it as one CUDA graph.

    Inputs are then copied into the tensors it was recorded with, but for `constant` ones: the same
    at every call, known by identity.
    """

    def __init__(
        self, step: Callable[..., Losses], optimizer: torch.optim.Optimizer, constant: set[int]
    ) -> None:
        self.step, self.optimizer, self.constant = step, optimizer, constant
        self.num_calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Losses:
        """What `step` returns for these inputs."""
        self.num_calls += 1
        if self.num_calls <= EAGER_STEPS:
            return self._on_side_stream(*inputs)
        if self.graph is None:
            self._capture(*inputs)
        for fixed, new in zip(self.inputs, inputs, strict=True):
            fixed.copy_(new)
        self.graph.replay()
        return self.losses

    def _on_side_stream(self, *inputs: Tensor) -> Losses:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _capture(self, *inputs: Tensor) -> None:
        """Records a step, without running it, on inputs that stay where they are."""
        self.inputs = [x if i in self.constant else x.clone() for i, x in enumerate(inputs)]
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.losses = self.step(*self.inputs)


def adam(groups: list[dict]) -> torch.optim.Adam:
    """Adam whose rates are tensors, which a recorded graph reads anew at each step."""
    for group in groups:
        group["lr"] = torch.tensor(group["lr"], device="cuda")
    return torch.optim.Adam(groups, fused=True, capturable=True)


def set_rate(group: dict, rate: float) -> None:
    """The learning rate of one group of such an Adam."""
    group["lr"].fill_(rate)


def allow_tf32() -> None:
    """Matrix products of float32 by TensorFloat-32."""
    torch.set_float32_matmul_precision("high")
