"""How much old tasks need each weight: online EWC and SI, which hold weights by it.

Both add `strength * sum_i importance_i * (w_i - anchor_i)^2` to a task's loss, where the anchor is
the network as the task before left it. They differ in what importance is.
"""

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from hnetlib.experiment.plain import PlainNetwork

NUM_IMAGES = 2000  # of a task, to estimate importance from: noise far below what strength changes
IMAGES_AT_ONCE = 50  # whose gradients are kept at the same time
DAMPING = 0.1  # xi of SI: keeps weights that hardly moved from counting as important


class Importance:
    """No memory at all: plain fine-tuning, and what EWC and SI are built on."""

    stored_per_weight = 0  # numbers kept beside the network for each of its weights

    def __init__(self, network: PlainNetwork, strength: float) -> None:
        self.network, self.strength = network, strength
        self.weights = list(network.parameters())
        self.tensors: dict[str, list[Tensor]] = {}  # what a resumed run needs, by name

    def begin_task(self) -> None:
        """Call before a task's first step."""

    def before_step(self) -> None:
        """Call when gradients are those of the task's loss alone; may add to them."""

    def after_step(self) -> None:
        """Call when the optimiser has moved the weights."""

    def end_task(self, task: int, images: Tensor, generator: torch.Generator) -> None:
        """Call after a task's last step, with images [M, D] of it."""

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """What is added to the loss now, a scalar."""
        if "importance" not in self.tensors:
            return torch.zeros(())
        importance, anchor = self.tensors["importance"], self.tensors["anchor"]
        parts = zip(importance, self.weights, anchor, strict=True)
        return self.strength * sum((i * (w - a) ** 2).sum() for i, w, a in parts)

    def state_dict(self) -> dict:
        """What changes within a task, beside the network."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned."""

    def _pull(self) -> None:
        """Adds the penalty's gradient, 2 * strength * importance * (w - anchor)."""
        if "importance" not in self.tensors:
            return
        anchor, importance = self.tensors["anchor"], self.tensors["importance"]
        away = torch._foreach_sub([w.detach() for w in self.weights], anchor)
        torch._foreach_mul_(away, importance)
        gradients = [weight.grad for weight in self.weights]
        torch._foreach_add_(gradients, away, alpha=2 * self.strength)

    def _remember(self, importance: list[Tensor]) -> None:
        """Adds to the importance and drops the anchor here."""
        old = self.tensors.get("importance")
        self.tensors["importance"] = torch._foreach_add(old, importance) if old else importance
        self.tensors["anchor"] = [weight.detach().clone() for weight in self.weights]


class OnlineEWC(Importance):
    """Online elastic weight consolidation (Schwarz et al., 1805.06370, section 4; gamma = 1).

    Importance is half the sum over old tasks of the diagonal of the Fisher information, the mean
    over images of the squared gradient of log p(label), with labels drawn from the network's own
    prediction.
    """

    stored_per_weight = 2

    def before_step(self) -> None:
        """Adds the penalty's gradient."""
        self._pull()

    def end_task(self, task: int, images: Tensor, generator: torch.Generator) -> None:
        """Adds the task's Fisher information."""
        fisher = fisher_diagonal(self.network, task, images, generator)
        self._remember(torch._foreach_mul(fisher, 0.5))


class SI(Importance):
    """Synaptic intelligence (Zenke et al., 1703.04200, eq. 3-5).

    Importance is each weight's share in lowering the loss along the way it took, divided by the
    square of how far it came, plus a damping; summed over old tasks.
    """

    stored_per_weight = 3

    def begin_task(self) -> None:
        """Starts the path of a new task."""
        self.start = [weight.detach().clone() for weight in self.weights]
        self.share = [torch.zeros_like(weight) for weight in self.weights]

    def state_dict(self) -> dict:
        """The path of the task so far."""
        return {"start": self.start, "share": self.share}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned."""
        self.start, self.share = state["start"], state["share"]

    def before_step(self) -> None:
        """Keeps the gradient of the task's loss for the path integral, then adds the penalty's."""
        self.gradients = [weight.grad.clone() for weight in self.weights]
        self.before = [weight.detach().clone() for weight in self.weights]
        self._pull()

    def after_step(self) -> None:
        """The step's share: minus its gradient times how far it went."""
        moved = torch._foreach_sub([weight.detach() for weight in self.weights], self.before)
        torch._foreach_addcmul_(self.share, moved, self.gradients, value=-1.0)

    def end_task(self, task: int, images: Tensor, generator: torch.Generator) -> None:
        """Adds the task's path; a weight that only raised the loss counts as unimportant."""
        parts = zip(self.share, self.weights, self.start, strict=True)
        self._remember(
            [
                (share / ((weight.detach() - start) ** 2 + DAMPING)).clamp_min(0)
                for share, weight, start in parts
            ]
        )


def fisher_diagonal(
    network: PlainNetwork, task: int, images: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """Diagonal of the Fisher information at images [M, D] of a task, like the parameters."""
    with torch.no_grad():
        probabilities = network.run_target(network(task), images).softmax(-1).cpu()  # [M, classes]
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(images.device)  # [M]
    squares = _squares_of_dense if _is_dense(network) else _squares_of_any
    fisher = [torch.zeros_like(value) for value in network.parameters()]
    own = network.select(fisher, task)  # views of what this task uses
    for name, summed in squares(network, task, images, labels).items():
        own[name].copy_(summed / len(images))
    return fisher


def _is_dense(network: PlainNetwork) -> bool:
    """Whether all its weights are those of dense layers with a bias."""
    layers = [name for name, m in network.target.named_modules() if isinstance(m, nn.Linear)]
    return network.names == [f"{name}.{part}" for name in layers for part in ("weight", "bias")]


def _squares_of_dense(
    network: PlainNetwork, task: int, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Sum over images [M, D] of the squared gradient for each of a task's weights, by name.

    The gradient of a dense layer at one image is an outer product, so the sum of squares is a
    matrix product of squares: no image's own gradient is ever made.
    """
    layers = {name: m for name, m in network.target.named_modules() if isinstance(m, nn.Linear)}
    passed: dict[str, tuple[Tensor, Tensor]] = {}  # name: what went in [M, in], what came out
    hooks = [
        layer.register_forward_hook(
            lambda _, given, made, name=name: passed.__setitem__(name, (given[0], made))
        )
        for name, layer in layers.items()
    ]
    logits = network.run_target(network(task), images)
    for hook in hooks:
        hook.remove()
    loss = cross_entropy(logits, labels, reduction="sum")
    slopes = torch.autograd.grad(loss, [made for _, made in passed.values()])  # [M, out] each
    squares = {}
    for (name, (given, _)), slope in zip(passed.items(), slopes, strict=True):
        squares[f"{name}.weight"] = slope.square().T @ given.detach().square()  # [out, in]
        squares[f"{name}.bias"] = slope.square().sum(0)  # [out]
    return squares


def _squares_of_any(
    network: PlainNetwork, task: int, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """The same for any target, from the gradients of a few images at a time."""
    weights = {name: value.detach() for name, value in network(task).items()}
    total = [torch.zeros_like(value) for value in weights.values()]

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(network.run_target(weights, image[None]), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    for some in torch.arange(len(images)).split(IMAGES_AT_ONCE):
        each = gradients(weights, images[some], labels[some])  # by name, [m, *shape]
        torch._foreach_add_(total, [each[name].square().sum(0) for name in weights])
    return dict(zip(weights, total, strict=True))


IMPORTANCE = {"fine-tuning": Importance, "ewc": OnlineEWC, "si": SI}
