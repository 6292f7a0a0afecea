"""What old tokens generated once: kept as rows, or as the last layer that makes them again."""

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


def features_of(hnet: Hypernetwork, tokens: Tensor) -> Tensor:
    """What the last layer reads, [t * C, H], for all chunks of tokens [t, task_token_dim]."""
    tokens = tokens.repeat_interleave(hnet.num_chunks, dim=0)  # [t * C, task_token_dim]
    chunk_tokens = hnet.chunk_tokens.repeat(len(tokens) // hnet.num_chunks, 1)
    return hnet.features(tokens, chunk_tokens)
