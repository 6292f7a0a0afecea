"""Kinds of modules that a hypernetwork has to generate for, each with inputs: see `KINDS`."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from hnetlib.targets import MLP, ConvLeNet, DepthwiseCNN, PatchTransformer, RowReader


class Last(nn.Module):
    """The last output of a recurrent network, read by a dense layer."""

    def __init__(self, recurrent, size):
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(size, 2)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 5)

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state


class Attention(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **settings)

    def forward(self, *, query, memory):
        return self.attention(query, memory, memory, need_weights=False)[0]


class TiedLanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(self.embed(tokens).mean(1))


class TwoParents(nn.Module):
    """Two blocks that share a layer, also kept in a plain list."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.one = nn.Sequential(shared, nn.Tanh())
        self.two = nn.Sequential(shared, nn.Linear(4, 3))
        self.in_order = [self.one, self.two]

    def forward(self, x):
        for block in self.in_order:
            x = block(x)
        return x


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.several = nn.ParameterList(torch.randn(4, 4) for _ in range(2))
        self.named = nn.ParameterDict({"out": torch.randn(4, 2), "bias": torch.zeros(2)})

    def forward(self, x):
        for weight in self.several:
            x = torch.tanh(x @ weight)
        return x @ self.named["out"] + self.named["bias"]


class Scalar(nn.Module):
    """A temperature: a parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.layer, self.temperature = nn.Linear(4, 3), nn.Parameter(torch.tensor(2.5))

    def forward(self, x):
        return self.layer(x) * self.temperature


class LayerScale(nn.Module):
    def __init__(self, size=1e-6):
        super().__init__()
        self.layer, self.gamma = nn.Linear(32, 32), nn.Parameter(torch.full((32,), size))

    def forward(self, x):
        return x + self.gamma * self.layer(x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


class Empty(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.nothing = nn.Linear(4, 3), nn.Parameter(torch.empty(0, 3))

    def forward(self, x):
        return torch.cat([self.layer(x), self.nothing])


class LooksAtItself(nn.Module):
    """Reads its parameters' kind, place and shape, as many modules do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        first = next(self.parameters())
        mask = torch.ones(self.weight.shape[0], dtype=first.dtype, device=first.device)
        return F.linear(x.to(self.weight.dtype), self.weight) * mask


class Causal(nn.Module):
    """A mask that can be made again: a buffer that is no state."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mask", torch.ones(5, 5).tril(), persistent=False)

    def forward(self, x):
        return self.layer(self.mask @ x)


class Assigns(nn.Module):
    """Assigns its buffer anew at each step in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


class Mixed(nn.Module):
    """A half precision and a double precision layer."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(4, 4).bfloat16(), nn.Linear(4, 3).double()

    def forward(self, x):
        return self.high(self.low(x.bfloat16()).double())


class Outputs(nn.Module):
    """Several outputs by name, and an optional input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, scale=None):
        logits = self.layer(x)
        return {"logits": logits, "scaled": logits if scale is None else logits * scale}


class ComplexBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("turn", torch.exp(1j * torch.arange(3.0)))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(self.layer(x)) * self.turn, n=4)


def frozen(module):
    return module.requires_grad_(False)


def table(values):
    """A module with an integer table beside what learns."""
    module = nn.Linear(4, 3)
    module.table = nn.Parameter(values, requires_grad=False)
    return module


def once(module, x):
    """A lazy module that has seen an input."""
    module(x)
    return module


def plain(make, *shape, dtype=torch.float32):
    return lambda: (make(), (torch.randn(*shape).to(dtype),), {})


def tokens(make):
    return lambda: (make(), (torch.randint(11, (6, 5)),), {})


def attention(**settings):
    inputs = {"query": torch.randn(2, 3, 8), "memory": torch.randn(2, 4, 8)}
    return lambda: (Attention(**settings), (), inputs)


KINDS = {
    "dense": plain(lambda: nn.Linear(4, 3), 6, 4),
    "dense without bias": plain(lambda: nn.Linear(4, 3, bias=False), 6, 4),
    "mlp": plain(lambda: MLP((12, 8, 3)), 6, 12),
    "convolutional lenet": plain(lambda: ConvLeNet(8), 2, 64),
    "depthwise, group norm": plain(lambda: DepthwiseCNN(8, 3, 8), 2, 64),
    "batch norm": plain(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), 8, 4),
    "batch norm without scale": plain(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False)), 8, 4
    ),
    "instance norm": plain(
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), 2, 3, 7
    ),
    "layer norm": plain(lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), 6, 4),
    "rms norm": plain(lambda: nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6)), 6, 4),
    "dropout": plain(lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)), 6, 4),
    "prelu": plain(lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU()), 6, 4),
    "transposed convolution": plain(lambda: nn.ConvTranspose2d(2, 3, 3), 2, 2, 4, 4),
    "bilinear": lambda: (nn.Bilinear(3, 4, 2), (torch.randn(5, 3), torch.randn(5, 4)), {}),
    "lstm": plain(lambda: Last(nn.LSTM(4, 5, batch_first=True), 5), 3, 6, 4),
    "bidirectional lstm": plain(lambda: RowReader(nn.LSTM, 6, 10, 8, bidirectional=True), 4, 36),
    "gru": plain(lambda: RowReader(nn.GRU, 6, 10, 8), 4, 36),
    "recurrent cell": plain(Cell, 3, 6, 4),
    "attention": attention(),
    "attention with more keys": attention(add_bias_kv=True),
    "transformer layer": plain(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, 5, 8
    ),
    "transformer on patches": plain(lambda: PatchTransformer(4, 3, 2, 8), 3, 16),
    "embedding": tokens(lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten())),
    "embedding bag": tokens(lambda: nn.EmbeddingBag(11, 4)),
    "tied embedding": tokens(TiedLanguageModel),
    "layer of two parents": plain(TwoParents, 6, 4),
    "parameter list and dict": plain(Lists, 6, 4),
    "scalar": plain(Scalar, 6, 4),
    "layer scale": plain(LayerScale, 6, 32),
    "unused parameter": plain(Unused, 6, 4),
    "empty parameter": plain(Empty, 6, 4),
    "looks at itself": plain(LooksAtItself, 6, 4),
    "buffer that is no state": plain(Causal, 2, 5, 4),
    "assigns its buffer": plain(Assigns, 6, 4),
    "complex buffer": plain(ComplexBuffer, 6, 4),
    "weight norm": plain(lambda: weight_norm(nn.Linear(4, 3)), 6, 4),
    "spectral norm": plain(lambda: spectral_norm(nn.Linear(4, 3)), 6, 4),
    "orthogonal": plain(lambda: orthogonal(nn.Linear(4, 4)), 6, 4),
    "double precision": plain(lambda: nn.Linear(4, 3).double(), 6, 4, dtype=torch.float64),
    "half precision": plain(lambda: nn.Linear(4, 3).bfloat16(), 6, 4, dtype=torch.bfloat16),
    "mixed precision": plain(Mixed, 6, 4),
    "several outputs": lambda: (Outputs(), (torch.randn(6, 4),), {"scale": torch.tensor(2.0)}),
    "frozen part": plain(lambda: nn.Sequential(frozen(nn.Linear(4, 6)), nn.Linear(6, 3)), 6, 4),
    "frozen part with statistics": plain(
        lambda: nn.Sequential(frozen(nn.BatchNorm1d(4)), nn.Linear(4, 3)), 6, 4
    ),
    "integer table": plain(lambda: table(torch.arange(3)), 6, 4),
    "lazy, after an input": plain(partial(once, nn.LazyLinear(3), torch.randn(2, 4)), 6, 4),
}
