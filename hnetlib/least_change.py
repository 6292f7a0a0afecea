"""The last layer's share of a task: learned as generated weights, written with least change."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from hnetlib.hypernet import Hypernetwork

MOMENTUM = 0.9
JITTER = 1e-10  # of the mean diagonal: two chunks with the same features must not divide by 0
SMALLEST = 1e-12  # norm of a gradient that is divided by, at least


class LeastChange:
    """Learns what the last layer should add to a task's weights, and writes it in at the end.

    The last layer W is linear in its features: adding dW to it changes what a token with features
    phi [C, H] generates by phi dW^T. So while a task is learned, W stays, and what is learned is a
    change D [C, N] of the rows that W writes for this task. At the end D is written into W by the
    one dW that gives exactly D here and as little as possible elsewhere, the minimum of

        tr(dW S dW^T) + damping * a * ||dW||^2   where   phi dW^T = D,

    whose first term is the penalty of `TaskRegularizer`, exact and over all old tasks s:
    S = 1/t sum_s phi_s^T phi_s, with each chunk weighted by its mean squared scale; a is S's mean
    eigenvalue, so that damping has no unit. With M = (S + damping * a * I)^-1 the minimum is

        dW = D^T (phi M phi^T)^-1 phi M,   and its value   tr(D^T (phi M phi^T)^-1 D),

    which is `penalty`: the price of D, known while D is learned. Preconditioning a layer by the
    inverse covariance of its inputs is K-FAC's (Martens & Grosse, 1503.05671), doing so with those
    of earlier tasks OWM's (Zeng et al., 1810.01256). A hypernetwork has it exactly: tokens are all
    the inputs there are, and it keeps them.

    D follows the gradient with momentum, each of the target's tensors scaled to a norm of 1
    (normalised steps by layer, as LARS takes: You et al., 1708.03888). These stay in the span of
    the gradients, and learn as much as Adam with half the change. The bias of the last layer,
    which no token reads, stays as it is.
    """

    @torch.no_grad()
    def __init__(
        self, hnet: Hypernetwork, task: int, old_features: Tensor | None, damping: float
    ) -> None:
        """`old_features`: [t * C, H] of all old tasks, now; None: nothing is to be kept."""
        self.hnet, self.task = hnet, task
        hnet.head.requires_grad_(False)  # its gradient, the largest there is, is never needed
        self.change = torch.zeros_like(hnet.scale).requires_grad_()  # D [C, N]
        self.velocity = torch.zeros_like(hnet.scale)  # [C, N]
        self.inverse: Tensor | None = None  # M [H, H]
        if old_features is not None:
            squares, used = hnet.scale.square().sum(1), (hnet.scale > 0).sum(1)
            chunk_scales = (squares / used.clamp_min(1)).double()  # [C], padding left out
            old = old_features.double().unflatten(0, (-1, hnet.num_chunks))  # [t, C, H]
            S = torch.einsum("tch,c,tci->hi", old, chunk_scales, old) / len(old)  # [H, H]
            S.diagonal().add_(damping * S.diagonal().mean())
            self.inverse = torch.linalg.inv(S)

    def penalty(self) -> Tensor:
        """What writing the change now would cost the old tasks, a scalar; damping included."""
        if self.inverse is None:
            return self.change.new_zeros(())
        price, _ = self._price()
        return ((price.to(self.change.dtype) @ self.change) * self.change).sum()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step along the gradient `change` got, of root mean square `lr` in each tensor."""
        hnet, sizes = self.hnet, [shape.numel() for _, shape in self.hnet.layout]
        parts = self.change.grad.flatten()[: hnet.num_weights].split(sizes)
        parts = [part / part.square().mean().sqrt().clamp_min(SMALLEST) for part in parts]
        padded = pad(torch.cat(parts), (0, self.velocity.numel() - hnet.num_weights))
        self.velocity.mul_(MOMENTUM).add_(padded.view_as(self.velocity))
        self.change.add_(self.velocity, alpha=-lr)
        self.change.grad = None

    def state_dict(self) -> dict:
        """The change, and its velocity."""
        return {"change": self.change.detach(), "velocity": self.velocity}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned."""
        self.change.copy_(state["change"])
        self.velocity.copy_(state["velocity"])

    @torch.no_grad()
    def write(self) -> None:
        """Moves the change into the last layer, which generates it from now on."""
        _, writing = self._price()
        self.hnet.head.weight.addmm_(self.change.T, writing.to(self.change.dtype))
        self.change.zero_()

    @torch.no_grad()
    def _features(self) -> Tensor:
        """What the last layer reads for the task, [C, H]."""
        token = self.hnet.task_tokens[self.task].expand(self.hnet.num_chunks, -1)
        return self.hnet.features(token, self.hnet.chunk_tokens)

    @torch.no_grad()
    def _price(self) -> tuple[Tensor, Tensor]:
        """(phi M phi^T)^-1 [C, C], and that times phi M [C, H]."""
        features = self._features().double()
        pulled = features if self.inverse is None else features @ self.inverse  # [C, H]
        gram = pulled @ features.T  # [C, C]
        gram.diagonal().add_(JITTER * gram.diagonal().mean())
        price = torch.linalg.inv(gram)
        return price, price @ pulled
