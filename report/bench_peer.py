"""hypnettorch on the same work as ours, for `report.bench`: `make bench` installs it."""

import contextlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from hnetlib.experiment.config import Config
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP

HYPNETTORCH = "0.0.4"


@dataclass(frozen=True)
class Setting:
    """Sizes of a target and of the hypernetwork that generates it."""

    sizes: tuple[int, ...]
    num_chunks: int
    task_token_dim: int
    chunk_token_dim: int
    batch_size: int
    hnet_hidden: tuple[int, ...] = (200, 250, 350)

    def hnet(self, num_tasks: int) -> Hypernetwork:
        """An untrained hypernetwork of these sizes."""
        return Hypernetwork(
            MLP(self.sizes),
            num_tasks,
            num_chunks=self.num_chunks,
            task_token_dim=self.task_token_dim,
            chunk_token_dim=self.chunk_token_dim,
            hnet_hidden=self.hnet_hidden,
        )


def need_hypnettorch() -> None:
    """ImportError with the fix where hypnettorch is not installed."""
    try:
        found = importlib.metadata.version("hypnettorch")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != HYPNETTORCH:
        raise ImportError(
            f"hypnettorch: expected version {HYPNETTORCH}, found {found}; the fix is: "
            f"pip install --no-deps hypnettorch=={HYPNETTORCH}, or --without-peer"
        )


def hypnettorch_networks(setting, num_tasks: int, device: str) -> tuple:
    """Its chunked hypernetwork and its target, of the same sizes as ours."""
    from hypnettorch.hnets.chunked_mlp_hnet import ChunkedHMLP
    from hypnettorch.mnets.mlp import MLP as PeerMLP

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its initialisation wants smaller tokens
        target = PeerMLP(
            n_in=setting.sizes[0],
            n_out=setting.sizes[-1],
            hidden_layers=setting.sizes[1:-1],
            no_weights=True,
        )
        num_weights = sum(int(np.prod(shape)) for shape in target.hyper_shapes_learned)
        hnet = ChunkedHMLP(
            target.hyper_shapes_learned,
            -(-num_weights // setting.num_chunks),
            chunk_emb_size=setting.chunk_token_dim,
            cond_in_size=setting.task_token_dim,
            layers=setting.hnet_hidden,
            num_cond_embs=num_tasks,
        )
        hnet.apply_chunked_hyperfan_init(mnet=target)
    return hnet.to(device), target.to(device)


def hypnettorch_step(
    setting, num_old: int, batch_size: int | None, config: Config
) -> Callable[[], object]:
    """Its training step, as its authors write it, on the task behind `num_old` old ones.

    `batch_size` old tasks are drawn at each step; None takes all.
    """
    from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

    hnet, target = hypnettorch_networks(setting, num_old + 1, config.device)
    targets = get_current_targets(num_old, hnet) if num_old else None
    moving = [*hnet.unconditional_params, hnet.conditional_params[num_old]]
    optimizer = torch.optim.Adam(moving, lr=config.lr, fused=True)
    images = torch.rand(setting.batch_size, setting.sizes[0], device=config.device)
    labels = torch.randint(10, (setting.batch_size,), device=config.device)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        weights = hnet.forward(cond_id=num_old)
        loss = cross_entropy(target.forward(images, weights=weights), labels)
        if num_old:
            loss = loss + config.beta * calc_fix_target_reg(
                hnet, num_old, targets=targets, batch_size=batch_size
            )
        loss.backward()
        optimizer.step()
        return loss

    kept = [weights for task in targets or [] for weights in task]
    step.stored = sum(weights.nbytes for weights in kept)
    return step


def check_same_penalty(num_old: int = 7) -> str:
    """Both libraries' exact penalty and its gradient, on the same weights; ValueError if unequal.

    Our hypernetwork takes over its weights, tokens and displacement, and scales nothing.
    """
    from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets

    setting = Setting((20, 30, 10), 13, 6, 5, 8, hnet_hidden=(9, 8))
    torch.manual_seed(0)
    theirs, _ = hypnettorch_networks(setting, num_old, "cpu")
    ours = setting.hnet(num_old)
    take_over(ours, theirs)
    regularizer = TaskRegularizer(ours, penalty="all", old_tasks=range(num_old))
    targets = get_current_targets(num_old, theirs)
    with regularizer.learning(ours.add_task()):
        with torch.no_grad():
            for parameter in theirs.unconditional_params:
                parameter += 0.05 * torch.randn_like(parameter)
        take_over(ours, theirs)
        values = regularizer.penalty(), calc_fix_target_reg(theirs, num_old, targets=targets)
        for value in values:
            value.backward()
    last_layer = theirs.unconditional_params[-3]
    try:
        torch.testing.assert_close(*values, rtol=1e-4, atol=0)
        gradient = ours.output_layer.weight.grad
        torch.testing.assert_close(gradient, last_layer.grad, rtol=1e-3, atol=1e-5)
    except AssertionError as error:
        raise ValueError(f"expected equal penalties, got {values}: {error}") from None
    return f"{values[0].item():.6f} and {values[1].item():.6f}, gradients too"


@torch.no_grad()
def take_over(ours: Hypernetwork, theirs) -> None:
    """Our hypernetwork computes what theirs does: it joins tokens in the other order."""
    *layers, chunk_tokens = theirs.unconditional_params
    mine = [p for name, p in ours.named_parameters() if "token" not in name]
    for parameter, value in zip(mine, layers, strict=True):
        parameter.copy_(value)
    first, width = layers[0], chunk_tokens.shape[1]
    ours.body[0].weight.copy_(torch.cat([first[:, width:], first[:, :width]], 1))
    ours.chunk_tokens.copy_(chunk_tokens)
    for token, value in zip(ours.task_tokens, theirs.conditional_params, strict=False):
        token.copy_(value)
    ours.scale.copy_(ours.scale.sign())
    ours.shift.zero_()
