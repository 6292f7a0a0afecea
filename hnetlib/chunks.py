"""How the generated parameters are cut into chunks, each of which is generated as one row."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Piece(NamedTuple):
    """One generated parameter: a piece of the flat vector of all of them."""

    names: tuple[str, ...]  # several where a parameter is tied
    shape: torch.Size
    dtype: torch.dtype


class Chunks(Protocol):
    """A way to cut the P generated parameters into C rows of N numbers, some of them padding.

    Any order will do, as long as `flatten` undoes `cut`. A hypernetwork asks for nothing else.
    """

    num_chunks: int
    chunk_size: int

    def flatten(self, rows: Tensor) -> Tensor:
        """Flat parameters [..., P] of rows [..., C, N], padding left out."""

    def cut(self, flat: Tensor) -> Tensor:
        """Rows [..., C, N] of flat parameters [..., P], padding 0."""


Cut = Callable[[Sequence[Piece], int], Chunks]  # takes the layout and the number of chunks


class FlatChunks:
    """Pieces of equal size of the flat vector, one behind the other (1906.00695, section 4)."""

    def __init__(self, layout: Sequence[Piece], num_chunks: int) -> None:
        self.num_weights = sum(piece.shape.numel() for piece in layout)
        if num_chunks > self.num_weights:
            raise ValueError(
                f"num_chunks: expected at most one chunk for each of the target's "
                f"{self.num_weights} weights, got {num_chunks}"
            )
        self.num_chunks = num_chunks
        self.chunk_size = math.ceil(self.num_weights / num_chunks)

    def flatten(self, rows: Tensor) -> Tensor:
        """Flat parameters [..., P] of rows [..., C, N]: what is behind the last is padding."""
        return rows.flatten(-2)[..., : self.num_weights]

    def cut(self, flat: Tensor) -> Tensor:
        """Rows [..., C, N] of flat parameters [..., P]; the padding is 0, so it never counts."""
        padding = self.num_chunks * self.chunk_size - self.num_weights
        return nn.functional.pad(flat, (0, padding)).unflatten(-1, (self.num_chunks, -1))
