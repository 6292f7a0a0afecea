"""What old tokens generated once: kept as rows, or as what makes them again."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from hnetlib.hypernet import Hypernetwork

TASKS_AT_ONCE = 16  # generated in one call: the layers before the last take memory too


class StoredRows:
    """Snapshots as numbers: what the last layer wrote for each (task, chunk) pair, [t * C, N].

    Memory: t * P numbers of 4 bytes, or 2 with `dtype=torch.float16`. Reading a row costs nothing.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.stored = torch.empty(0, dtype=dtype)  # [t * C, N], before scale and shift

    @torch.no_grad()
    def add(self, hnet: Hypernetwork, tokens: Tensor) -> None:
        """Takes a snapshot of these tasks' tokens [t, task_token_dim], behind those it has."""
        rows = [
            hnet.head(features_of(hnet, few)).to(self.dtype) for few in tokens.split(TASKS_AT_ONCE)
        ]
        self.stored = torch.cat([self.stored, *rows] if len(self.stored) else rows)

    def rows(self, pairs: Tensor) -> Tensor:
        """The rows [K, N] of pairs [K], each numbered task * C + chunk, as float32 or wider."""
        rows = self.stored[pairs]
        return rows.float() if self.dtype == torch.float16 else rows


class FrozenHead:
    """Snapshots made again when asked for, from a copy of the last layer and what it read.

    Memory: a last layer and t * C * H numbers, whatever the target's size. Reading a row costs
    its product with that layer.
    """

    @torch.no_grad()
    def __init__(self, hnet: Hypernetwork, tokens: Tensor) -> None:
        self.head = copy.deepcopy(hnet.head).requires_grad_(False)
        features = [features_of(hnet, few) for few in tokens.split(TASKS_AT_ONCE)]
        self.features = torch.cat(features)  # [t * C, H]

    def rows(self, pairs: Tensor) -> Tensor:
        """The rows [K, N] of pairs [K], each numbered task * C + chunk."""
        return F.linear(self.features[pairs], self.head.weight, self.head.bias)


class FeatureSnapshots:
    """Snapshots as what the last layer W read, where W stays as it is while a task is learned.

    Then the row of a (task, chunk) pair moves with its features alone, and how far is a product of
    their size, not of the row's: with the chunk's scales s,

        ||s * (W phi - W phi0)||^2 = (phi - phi0) G (phi - phi0)^T,   G = W^T diag(s^2) W.

    Memory: t * C * H numbers, and an H by H matrix for each chunk whose scales are not another's.
    """

    @torch.no_grad()
    def __init__(self, hnet: Hypernetwork, tokens: Tensor) -> None:
        self.weight, self.num_chunks = hnet.head.weight, hnet.num_chunks
        self.version = self.weight._version  # PyTorch counts changes in place
        features = [features_of(hnet, few) for few in tokens.split(TASKS_AT_ONCE)]
        self.features = torch.cat(features)  # [t * C, H]
        scales, self.kinds = hnet.scale.unique(dim=0, return_inverse=True)  # [G, N], [C]
        self.grams = [self.weight.T @ (self.weight * s.square()[:, None]) for s in scales]

    def squares(self, features: Tensor, pairs: Tensor) -> Tensor:
        """Sum over pairs [K] of how far their rows are from the snapshot's, squared: a scalar.

        features: what the last layer reads for them now, [K, H]. RuntimeError where that layer was
        changed since the snapshot.
        """
        if self.weight._version != self.version:
            raise RuntimeError(
                "last layer: expected the same as at begin_task, since its weight needs no "
                "gradient, but it was changed; call begin_task again"
            )
        moved = features - self.features[pairs]  # [K, H]
        kinds = self.kinds[pairs % self.num_chunks]  # [K]
        alike = [moved[kinds == kind] for kind in range(len(self.grams))]
        return sum(((d @ gram) * d).sum() for d, gram in zip(alike, self.grams, strict=True))


def features_of(hnet: Hypernetwork, tokens: Tensor) -> Tensor:
    """What the last layer reads, [t * C, H], for all chunks of tokens [t, task_token_dim]."""
    tokens = tokens.repeat_interleave(hnet.num_chunks, dim=0)  # [t * C, task_token_dim]
    chunk_tokens = hnet.chunk_tokens.repeat(len(tokens) // hnet.num_chunks, 1)
    return hnet.features(tokens, chunk_tokens)
