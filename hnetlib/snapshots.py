"""What old tokens generated once: kept and compared with now, one class a form.

A snapshot belongs to a pair (task, chunk), one number, task * C + chunk. `take_snapshots` is the
one place that chooses a form. Each has `all_pairs` [t * C], in the order it likes best, and

    compare(features [C' + K, H], own, pairs [K]) -> rows [C', N], a scalar

where the first `own` = C' features are those of the task being learned: what the output layer
writes for them, and how far the rows of the pairs are from their snapshots now, squared and summed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hnetlib.hypernet import Hypernetwork
from hnetlib.squares import BlockSquares, GramSquares, gram_is_cheaper

FEW_ROWS = 512  # up to here rows of old tasks share one product with those of the current task
SNAPSHOT_BYTES = 2**28  # of stored rows; above, they are made again from what makes them
TASKS_AT_ONCE = 16  # generated in one call: the layers before the last take memory too


def take_snapshots(
    hnet: Hypernetwork, tokens: Tensor, *, exact: bool, layer_stays: bool
) -> "StoredRows | RemadeRows | GramRows | Features":
    """Snapshots now of tokens [t, *token_shape], in the form that costs least.

    `exact`: all pairs are compared at once. `layer_stays`: the output layer does not learn.
    """
    if layer_stays:
        return Features.take(hnet, tokens)
    num_gram = len(tokens) * int(one_scale(hnet).sum())
    weight = hnet.output_layer.weight  # [N, H]
    if exact and gram_is_cheaper(num_gram, *weight.shape):
        return GramRows.take(hnet, tokens)
    stored = len(tokens) * hnet.num_chunks * hnet.chunk_size * weight.dtype.itemsize
    return (RemadeRows if stored > SNAPSHOT_BYTES else StoredRows).take(hnet, tokens)


class StoredRows:
    """Snapshots as what the output layer wrote: t * P numbers, and reading one costs nothing."""

    def __init__(self, hnet: Hypernetwork, stored: Tensor) -> None:
        self.hnet, self.stored = hnet, stored  # [t * C, N], before scale and shift
        self.all_pairs = torch.arange(len(stored), device=stored.device)

    @classmethod
    @torch.no_grad()
    def take(cls, hnet: Hypernetwork, tokens: Tensor) -> "StoredRows":
        """Of tokens [t, *token_shape] now."""
        rows = [hnet.output_layer(features_of(hnet, few)) for few in tokens.split(TASKS_AT_ONCE)]
        return cls(hnet, torch.cat(rows))

    def with_one_more(self, token: Tensor) -> "StoredRows":
        """These, and behind them those of a token [*token_shape] now."""
        one = self.take(self.hnet, token[None]).stored
        return StoredRows(self.hnet, torch.cat([self.stored, one]))

    def rows(self, pairs: Tensor) -> Tensor:
        """The rows [K, N] of pairs [K]."""
        return self.stored[pairs]

    def compare(self, features: Tensor, own: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """See above."""
        layer = self.hnet.output_layer
        if len(pairs) > FEW_ROWS:
            return layer(features[:own]), self.block_squares(features[own:], pairs)
        rows = layer(features)  # [C' + K, N]: reads the large last layer once
        moved = (rows[own:] - self.rows(pairs)) * self._scales(pairs)  # [K, N]
        return rows[:own], moved.square().sum()

    def block_squares(self, features: Tensor, pairs: Tensor) -> Tensor:
        """How far the rows of features [K, H] are from the snapshots of pairs [K], summed."""
        layer = self.hnet.output_layer
        return BlockSquares.apply(
            features,
            layer.weight,
            layer.bias,
            lambda block: (self.rows(pairs[block]), self._scales(pairs[block])),
        )

    def state(self) -> dict[str, Tensor]:
        """The tensors to keep, by the names of the constructor."""
        return {"stored": self.stored}

    def _scales(self, pairs: Tensor) -> Tensor:
        return self.hnet.scale[pairs % self.hnet.num_chunks]  # [K, N]


class RemadeRows(StoredRows):
    """Snapshots made again when asked for: a copy of the layer, and t * C * H numbers it read."""

    def __init__(self, hnet: Hypernetwork, features: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.hnet, self.features = hnet, features  # [t * C, H]
        self.weight, self.bias = weight, bias  # [N, H], [N]
        self.all_pairs = torch.arange(len(features), device=features.device)

    @classmethod
    @torch.no_grad()
    def take(cls, hnet: Hypernetwork, tokens: Tensor) -> "RemadeRows":
        """Of tokens [t, *token_shape] now."""
        layer = hnet.output_layer
        features = all_features(hnet, tokens)
        return cls(hnet, features, layer.weight.detach().clone(), layer.bias.detach().clone())

    def rows(self, pairs: Tensor) -> Tensor:
        """The rows [K, N] of pairs [K]."""
        return F.linear(self.features[pairs], self.weight, self.bias)

    def state(self) -> dict[str, Tensor]:
        """The tensors to keep, by the names of the constructor."""
        return {"features": self.features, "weight": self.weight, "bias": self.bias}


class GramRows(RemadeRows):
    """The same, where all pairs at once cost less by inner products: see `GramSquares`.

    That wants one scale for a whole row: `all_pairs` starts with those of chunks within one tensor.
    """

    def __init__(self, hnet: Hypernetwork, features: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__(hnet, features, weight, bias)
        in_gram = one_scale(hnet)[self.all_pairs % hnet.num_chunks]  # [t * C]
        first = self.all_pairs[in_gram]  # [R]
        self.all_pairs = torch.cat([first, self.all_pairs[~in_gram]])
        self.scales = hnet.scale[first % hnet.num_chunks, :1]  # [R, 1]
        read = self.features[first]  # [R, H]
        self.base = torch.cat([read, torch.ones_like(read[:, :1])], 1) * self.scales  # [R, H + 1]
        self.gram = self.base.T @ self.base  # [H + 1, H + 1]

    def compare(self, features: Tensor, own: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """See above; by inner products only where `pairs` is `all_pairs` itself."""
        if pairs is not self.all_pairs:
            return super().compare(features, own, pairs)
        layer, old, num_gram = self.hnet.output_layer, features[own:], len(self.base)
        rows = layer(features[:own])  # [C', N]
        moved = old[:num_gram] * self.scales - self.base[:, :-1]  # [R, H]
        before = self.weight, self.bias, self.base, self.gram
        squares = GramSquares.apply(moved, layer.weight, layer.bias, before)
        if num_gram < len(pairs):
            squares = squares + self.block_squares(old[num_gram:], pairs[num_gram:])
        return rows, squares


class Features:
    """Snapshots as what the output layer W read, where W stays while a task is learned.

    Then the row of a (task, chunk) pair moves with its features alone, and how far is a product of
    their size, not of the row's: with the chunk's scales s,

        ||s * (W phi - W phi0)||^2 = (phi - phi0) G (phi - phi0)^T,   G = W^T diag(s^2) W.

    Memory: t * C * H numbers, and an H by H matrix for each chunk whose scales are not another's.
    """

    def __init__(self, hnet: Hypernetwork, features: Tensor, grams: Tensor) -> None:
        self.hnet, self.features, self.grams = hnet, features, grams  # [t * C, H], [G, H, H]
        self.kinds = hnet.scale.unique(dim=0, return_inverse=True)[1]  # [C], which gram
        self.all_pairs = torch.arange(len(features), device=features.device)

    @classmethod
    @torch.no_grad()
    def take(cls, hnet: Hypernetwork, tokens: Tensor) -> "Features":
        """Of tokens [t, *token_shape] now."""
        weight = hnet.output_layer.weight  # [N, H]
        scales = hnet.scale.unique(dim=0)  # [G, N]
        grams = [weight.T @ (weight * s.square()[:, None]) for s in scales]
        return cls(hnet, all_features(hnet, tokens), torch.stack(grams))

    def compare(self, features: Tensor, own: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """See above."""
        rows = self.hnet.output_layer(features[:own])  # [C', N]
        moved = features[own:] - self.features[pairs]  # [K, H]
        kinds = self.kinds[pairs % self.hnet.num_chunks]  # [K]
        alike = [moved[kinds == kind] for kind in range(len(self.grams))]
        squares = sum(((d @ gram) * d).sum() for d, gram in zip(alike, self.grams, strict=True))
        return rows, squares

    def state(self) -> dict[str, Tensor]:
        """The tensors to keep, by the names of the constructor."""
        return {"features": self.features, "grams": self.grams}


FORMS = {form.__name__: form for form in (StoredRows, RemadeRows, GramRows, Features)}


def features_of(hnet: Hypernetwork, tokens: Tensor) -> Tensor:
    """What the output layer reads, [t * C, H], for all chunks of tokens [t, *token_shape]."""
    tokens = hnet.each_chunk(tokens).flatten(0, 1)  # [t * C, task_token_dim]
    chunk_tokens = hnet.chunk_tokens.repeat(len(tokens) // hnet.num_chunks, 1)
    return hnet.features(tokens, chunk_tokens)


def all_features(hnet: Hypernetwork, tokens: Tensor) -> Tensor:
    """The same for many tokens, a few at a time."""
    return torch.cat([features_of(hnet, few) for few in tokens.split(TASKS_AT_ONCE)])


def one_scale(hnet: Hypernetwork) -> Tensor:
    """Which chunks [C] have one scale throughout: those within one tensor."""
    return (hnet.scale == hnet.scale[:, :1]).all(1)
