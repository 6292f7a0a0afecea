"""`PlainNetwork`: the target trained directly, without a hypernetwork, as baselines do."""

import copy
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hnetlib.experiment.config import Config
from hnetlib.hypernet import Hypernetwork

Own = Literal["nothing", "head", "everything"]


class PlainNetwork(nn.Module):
    """A target whose layers all tasks share, but for those that each task has of its own.

    `own` says which: "nothing" (one head for all tasks), "head" (the last layer) or "everything"
    (one network per task). Own tensors are kept as one, with the tasks as first dimension.
    """

    def __init__(self, targets: Sequence[nn.Module], own: Own = "nothing") -> None:
        """`targets`: an initialised network for each task, or one where nothing is a task's own.

        What tasks share is the first's.
        """
        super().__init__()
        names = [name for name, _ in targets[0].named_parameters()]
        owned = {"nothing": (), "head": names[-2:], "everything": names}[own]
        self.shared = frozenset(names) - frozenset(owned)
        self.values = nn.ParameterList()
        for name in names:
            each = [target.get_parameter(name).detach() for target in targets]
            self.values.append(torch.stack(each) if name in owned else each[0].clone())
        self.names = names
        self.target = without_weights(targets[0])

    def forward(self, task: int) -> dict[str, Tensor]:
        """The weights of one task's network, by name."""
        return self.select(self.values, task)

    def run_target(self, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        """What the target computes on `inputs` when it has these weights."""
        return functional_call(self.target, weights, inputs)

    def weights_of(self, tasks: Tensor) -> dict[str, Tensor]:
        """Weights by name for tasks [G]: each [G, *shape], a shared one [*shape]."""
        return self.select(self.values, tasks)

    def select(self, values: Iterable[Tensor], tasks: int | Tensor) -> dict[str, Tensor]:
        """What belongs to these tasks of `values`, which are like the parameters, by name."""
        pairs = zip(self.names, values, strict=True)
        return {name: value if name in self.shared else value[tasks] for name, value in pairs}


def run_tasks(network: PlainNetwork | Hypernetwork, tasks: Tensor, images: Tensor) -> Tensor:
    """Logits [G, B, classes] of each of the tasks [G].

    images: [G, B, D], or [B, D] where all tasks read the same ones.
    """
    weights = network.weights_of(tasks)
    dims = {name: None if name in network.shared else 0 for name in weights}
    if images.dim() == 2 and None not in dims.values():
        return vmap(network.run_target, in_dims=(dims, None))(weights, images)
    images = images.expand(len(tasks), *images.shape[-2:])  # [G, B, D]
    return vmap(network.run_target, in_dims=(dims, 0))(weights, images)


def build_plain(config: Config, own: Own) -> PlainNetwork:
    """The untrained network of a config; its starting values depend on the seed alone.

    They are the target's (He et al., 1502.01852), drawn anew for everything that a task owns.
    """
    different = 1 if own == "nothing" else config.num_tasks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        targets = [config.make_target() for _ in range(different)]
    return PlainNetwork(targets, own).to(config.device)


def without_weights(target: nn.Module) -> nn.Module:
    """A copy of the target with no parameters: calling it without weights fails."""
    skeleton = copy.deepcopy(target)
    for module in skeleton.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                # Deleted, not replaced: functional_call then sets attributes, which modules that
                # cache their weights (nn.LSTM) notice.
                del module._parameters[name]
    return skeleton
