"""States of a hypernetwork: which module they are of, and that one that fails changes nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def description(hnet: Any) -> Tensor:
    """What no tensor of a state says, as numbers of bytes [n]: names, sizes, cut, activation.

    Rows have no names: without this, a module with its layers in another order would fit.
    """
    said = {
        "generated": [f"{' = '.join(p.names)} {list(p.shape)}" for p in hnet.layout],
        "cut": [type(hnet.chunks).__name__, getattr(hnet.chunks, "groups", None)],
        "chunks": [hnet.num_chunks, hnet.chunk_size],
        "tokens": [hnet.tokens, hnet.task_token_dim, hnet.chunk_tokens.shape[1]],
        "layers": [_said(layer) for layer in hnet.body],
    }
    text = json.dumps(said, default=lambda value: type(value).__name__)
    return torch.tensor(list(text.encode()), dtype=torch.int32, device="cpu")  # means of it fit


def expect_a_state_of(hnet: Any, described: Tensor) -> None:
    """RuntimeError where a description (of any dtype) says what is not so of this one."""
    mine, theirs = _read(description(hnet)), _read(described)
    if theirs is None:
        raise RuntimeError("load_state_dict: expected a state with a description as it was written")
    for what, here in mine.items():
        there = theirs.get(what)
        if there == here:
            continue
        pairs = zip(here, there, strict=False) if isinstance(there, list) else ()
        one, other = next((pair for pair in pairs if pair[0] != pair[1]), (here, there))
        raise RuntimeError(f"load_state_dict: {what}: expected a state with {one}, got {other}")


def _said(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"Linear of {layer.in_features} to {layer.out_features}"
    return type(layer).__name__


def _read(described: Tensor) -> dict | None:
    """As `description` wrote it; None for what is no such thing."""
    try:
        said = json.loads(bytes(described.round().to(torch.uint8).tolist()))
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


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
    except BaseException:
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
