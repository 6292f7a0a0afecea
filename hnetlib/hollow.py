"""Tensors without values that say so: on the meta device, some products would return anything."""

from collections.abc import Iterator

import torch
from torch import Tensor


class Hollow(Tensor):
    """What stands where a generated value is put in: it has a shape and a dtype, and no more.

    PyTorch multiplies a matrix by one on the meta device without a word and returns memory as it
    was. Whatever combines one of these with values raises a RuntimeError instead.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        others = _tensors((*args, *(kwargs or {}).values()))
        if not all(isinstance(other, Hollow) or other.is_meta for other in others):
            raise RuntimeError(
                "a parameter or buffer without values was used: a hypernetwork puts them in while "
                "`run` or `run_target` runs the module; this was reached past its registered "
                "attributes, or outside of those"
            )
        return super().__torch_function__(func, types, args, kwargs)

    def __deepcopy__(self, memo: dict) -> "Hollow":
        return memo.setdefault(id(self), hollow(*self._parts()))

    def __reduce_ex__(self, protocol: int) -> tuple:
        return hollow, self._parts()

    def _parts(self) -> tuple[Tensor, bool, bool]:
        is_parameter = getattr(self, "_is_param", False)
        with torch._C.DisableTorchFunctionSubclass():
            return self.detach().as_subclass(Tensor), is_parameter, self.requires_grad


def hollow(empty: Tensor, is_parameter: bool, requires_grad: bool = False) -> Hollow:
    """One of the shape and dtype of `empty`, which is on the meta device."""
    made = empty.as_subclass(Hollow)
    if is_parameter:
        made._is_param = True  # what nn.Parameter asks of a tensor of another class
    return made.requires_grad_(requires_grad)


def _tensors(values: tuple) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(tuple(value))
