"""States of a hypernetwork: which module they are of, and that one that fails changes nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def description(hnet: Any) -> Tensor:
    """What no tensor of a state says, as bytes [n]: names, how they are cut, which activation.

    Rows have no names: without this, a module with its layers in another order would fit.
    """
    said = {
        "generated": [f"{' = '.join(p.names)} {list(p.shape)}" for p in hnet.layout],
        "cut": [type(hnet.chunks).__name__, getattr(hnet.chunks, "groups", None)],
        "layers": [type(layer).__name__ for layer in hnet.body],
    }
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8, device="cpu")


def flaw_of(described: Tensor, hnet: Any) -> str | None:
    """What a description (of any dtype) says that is not so here, as one line; None: nothing."""
    mine, theirs = _read(description(hnet)), _read(described)
    for what, here in mine.items():
        there = theirs.get(what)
        if there == here:
            continue
        pairs = zip(here, there, strict=False) if isinstance(there, list) else ()
        one, other = next((pair for pair in pairs if pair[0] != pair[1]), (here, there))
        return f"{what}: expected a state with {one}, got {other}"
    return None


def _read(described: Tensor) -> dict:
    """As `description` wrote it; empty for what is no such thing, as means of several."""
    try:
        said = json.loads(bytes(described.round().to(torch.uint8).tolist()))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


@contextmanager
def unchanged_if_it_fails(module: nn.Module) -> Iterator[None]:
    """Where an exception leaves the block, the module is as before: objects, values, attributes."""
    parts = [(part, dict(vars(part))) for part in module.modules()]
    kinds = ("_parameters", "_buffers", "_modules")
    tables = [(had[kind], dict(had[kind])) for _, had in parts for kind in kinds]
    tensors = [
        (tensor, tensor.detach().clone(), tensor.requires_grad, tensor.grad)
        for tensor in (*module.parameters(), *module.buffers())
    ]
    try:
        yield
    except Exception:
        for part, had in parts:
            vars(part).clear()
            vars(part).update(had)
        for table, had in tables:
            table.clear()
            table.update(had)
        for tensor, value, learned, grad in tensors:
            tensor.detach().copy_(value)
            if tensor.requires_grad != learned:
                tensor.requires_grad_(learned)
            tensor.grad = grad
        raise
