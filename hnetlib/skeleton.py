"""All of a module but its generated parameters: computation, shared parameters, buffers."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hnetlib.generated import Named, by_tensor
from hnetlib.hollow import Hollow, hollow

BUFFER = "what a forward changes has to be a buffer, of which each task has its own"


class Skeleton(nn.Module):
    """What stays of a module when its generated parameters are taken out of it.

    `empty` is a copy of it on the meta device: it computes, prints and has shapes and dtypes, but
    no values. They are given at each call, by name, and PyTorch's `functional_call` puts them in.
    """

    def __init__(self, module: nn.Module, shared: Named) -> None:
        """`shared`: the parameters that are not generated."""
        super().__init__()
        self.__dict__["empty"] = on_meta(module)  # no submodule: its parameters are not ours
        state, constants = split_buffers(module)
        self.shared = NamedTensors({names: _copied(p) for names, p in shared.items()})
        self.start = NamedTensors(state)  # what a new task's buffers are
        self.constants = NamedTensors(constants, persistent=False)
        self.tasks = nn.ModuleList()  # the buffers of each
        self.buffer_names = _places(module, "_buffers")
        self.names = [*_places(module, "_parameters"), *self.buffer_names]
        self.tables = [
            (path, table, {name for name, tensor in table.items() if tensor is not None})
            for path, part in self.empty.named_modules()
            for table in (part._parameters, part._buffers, part._modules)
        ]

    def add_task(self) -> None:
        """One more task, with buffers as at the start."""
        self.tasks.append(copy.deepcopy(self.start))

    def values(self, task: int | None = None) -> dict[str, Tensor]:
        """Shared parameters, and the buffers of a task; None: copies of those at the start."""
        buffers = copy.deepcopy(self.start) if task is None else self.tasks[task]
        return self.shared.by_name() | buffers.by_name()

    def values_of(self, tasks: Sequence[int]) -> dict[str, Tensor]:
        """The same for several tasks [G]: each [G, *shape], buffers as copies."""
        each = [self.values(task) for task in tasks]
        shared = self.shared.by_name()
        return {
            name: value.expand(len(each), *value.shape)
            if name in shared
            else torch.stack([values[name] for values in each])
            for name, value in each[0].items()
        }

    def run(self, weights: dict[str, Tensor], inputs: tuple, kwargs: dict) -> Any:
        """What the module computes with these values; what is missing is as at the start."""
        given = self.constants.by_name() | weights
        if any(name not in given for name in self.names):
            given = self.values() | given
            lacking = [name for name in self.names if name not in given]
            if lacking:
                raise ValueError(f"weights: expected all generated parameters, got no {lacking[0]}")
        values, before = {name: given[name] for name in self.names}, self._marks()
        result = functional_call(self.empty, values, inputs, kwargs, tie_weights=False)
        self._refuse_what_was_made()
        for name in self.names:
            if values[name] is not given[name]:  # the module assigned it, instead of changing it
                self._take_over(name, weights, given[name], values[name])
        for key, mark in self._marks().items():
            if mark != before[key]:
                self._refuse_a_change(key, learned=before[key][0])
        return result

    def _marks(self) -> dict[str, tuple[bool, int]]:
        """Of each shared parameter: whether it learns, and how often it was changed if not."""
        if torch.compiler.is_compiling():
            return {}
        shared = self.shared._parameters.items()  # at each step: attributes would take longer
        return {
            key: (p.requires_grad, 0 if p.requires_grad or p.is_inference() else p._version)
            for key, p in shared
        }

    def _refuse_a_change(self, key: str, learned: bool) -> None:
        """RuntimeError for what a forward did to a parameter that all tasks share."""
        parameter, name = self.shared._parameters[key], self.shared.names_of(key)[0]
        if parameter.requires_grad != learned:
            parameter.requires_grad_(learned)
            raise RuntimeError(f"{name}: the module changed its requires_grad, for all tasks")
        raise RuntimeError(f"{name}: frozen, but the module changed it, for all tasks; {BUFFER}")

    def _take_over(self, name: str, weights: dict, buffer: Tensor, assigned: Tensor) -> None:
        """Puts what a module assigned in a buffer's place; the old one may be in a graph."""
        if name not in self.buffer_names:
            raise RuntimeError(f"{name}: a parameter, but the module assigned another; {BUFFER}")
        got = assigned if isinstance(assigned, Tensor) else None
        if got is None or (got.shape, got.dtype) != (buffer.shape, buffer.dtype):
            came = repr(assigned) if got is None else f"{list(got.shape)} of {got.dtype}"
            raise ValueError(
                f"{name}: expected the module to assign {list(buffer.shape)} of {buffer.dtype}, as "
                f"this buffer is at the start, got {came}"
            )
        new = got.detach().clone()
        for part in (self.constants, *self.tasks):
            part.replace(buffer, new)
        if weights.get(name) is buffer:
            weights[name] = new

    def _refuse_what_was_made(self) -> None:
        """What a forward made itself would be one for all tasks, and in no state: RuntimeError."""
        for path, table, known in self.tables:
            made = [name for name in table if name not in known and _has_values(table[name])]
            for name in made:
                table[name] = None
            if made:
                raise RuntimeError(
                    f"{_join(path, made[0])}: the module made it in its forward, but a "
                    "hypernetwork has to know it; register it with a value, or run the module on "
                    "an input before"
                )

    def filled(self, weights: Mapping[str, Tensor], attached: bool) -> nn.Module:
        """A copy of the module with these values: as its own parameters, or these very tensors."""
        values, memo = self.constants.by_name() | weights, {}
        for name, parameter in self.empty.named_parameters(remove_duplicate=False):
            own = nn.Parameter(values[name].detach().clone(), parameter.requires_grad)
            memo.setdefault(id(parameter), values[name] if attached else own)
        for name, buffer in self.empty.named_buffers(remove_duplicate=False):
            memo.setdefault(id(buffer), values[name] if attached else values[name].clone())
        return copy.deepcopy(self.empty, memo | _activations(self.empty))

    def __deepcopy__(self, memo: dict) -> "Skeleton":
        memo |= _activations(self.empty)
        memo[id(self)] = new = self.__class__.__new__(self.__class__)
        new.__setstate__(copy.deepcopy(self.__dict__, memo))
        return new

    def train(self, mode: bool = True) -> "Skeleton":
        """Reaches the module."""
        self.empty.train(mode)
        return super().train(mode)

    def extra_repr(self) -> str:
        """The module."""
        return repr(self.empty)

    def _apply(self, fn, recurse=True):
        """Dtypes follow `to` and its like; there are no values to move."""

        def follow(tensor: Tensor) -> Tensor:
            dtype = fn(torch.empty(0, dtype=tensor.dtype)).dtype
            return hollow(torch.empty_like(tensor, dtype=dtype), is_parameter=False)

        self.empty._apply(follow)
        return super()._apply(fn, recurse)


