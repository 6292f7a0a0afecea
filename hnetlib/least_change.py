"""The output layer's share of a task: learned as generated weights, written with least change."""

import math
from numbers import Real

import torch
from torch import Tensor

from hnetlib.checks import expect_a
from hnetlib.hypernet import Hypernetwork
from hnetlib.order import NotLearnedError

JITTER = 1e-10  # of the mean diagonal: two chunks with the same features must not divide by 0
SMALLEST = 1e-12  # norm of a gradient that is divided by, at least
MOST_LOST = 1e-2  # of what was learned, where it is written: far above what rounding makes


class LeastChange:
    """Learns what the output layer should add to a task's weights, and writes it in at the end.

        last_layer = LeastChange(hnet)
        keep = TaskRegularizer(hnet, least_change=last_layer)
        with keep.learning(task):
            for ...:
                loss = cross_entropy(hnet.run(x, task=task), y) + beta * keep.penalty()
                optimizer.zero_grad(); loss.backward()
                last_layer.step(lr=0.01); optimizer.step()

    The output layer W is linear in its features: adding dW to it changes what a token with features
    phi [C, H] generates by phi dW^T. So while a task is learned, W stays, and what is learned is a
    change D [C, N] of the rows that W writes for this task; `hnet` adds it wherever it generates
    for the task's index. At the end D is written into W by the one dW that gives exactly D here and
    as little as possible elsewhere, the minimum of

        tr(dW S dW^T) + damping * a * ||dW||^2   where   phi dW^T = D,

    whose first term is the penalty of `TaskRegularizer` over all old tasks s, with each chunk's
    mean squared scale: S = 1/t sum_s phi_s^T phi_s; a is S's mean eigenvalue, so that damping has
    no unit. With M = (S + damping * a * I)^-1 the minimum is

        dW = D^T (phi M phi^T)^-1 phi M,   and its value   tr(D^T (phi M phi^T)^-1 D),

    which `penalty` of the regulariser adds: the price of D, known while D is learned. S is that of
    the task's start, while the layers before the output layer and the chunk tokens go on learning:
    the price is right to first order in how far those move. Preconditioning a layer by the inverse
    covariance of its inputs is K-FAC's (Martens & Grosse, 1503.05671), doing so with those of
    earlier tasks OWM's (Zeng et al., 1810.01256). A hypernetwork has it exactly: tokens are all
    the inputs there are, and it keeps them.

    D follows the gradient with momentum, each of the target's tensors scaled to a norm of 1
    (normalised steps by layer, as LARS takes: You et al., 1708.03888). These stay in the span of
    the gradients, and reach Adam's accuracy with less change (appendix A: 0.6 of it). The bias of
    the output layer, which no token reads, stays as it is. D is in the state of the regulariser,
    not in that of the hypernetwork.
    """

    def __init__(
        self,
        hnet: Hypernetwork,
        *,
        damping: float = 0.01,
        momentum: float = 0.9,
        protect: bool = True,
    ) -> None:
        """`protect=False`: only W's own change is kept small, whatever that costs old tasks.

        ValueError where there are more chunks than features: then no dW gives D exactly.
        """
        expect_a(Hypernetwork, hnet=hnet)
        expect_a(Real, damping=damping, momentum=momentum)
        width = hnet.output_layer.in_features
        if hnet.num_chunks > width:
            raise ValueError(
                f"num_chunks: expected at most one for each of the {width} features of the output "
                f"layer (the last of hnet_hidden) with LeastChange, got {hnet.num_chunks}"
            )
        if not 0 < damping < math.inf or not 0 <= momentum < 1:
            raise ValueError(
                f"expected damping > 0 and 0 <= momentum < 1, got {damping} and {momentum}"
            )
        self.hnet, self.damping, self.momentum, self.protect = hnet, damping, momentum, protect
        self.task: int | None = None  # the one being learned
        self.change: Tensor | None = None  # D [C, N], before scale
        self.velocity: Tensor | None = None  # [C, N]
        self.inverse: Tensor | None = None  # M [H, H]; None: nothing is to be kept

    @torch.no_grad()
    def begin(self, task: int, old_features: Tensor | None) -> None:
        """Takes over the output layer (`TaskRegularizer.learning` calls this).

        old_features: [t * C, H] of all old tasks now; None: goes on with what `load_state` got.
        """
        layer, self.stepped = self.hnet.output_layer, old_features is None
        if old_features is not None:
            self.change = torch.zeros_like(self.hnet.scale).requires_grad_()
            self.velocity = torch.zeros_like(self.hnet.scale)
            keeps = self.protect and len(old_features) > 0
            self.inverse = self._inverse(old_features) if keeps else None
        try:
            self._way_to_write(task)  # before anything is learned
        except ValueError:
            if old_features is not None:  # nothing was begun
                self.change = self.velocity = self.inverse = None
            raise
        self.task, self.learned = task, [p.requires_grad for p in layer.parameters()]
        layer.requires_grad_(False)  # its gradient, the largest there is, is never needed
        layer.zero_grad()
        self.hnet.extra_rows[task] = self.change

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step along the gradient, after `backward`.

        The step before momentum has the root mean square `lr` in each tensor; momentum can make it
        1 / (1 - momentum) times as large. A gradient that is not finite is dropped, as an optimizer
        behind a gradient scaler drops it. RuntimeError where nothing is being learned.
        """
        if self.task is None or self.change.grad is None:
            expected = "within learning() of its regulariser, after backward()"
            raise RuntimeError(f"step: expected a call {expected}")
        if not self.change.grad.isfinite().all():
            self.change.grad = None
            return
        hnet, sizes = self.hnet, [piece.shape.numel() for piece in self.hnet.layout]
        parts = hnet.chunks.flatten(self.change.grad).split(sizes)
        parts = [part / part.square().mean().sqrt().clamp_min(SMALLEST) for part in parts]
        self.velocity.mul_(self.momentum).add_(hnet.chunks.cut(torch.cat(parts)))
        self.change.add_(self.velocity, alpha=-lr)
        self.change.grad, self.stepped = None, True

    def price(self) -> Tensor:
        """What writing the change now would cost old tasks, damping included: a scalar."""
        if self.inverse is None:
            return self.change.new_zeros(())
        price, *_ = self._price(self.task)
        with torch.autocast(self.change.device.type, enabled=False):
            return ((price.to(self.change.dtype) @ self.change) * self.change).sum()

    @torch.no_grad()
    def write(self) -> None:
        """Moves the change into the output layer, which generates it from now on.

        NotLearnedError where nothing was learned by `step`, though the task was run, and where the
        change is not finite: in the output layer that would be every task's.
        """
        learned = self.stepped or self.change.any()
        if self.task in self.hnet.tasks_run and not learned:
            raise NotLearnedError("step: expected a call after each backward(), got none")
        if not self.change.isfinite().all():
            raise NotLearnedError(
                f"learning({self.task}): its change is not finite; lower rates help"
            )
        writing = self._way_to_write(self.task)
        self.hnet.output_layer.weight.addmm_(self.change.T, writing.to(self.change.dtype))
        self.change.zero_()

    def end(self) -> None:
        """Gives the output layer back; a change that was not written is dropped."""
        parameters = self.hnet.output_layer.parameters()
        for parameter, learned in zip(parameters, self.learned, strict=True):
            parameter.requires_grad_(learned and not self.hnet.generator_frozen)
        del self.hnet.extra_rows[self.task]
        self.task = self.change = self.velocity = self.inverse = None

    def state(self) -> dict[str, Tensor | None] | None:
        """What goes on in the middle of a task; None outside one."""
        if self.change is None:
            return None
        now = {"change": self.change.detach().clone(), "velocity": self.velocity.clone()}
        return now | {"inverse": self.inverse}

    def load_state(self, state: dict[str, Tensor | None]) -> None:
        """Goes on from what `state` gave, at the next `begin`."""
        self.change = state["change"].clone().requires_grad_()
        self.velocity, self.inverse = state["velocity"].clone(), state["inverse"]

    def _inverse(self, old_features: Tensor) -> Tensor:
        """M [H, H] of old features [t * C, H]."""
        scale = self.hnet.scale  # [C, N], 0 for padding
        used = (scale > 0).sum(1).clamp_min(1)
        chunk_scales = (scale.square().sum(1) / used).double()  # [C]
        old = old_features.double().unflatten(0, (-1, len(scale)))  # [t, C, H]
        S = torch.einsum("tch,c,tci->hi", old, chunk_scales, old) / len(old)  # [H, H]
        S.diagonal().add_(self.damping * S.diagonal().mean())
        return torch.linalg.inv(S)

    def _way_to_write(self, task: int) -> Tensor:
        """What makes dW^T of D, transposed: [C, H]. ValueError where no dW gives D.

        So it is where chunks have features that are not independent.
        """
        _, writing, features = self._price(task)
        lost = features @ writing.T - torch.eye(len(features)).to(features)  # [C, C]
        if not lost.abs().max() < MOST_LOST:  # also where it is no number
            raise ValueError(
                f"num_chunks: expected chunks whose {features.shape[1]} features (the last of "
                f"hnet_hidden) are independent with LeastChange, got {len(features)} chunks of "
                f"task {task} that are not; fewer chunks, wider layers or longer chunk tokens help"
            )
        return writing

    @torch.no_grad()
    def _price(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """(phi M phi^T)^-1 [C, C], that times phi M [C, H], and phi [C, H]; never in bf16."""
        hnet = self.hnet
        with torch.autocast(hnet.scale.device.type, enabled=False):
            features = hnet.features(*hnet.pairs_of(task)).double()  # phi [C, H]
            pulled = features if self.inverse is None else features @ self.inverse  # [C, H]
            gram = pulled @ features.T  # [C, C]
            gram.diagonal().add_(JITTER * gram.diagonal().mean())
            price = torch.linalg.inv(gram)
            return price, price @ pulled, features
