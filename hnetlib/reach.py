"""What reaches a module's parameters past its registered attributes, and so what a copy is not of.

A hypernetwork computes with a copy of the module, into which generated values are put by name.
Python copies containers and objects with what they hold, but a function, a class or a weak
reference as it is: what these hold is the original's. And two tensors in one piece of memory are
two in a copy.
"""

import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import CellType, FunctionType, MethodType

import torch
from torch import Tensor, nn

DEPTH = 8  # of what holds what; deeper than any module that was tried
# What nn.Module and nn.RNNBase keep themselves, but for a user's hooks.
_OF_PYTORCH = {*vars(nn.Module()), "_flat_weights", "_flat_weight_refs"}
_OF_PYTORCH -= {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"}


def refuse_what_reaches_past(module: nn.Module) -> None:
    """ValueError for an attribute or a hook that would go on with the module's own values."""
    own = {id(x) for x in (*module.parameters(), *module.buffers(), *module.modules())}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in _OF_PYTORCH and _reaches(value, own):
                where = f"{path}.{name}".lstrip(".")
                raise ValueError(
                    f"{where}: reaches a parameter or module past the attributes they are "
                    "registered as, so it would not see generated values; use nn.ParameterList, "
                    "nn.ModuleList or a method"
                )


def _reaches(value: object, own: set[int]) -> bool:
    """Whether a container holds one of these tensors, or a function one or a module of them.

    An object, an optimizer say, may hold tensors: using those fails by itself (`hollow`).
    """
    if any(id(tensor) in own for tensor in _tensors_in(value)):
        return True
    queue, seen = [(value, False, 0)], set()
    while queue:
        value, kept, depth = queue.pop()
        if kept and id(value) in own:
            return True
        if (id(value), kept) in seen or depth > DEPTH or isinstance(value, Tensor | nn.Module):
            continue
        seen.add((id(value), kept))
        queue += [(item, kept or atomic, depth + 1) for item, atomic in _held(value)]
    return False


def _items(value: object) -> list:
    """What a container holds, else nothing."""
    if isinstance(value, dict):
        return [*value.values()]
    return [*value] if isinstance(value, list | tuple | set | frozenset | deque) else []


def _tensors_in(value: object, depth: int = 0) -> Iterator[Tensor]:
    """Of containers in containers."""
    for item in _items(value) if depth < DEPTH else ():
        if isinstance(item, Tensor):
            yield item
        yield from _tensors_in(item, depth + 1)


def _held(value: object) -> Iterator[tuple[object, bool]]:
    """What a value holds, and whether a copy of the value would hold the very same."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        yield from ((item, True) for item in (*cells, *defaults))
    elif isinstance(value, weakref.ref):
        yield value(), True
    elif isinstance(value, MethodType):
        yield from ((value.__self__, False), (value.__func__, False))
    elif isinstance(value, partial):
        yield from ((item, False) for item in (value.func, value.args, value.keywords))
    elif not isinstance(value, type):
        yield getattr(value, "__wrapped__", None), True  # of functools.lru_cache and its like
        inside = [*_items(value), *getattr(value, "__dict__", {}).values()]
        if "<locals>" in type(value).__qualname__:  # its methods may close over something
            inside += vars(type(value)).values()
        yield from ((item, False) for item in inside)


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is not assigned yet
        return False


def refuse_shared_memory(module: nn.Module, generated: set[int]) -> None:
    """ValueError where one of these parameters (by id) and another tensor overlap in memory.

    Under two names a parameter is one, and generated once: that is how layers are tied.
    """
    tensors = {id(t): (name, t) for name, t in _named_tensors(module) if _has_memory(t)}
    by_memory: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.values():
        by_memory.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor))
    for several in by_memory.values():
        if len(several) == 1 or not any(id(tensor) in generated for _, tensor in several):
            continue
        several.sort(key=lambda pair: id(pair[1]) not in generated)
        owner = torch.full((several[0][1].untyped_storage().nbytes(),), -1)
        for number, (name, tensor) in enumerate(several):
            size = tensor.element_size()
            steps, first = [size * step for step in tensor.stride()], size * tensor.storage_offset()
            mine = owner.as_strided(tensor.shape, steps, first)  # where its elements begin
            if mine.max() >= 0:
                raise ValueError(
                    f"{name}: shares memory with {several[mine.max()][0]}, which a copy would not; "
                    "assign the parameter itself to tie the two, or give it memory of its own"
                )
            mine.fill_(number)


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers, and tensors that are plain attributes."""
    yield from (*module.named_parameters(), *module.named_buffers())
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}".lstrip("."), value


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0
