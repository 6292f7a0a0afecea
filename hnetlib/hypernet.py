"""A hypernetwork: from a task token to the weights of any `nn.Module`, one chunk at a time."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hnetlib.config import Config, HnetActivation, expect_one_of
from hnetlib.targets import make_target, relu_layers


class Hypernetwork(nn.Module):
    """Generates all weights of a target network from a task token, in `num_chunks` equal chunks.

    One chunk is one row: the generator (a dense network) reads a task token and a chunk token and
    writes `chunk_size` consecutive numbers of the target's flat weight vector
    (the chunked hypernetwork of von Oswald et al., arXiv 1906.00695). With `num_chunks=1` it writes
    all at once.

    The target's own starting values set the scale of what is generated: each generated tensor
    starts with the mean and spread of the target's, so a target that was initialised well stays
    so. The target itself is copied and keeps no weights: they all come from here.
    """

    shared: frozenset[str] = frozenset()  # names of weights that are the same for all tasks

    def __init__(
        self,
        target: nn.Module,
        num_tasks: int = 1,
        *,
        num_chunks: int = 1,
        task_token_dim: int = 64,
        chunk_token_dim: int = 32,
        hnet_hidden: Sequence[int] = (200, 250, 350),
        hnet_activation: HnetActivation = "relu",
    ) -> None:
        super().__init__()
        sizes = {"num_tasks": num_tasks, "num_chunks": num_chunks}
        sizes |= {"task_token_dim": task_token_dim, "chunk_token_dim": chunk_token_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if not hnet_hidden or min(hnet_hidden) < 1:
            raise ValueError(f"hnet_hidden: expected positive layer sizes, got {hnet_hidden}")
        expect_one_of("hnet_activation", hnet_activation, get_args(HnetActivation))
        self.layout = _layout(target)
        self.num_weights = sum(shape.numel() for _, shape in self.layout)
        if num_chunks > self.num_weights:
            raise ValueError(
                f"num_chunks: expected at most one chunk for each of the target's "
                f"{self.num_weights} weights, got {num_chunks}"
            )
        self.num_chunks = num_chunks
        self.chunk_size = math.ceil(self.num_weights / num_chunks)
        self.target = without_weights(target)

        layers = {"relu": relu_layers, "elu": elu_layers, "sine": sine_layers}[hnet_activation]
        self.body = nn.Sequential(*layers((task_token_dim + chunk_token_dim, *hnet_hidden)))
        self.head = nn.Linear(hnet_hidden[-1], self.chunk_size)
        nn.init.normal_(self.head.weight, std=hnet_hidden[-1] ** -0.5)  # outputs of variance 1
        nn.init.zeros_(self.head.bias)
        self.chunk_tokens = nn.Parameter(torch.randn(num_chunks, chunk_token_dim))
        # task tokens are drawn last: with one seed, more tasks leave everything else as it was
        self.task_tokens = nn.ParameterList(torch.randn(task_token_dim) for _ in range(num_tasks))

        shift, scale = _starting_values(target)
        self.register_buffer("shift", self._pad(shift))  # [C, chunk_size]
        self.register_buffer("scale", self._pad(scale))  # [C, chunk_size]

    @property
    def num_tasks(self) -> int:
        """How many task tokens there are."""
        return len(self.task_tokens)

    @property
    def compression_ratio(self) -> float:
        """Trainable numbers of the hypernetwork, all tokens included, for each target weight."""
        return sum(p.numel() for p in self.parameters()) / self.num_weights

    def forward(self, task: int | Tensor) -> dict[str, Tensor]:
        """The target's weights by name, for a task index or any token [task_token_dim]."""
        token = self.task_tokens[task] if isinstance(task, int) else task
        return self.unflatten(self.generate(token))

    def weights_of(self, tasks: Tensor) -> dict[str, Tensor]:
        """The target's weights by name for several tasks' tokens: tasks [G], each [G, *shape]."""
        tokens = torch.stack([self.task_tokens[task] for task in tasks.tolist()])
        return self.unflatten(self.generate(tokens))

    def run_target(self, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        """What the target computes on `inputs` when it has these weights."""
        return functional_call(self.target, weights, inputs)

    def generate(self, tokens: Tensor) -> Tensor:
        """Flat target weights [..., P] of task tokens [..., task_token_dim]."""
        chunks = self.generate_chunks(tokens)  # [..., C, chunk_size]
        return chunks.flatten(-2)[..., : self.num_weights]

    def generate_chunks(self, tokens: Tensor) -> Tensor:
        """All chunks [..., C, chunk_size], padding included, of tokens [..., task_token_dim]."""
        expanded = tokens.unsqueeze(-2).expand(*tokens.shape[:-1], self.num_chunks, -1)
        rows = self.head(self.features(expanded, self.chunk_tokens))  # [..., C, chunk_size]
        return rows * self.scale + self.shift

    def generate_rows(self, tokens: Tensor, chunks: Tensor) -> Tensor:
        """Single chunks [K, chunk_size]: row k is chunk `chunks[k]` of task token `tokens[k]`.

        tokens: [K, task_token_dim]; chunks: [K] integers. Padding is exactly 0.
        """
        rows = self.head(self.features(tokens, self.chunk_tokens[chunks]))  # [K, chunk_size]
        return rows * self.scale[chunks] + self.shift[chunks]

    def features(self, task_tokens: Tensor, chunk_tokens: Tensor) -> Tensor:
        """What the last layer reads, [..., C, H], for pairs of tokens [..., C, either dim].

        `head` makes rows [..., C, chunk_size] of it, which `scale` and `shift` turn into weights.
        """
        chunk_tokens = chunk_tokens.expand(*task_tokens.shape[:-1], -1)
        return self.body(torch.cat([task_tokens, chunk_tokens], dim=-1))  # [..., C, H]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Tensors by name, each [..., *shape], from flat target weights [..., P]."""
        pieces = flat.split([shape.numel() for _, shape in self.layout], dim=-1)
        weights = {}
        for piece, (names, shape) in zip(pieces, self.layout, strict=True):
            tensor = piece.unflatten(-1, shape) if shape else piece.squeeze(-1)  # [..., *shape]
            weights |= dict.fromkeys(names, tensor)
        return weights

    def freeze_token(self, task: int) -> None:
        """From now on the token of `task` stays as it is; chunk tokens go on learning."""
        self.task_tokens[task].requires_grad_(False)
        self.task_tokens[task].grad = None

    def _pad(self, flat: Tensor) -> Tensor:
        """[C, chunk_size] from [P]; the padding is 0, so that it never counts in the penalty."""
        padding = self.num_chunks * self.chunk_size - self.num_weights
        return nn.functional.pad(flat, (0, padding)).view(self.num_chunks, self.chunk_size)


class Sine(nn.Module):
    """The sine of its input, scaled to keep about unit variance."""

    def forward(self, x: Tensor) -> Tensor:
        """Values between -sqrt(2) and sqrt(2), in the shape of `x`."""
        return math.sqrt(2) * torch.sin(x)


def elu_layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Dense layers of these sizes, each with an ELU behind it (Clevert et al., 1511.07289)."""
    return [nn.ELU() if isinstance(layer, nn.ReLU) else layer for layer in relu_layers(sizes)]


def sine_layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Dense layers of these sizes, each with a sine behind it (as in Sitzmann et al., 2006.09661).

    A sine is odd, so features of different tokens start nearly orthogonal. ReLU features all point
    the same way: inputs with a cosine of 1/3 between them (two tasks, the same chunk) leave three
    random layers with 0.7 after ReLUs (the arc-cosine kernel, Cho & Saul, 2009) and 0.2 after
    sines, and what one task changes, the others feel by that much.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, std=fan_in**-0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, Sine()]
    return layers


def hypernetize(module: nn.Module, num_tasks: int = 1, **settings) -> Hypernetwork:
    """A hypernetwork that generates every parameter of `module`; settings as in `Hypernetwork`.

    >>> hnet = hypernetize(nn.Linear(784, 10), num_tasks=2, num_chunks=5)
    >>> logits = hnet.run_target(hnet(task=1), torch.rand(32, 784))  # [32, 10]
    """
    return Hypernetwork(module, num_tasks, **settings)


def build_hnet(config: Config) -> Hypernetwork:
    """The untrained hypernetwork of a config; its starting values depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        hnet = hypernetize(
            make_target(config.target, config.num_pixels),
            num_tasks=config.num_tasks,
            num_chunks=config.num_chunks,
            task_token_dim=config.task_token_dim,
            chunk_token_dim=config.chunk_token_dim,
            hnet_hidden=config.hnet_hidden,
            hnet_activation=config.hnet_activation,
        )
    return hnet.to(config.device)


def _layout(target: nn.Module) -> list[tuple[tuple[str, ...], torch.Size]]:
    """(names, shape) of each distinct parameter; tied parameters are one with several names."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in target.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    if not names:
        raise ValueError(f"target: expected a module with parameters, got {target}")
    return [(tuple(aliases), parameter.shape) for parameter, aliases in names.items()]


def _starting_values(target: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and spread of each of the target's weights at its start, both flat [P].

    A tensor that starts constant (a bias at 0, a normalisation weight at 1) has no spread of its
    own to go by: it gets a small one, so that it can be learned.
    """
    shifts, scales = [], []
    for parameter in target.parameters():
        values = parameter.detach().float()
        spread = values.std(correction=0)
        constant = spread <= 1e-6 * values.abs().max()
        scale = torch.tensor(CONSTANT_SPREAD) if constant else spread
        shifts.append(values.mean().expand(values.numel()))
        scales.append(scale.expand(values.numel()))
    return torch.cat(shifts), torch.cat(scales)


CONSTANT_SPREAD = 0.05  # generated tensors that start constant vary by about this much


def without_weights(target: nn.Module) -> nn.Module:
    """A copy of the target with no parameters: calling it without generated weights fails."""
    skeleton = copy.deepcopy(target)
    for module in skeleton.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                # Deleted, not replaced: functional_call then sets attributes, which modules that
                # cache their weights (nn.LSTM) notice.
                del module._parameters[name]
    return skeleton
