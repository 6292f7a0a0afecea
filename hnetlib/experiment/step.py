"""One optimiser step on a task, and the place that decides how it runs on this machine."""

import os
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hnetlib.experiment import gpu
from hnetlib.experiment.config import Config
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer


def prepare_torch(config: Config) -> None:
    """PyTorch's global settings for a run: threads, precision, and the same bytes each time."""
    torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("highest")
    if config.precision == "tf32":
        gpu.allow_tf32()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA refuses to repeat without
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # slow, and nothing here reads it


class TrainingStep:
    """Learns one task, a batch a call: cross-entropy plus beta times the penalty, by Adam.

    Where the regulariser has a `LeastChange`, that moves the last layer, and Adam all else.

    On a GPU steps are replayed as one CUDA graph (see `gpu`), but for those of `LeastChange`.
    """

    def __init__(
        self,
        config: Config,
        hnet: Hypernetwork,
        regularizer: TaskRegularizer,
        task: int,
        narrow: bool = False,
    ) -> None:
        """`narrow`: images [B, U] have those pixels alone that have a token in this task."""
        self.config, self.hnet, self.regularizer, self.task = config, hnet, regularizer, task
        self.narrow, self.on_gpu = narrow, config.device == "cuda"
        groups = parameter_groups(hnet, [task], config)
        self.rates = [group["lr"] for group in groups]
        fused_adam = partial(torch.optim.Adam, fused=True)
        self.optimizer = (gpu.adam if self.on_gpu else fused_adam)(groups)
        self.beta = config.beta if regularizer.old_tasks else 0.0
        self.head = regularizer.least_change
        self.graphed = None
        if self.on_gpu and not self.head:
            same_pairs = {2} if regularizer.kind == "all" else set()
            self.graphed = gpu.GraphedStep(self._run, self.optimizer, constant=same_pairs)

    def __call__(
        self, images: Tensor, labels: Tensor, pairs: Tensor, rate: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """A step on images [B, D], labels [B] and drawn pairs [K], at `rate` times the config's.

        Returns the cross-entropy and the penalty before the step, two scalars without a graph.
        """
        self._set_rate(rate)
        return (self.graphed or self._run)(images, labels, pairs)

    def _run(self, images: Tensor, labels: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            losses = self._gradients(images, labels, pairs)
        if self.head:
            self.head.step(self.rate * self.config.head_lr)
        self.optimizer.step()
        return losses

    def _gradients(self, images: Tensor, labels: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        hnet, regularizer = self.hnet, self.regularizer
        together = bool(self.beta) and not self.config.look_ahead
        drawn = pairs if together else pairs[:0]
        if self.narrow:  # each chunk is a column; no old task is held while generators learn so
            weights = {hnet.target.pixel_weight: hnet.chunks_of(self.task).T}  # [out, U]
            penalty = hnet.scale.new_zeros(())
        else:
            weights, penalty = regularizer.weights_and_penalty(drawn)
        task_loss = cross_entropy(
            hnet.run_target(weights, images), labels, label_smoothing=self.config.label_smoothing
        )
        (task_loss + self.beta * penalty).backward()
        if self.beta and not together:
            penalty = self._penalty_ahead(pairs)
        return task_loss.detach(), penalty.detach()

    def _penalty_ahead(self, pairs: Tensor) -> Tensor:
        """Adds the gradients of the penalty where the task's own step would lead.

        The look-ahead of von Oswald et al. (1906.00695, eq. 2): the penalty is taken at
        Theta + Delta, Delta the step Adam would make on the task loss alone, held constant.
        """
        groups = self.optimizer.param_groups
        moves = {
            p: self._adam_move(p, g) for g in groups for p in g["params"] if p.grad is not None
        }
        before = [parameter.detach().clone() for parameter in moves]
        with torch.no_grad():
            torch._foreach_add_(list(moves), list(moves.values()))
        penalty = self.regularizer.penalty_over(pairs)
        (self.beta * penalty).backward()
        with torch.no_grad():
            torch._foreach_copy_(list(moves), before)
        return penalty

    def _adam_move(self, parameter: nn.Parameter, group: dict) -> Tensor:
        """What Adam (Kingma & Ba, 1412.6980, algorithm 1) would add now, its state left alone."""
        gradient = parameter.grad
        state = self.optimizer.state.get(parameter) or {}
        decay1, decay2 = group["betas"]
        step = state.get("step", 0) + 1
        first = state["exp_avg"] if state else torch.zeros_like(gradient)
        second = state["exp_avg_sq"] if state else torch.zeros_like(gradient)
        first = first.lerp(gradient, 1 - decay1)
        second = (decay2 * second).addcmul_(gradient, gradient, value=1 - decay2)
        divisor = second.div_(1 - decay2**step).sqrt_().add_(group["eps"])
        return first.div_(divisor).mul_(-group["lr"] / (1 - decay1**step))

    def state_dict(self) -> dict:
        """All that steps change: parameters, the optimizer's state, the output layer's change."""
        moving = {n: p.detach() for n, p in self.hnet.named_parameters() if p.requires_grad}
        state = {"parameters": moving, "optimizer": self.optimizer.state_dict(), "head": {}}
        if self.head:
            state["head"] = {"change": self.head.change.detach(), "velocity": self.head.velocity}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned, on the task it was of."""
        for name, value in state["parameters"].items():
            self.hnet.get_parameter(name).copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["head"].items():
            getattr(self.head, name).copy_(value)

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        for group, full in zip(self.optimizer.param_groups, self.rates, strict=True):
            if self.on_gpu:
                gpu.set_rate(group, rate * full)
            else:
                group["lr"] = rate * full

    def _precision(self):
        if self.config.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.config.device, dtype=torch.bfloat16)


def parameter_groups(hnet: Hypernetwork, tasks: Collection[int], config: Config) -> list[dict]:
    """The last layer, and all else but the tokens of tasks that are not learned, with their rates.

    Every generated weight is a sum over the last layer's many inputs, and Adam moves each term by
    about its rate: so a wide last layer can want a smaller one than the layers before it and the
    tokens (the maximal update parametrisation says so in general: Yang et al., 2203.03466).
    `head_lr_factor` sets it.
    """
    if hnet.tokens == "chunk":
        return _groups_with_tokens(hnet, tasks, config)
    head = list(hnet.output_layer.parameters())
    others = {id(token) for number, token in enumerate(hnet.task_tokens) if number not in tasks}
    others |= {id(parameter) for parameter in head}
    rest = [parameter for parameter in hnet.parameters() if id(parameter) not in others]
    if config.head_optimizer != "adam":  # which takes the last layer's steps itself
        return [{"params": rest, "lr": config.lr}]
    return [{"params": head, "lr": config.head_lr}, {"params": rest, "lr": config.lr}]


def _groups_with_tokens(hnet: Hypernetwork, tasks: Collection[int], config: Config) -> list[dict]:
    """The tokens of these tasks and, until the generator is frozen, its layers and all else."""
    tokens = [hnet.task_tokens[task] for task in tasks]
    head = list(hnet.output_layer.parameters())
    others = {id(parameter) for parameter in (*hnet.task_tokens, *head)}
    rest = [parameter for parameter in hnet.parameters() if id(parameter) not in others]
    groups = [
        {"params": tokens, "lr": config.lr * config.token_lr_factor},
        {"params": head, "lr": config.head_lr},
        {"params": rest, "lr": config.lr},
    ]
    moving = [g | {"params": [p for p in g["params"] if p.requires_grad]} for g in groups]
    return [group for group in moving if group["params"]]