class NamedTensors(nn.Module):
    """Parameters and buffers under the dotted names they have in another module."""

    def __init__(self, tensors: Named, persistent: bool = True) -> None:
        super().__init__()
        self._names: dict[str, tuple[str, ...]] = {}
        for names in tensors:
            key = names[0].replace(".", "/")  # no dots allowed
            while key in self._names or hasattr(self, key):  # a buffer called `half`, say
                key += "/"
            self._names[key] = names
        for key, tensor in zip(self._names, tensors.values(), strict=True):
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(key, tensor)
            else:
                self.register_buffer(key, tensor, persistent)

    def by_name(self) -> dict[str, Tensor]:
        """Each tensor by each of its names."""
        return {name: getattr(self, key) for key, names in self._names.items() for name in names}

    def names_of(self, key: str) -> tuple[str, ...]:
        """In the other module, of what is registered here under `key`."""
        return self._names[key]

    def replace(self, buffer: Tensor, new: Tensor) -> None:
        """Another buffer in the place of this one, if it is one of these."""
        for key, own in self._buffers.items():
            if own is buffer:
                self._buffers[key] = new

    def extra_repr(self) -> str:
        """Names."""
        return ", ".join(names[0] for names in self._names.values())


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of the module whose parameters and buffers are on the meta device: no values."""
    memo = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.layout != torch.strided:
            raise ValueError(
                f"{name}: expected a dense one, got {tensor.layout}; a plain "
                "attribute of the module may hold it"
            )
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = hollow(empty, is_parameter, tensor.requires_grad)
    try:
        empty = copy.deepcopy(module, memo)
    except (TypeError, RuntimeError, pickle.PickleError) as error:
        raise ValueError(f"target: expected a module that can be copied, but: {error}") from error
    for name, tensor in (*empty.named_parameters(), *empty.named_buffers()):
        if not isinstance(tensor, Hollow):
            raise ValueError(
                f"{name}: expected copy.deepcopy(module, memo) to take it from memo; a "
                "__deepcopy__ of the module's makes another"
            )
    return empty


def _activations(module: nn.Module) -> dict[int, Tensor]:
    """Copies of what a forward left in attributes, by id: tensors in a graph can't be copied."""
    held = [value for part in module.modules() for value in vars(part).values()]
    held += [one for value in held if isinstance(value, list | tuple) for one in value]
    computed = [value for value in held if isinstance(value, Tensor) and not value.is_leaf]
    return {id(tensor): tensor.detach().clone() for tensor in computed}


def split_buffers(module: nn.Module) -> tuple[Named, Named]:
    """Copies of the persistent buffers, which are a module's state, and of the others."""
    passing = {
        _join(path, name)
        for path, part in module.named_modules(remove_duplicate=False)
        for name in part._non_persistent_buffers_set
    }
    buffers = by_tensor(module.named_buffers(remove_duplicate=False))
    copies = {names: tensor.detach().clone() for names, tensor in buffers.items()}
    state = {names: tensor for names, tensor in copies.items() if not passing.issuperset(names)}
    return state, {names: tensor for names, tensor in copies.items() if names not in state}


def _places(module: nn.Module, kind: str) -> list[str]:
    """A name for each place of a tensor: one, too, where a module has two parents.

    What `functional_call` puts into a place twice, it would not take out again.
    """
    return [
        _join(path, name)
        for path, part in module.named_modules()
        for name, tensor in getattr(part, kind).items()
        if tensor is not None
    ]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _has_values(made: Tensor | nn.Module | None) -> bool:
    """Whether a tensor, or a module with any, was made."""
    if isinstance(made, nn.Module):
        return any(True for _ in chain(made.parameters(), made.buffers()))
    return made is not None


def _copied(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
