"""How the generated parameters are cut into chunks, each of which is generated as one row.

`FlatChunks` cuts pieces of equal size, whatever is in them; `Along` one for each index along a
dimension of a named parameter, such as each input of a layer.

The second is how tokens carry the task (chapter 9 of the report): a chunk for each input of the
first layer, and a token for each chunk of each task. Once the first task has taught the generator,
it freezes; later tasks learn their tokens alone, in any order, and none can touch another:

>>> from hnetlib import Hypernetwork
>>> hnet = Hypernetwork(
...     nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10)),
...     num_tasks=1,
...     generate="0.weight",
...     cut=Along({"0.weight": 1}),  # a chunk for each index of that dimension
...     tokens="chunk",
...     task_token_dim=12,
...     hnet_hidden=(64,),
...     hnet_activation="sine",
...     frequency=1.5,
... )
>>> # learn task 0 as any other, then
>>> hnet.freeze_generator()
>>> task = hnet.add_task()
>>> hnet.select_chunks(task, torch.arange(784) % 2 == 0)  # optional: others weigh 0
>>> [tuple(p.shape) for p in hnet.parameters_of(task)]  # all that the task learns
[(392, 12)]
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


class Along:
    """A cut by named dimensions: one chunk for each index along a dimension of a parameter.

        cut=Along({"0.weight": 1})                           # a chunk for each input of a layer
        cut=Along({"0.weight": 1}, {"2.weight": 0, "2.bias": 0})  # and one for each of its outputs

    Each dictionary is a group, {name of a parameter: dimension}: chunk i of a group has what its
    parameters hold at index i, one behind the other. Groups follow each other, C is the sum of
    their lengths, and N the length of the longest row; shorter ones end in padding. So every
    generated parameter is to be named once.
    """

    def __init__(self, *groups: Mapping[str, int]) -> None:
        if not groups or not all(isinstance(group, Mapping) and group for group in groups):
            got = ", ".join(map(repr, groups)) or "nothing"
            raise ValueError(f"cut: expected {{name of a parameter: dimension}}, got {got}")
        for name, dim in (pair for group in groups for pair in group.items()):
            if isinstance(dim, bool) or not hasattr(dim, "__index__"):
                raise ValueError(f"cut: expected a dimension of {name}, got {dim!r}")
        self.groups = groups

    def __call__(self, layout: Sequence[Piece], num_chunks: int) -> "AlongChunks":
        """The chunks of these pieces; `num_chunks` is theirs, or 1, which says nothing.

        ValueError names a parameter that can't be cut so, or is named twice or not at all.
        """
        shapes = [piece.shape for piece in layout]
        chunks = AlongChunks(shapes, _in_groups(layout, self.groups))
        if num_chunks not in (1, chunks.num_chunks):
            raise ValueError(
                f"num_chunks: expected the {chunks.num_chunks} that `cut` makes, got {num_chunks}"
            )
        return chunks


class AlongChunks:
    """What `Along` cuts: groups of (position of a parameter in the layout, its dimension)."""

    def __init__(
        self, shapes: Sequence[torch.Size], groups: Sequence[Sequence[tuple[int, int]]]
    ) -> None:
        self.shapes, self.groups = shapes, groups
        self.lengths = [shapes[group[0][0]][group[0][1]] for group in groups]  # chunks of each
        self.num_chunks = sum(self.lengths)
        self.widths = [self._width(group) for group in groups]  # numbers in a row of each
        self.chunk_size = max(self.widths)

    def flatten(self, rows: Tensor) -> Tensor:
        """Flat parameters [..., P] of rows [..., C, N]."""
        flat: dict[int, Tensor] = {}  # by position: groups may have parameters in any order
        for group, part in zip(self.groups, rows.split(self.lengths, dim=-2), strict=True):
            sizes = [self._size(*member) for member in group]
            part = part[..., : sum(sizes)]  # [..., n, width]
            for (position, dim), some in zip(group, part.split(sizes, dim=-1), strict=True):
                shape = self.shapes[position]
                first = (shape[dim], *shape[:dim], *shape[dim + 1 :])  # the dimension in front
                tensor = some.reshape(*some.shape[:-2], *first).movedim(
                    -len(shape), dim - len(shape)
                )
                flat[position] = tensor.flatten(-len(shape))  # [..., numel]
        if len(flat) == 1:
            return flat[0]
        return torch.cat([flat[position] for position in range(len(self.shapes))], dim=-1)

    def cut(self, flat: Tensor) -> Tensor:
        """Rows [..., C, N] of flat parameters [..., P], padding 0."""
        pieces = flat.split([shape.numel() for shape in self.shapes], dim=-1)
        parts = []
        for group, width in zip(self.groups, self.widths, strict=True):
            rows = torch.cat([self._rows(pieces[p], self.shapes[p], dim) for p, dim in group], -1)
            parts.append(nn.functional.pad(rows, (0, self.chunk_size - width)))  # [..., n, N]
        return torch.cat(parts, dim=-2)

    def _rows(self, piece: Tensor, shape: torch.Size, dim: int) -> Tensor:
        """One parameter [..., numel] as rows [..., n, numel / n]."""
        tensor = piece.unflatten(-1, shape).movedim(dim - len(shape), -len(shape))
        return tensor.reshape(*piece.shape[:-1], shape[dim], -1)

    def _size(self, position: int, dim: int) -> int:
        return self.shapes[position].numel() // self.shapes[position][dim]

    def _width(self, group: Sequence[tuple[int, int]]) -> int:
        return sum(self._size(*member) for member in group)


def _in_groups(
    layout: Sequence[Piece], groups: Sequence[Mapping[str, int]]
) -> list[list[tuple[int, int]]]:
    """The groups by position; ValueError for what can't be cut, or is not cut exactly once."""
    found = [[_place(layout, name, dim) for name, dim in group.items()] for group in groups]
    for group, members in zip(groups, found, strict=True):
        lengths = {name: layout[p].shape[d] for name, (p, d) in zip(group, members, strict=True)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"cut: expected as many indices along each of a group, got {lengths}")
    times = Counter(position for members in found for position, _ in members)
    for position, piece in enumerate(layout):
        if times[position] != 1:
            raise ValueError(
                f"cut: expected each generated parameter once, got {piece.names[0]} "
                f"{times[position]} times"
            )
    return found


def _place(layout: Sequence[Piece], name: str, dim: int) -> tuple[int, int]:
    """Position and dimension, counted from 0, of a parameter that is to be cut along `dim`."""
    for position, piece in enumerate(layout):
        if name in piece.names:
            dims = len(piece.shape)
            if not -dims <= dim < dims:
                raise ValueError(f"cut: {name} has {dims} dimensions, so none that is {dim}")
            if piece.shape.numel() == 0:
                raise ValueError(f"cut: {name} is empty")
            return position, int(dim) % dims
    every = ", ".join(piece.names[0] for piece in layout)
    raise ValueError(f"cut: expected names of generated parameters ({every}), got {name!r}")
