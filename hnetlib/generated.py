"""Which parameters of a module are generated, what is refused, and what values start at."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hnetlib.reach import refuse_shared_memory, refuse_what_reaches_past

CONSTANT_SPREAD = 0.05  # of a generated tensor that starts constant, as a share of its size
Named = dict[tuple[str, ...], Tensor]  # by all names of a tensor: several where it is tied


def split_parameters(module: nn.Module, generate: str | Sequence[str]) -> tuple[Named, Named]:
    """Parameters that get generated, and those that stay as they are.

    One is generated if any of its names matches a pattern, unless it is frozen. ValueError names
    what can't be: a pattern without a match, parameters that are lazy, complex, sparse, not finite,
    without values or with hooks, options of embeddings that ask for more, and modules that can't be
    copied.
    """
    _refuse_what_cannot_be_copied(module)
    parameters = by_tensor(module.named_parameters(remove_duplicate=False))
    if not parameters:
        raise ValueError(f"target: expected a module with parameters, got {module}")
    several = [generate] if isinstance(generate, str) else generate
    patterns = [*several] if isinstance(several, Iterable) else []
    if not generate or not patterns or not all(isinstance(one, str) for one in patterns):
        raise ValueError(f"generate: expected a pattern of names or several, got {generate!r}")
    chosen: set[tuple[str, ...]] = set()
    for pattern in patterns:
        found = [n for n in parameters if any(fnmatchcase(name, pattern) for name in n)]
        moving = [names for names in found if parameters[names].requires_grad]
        if not moving:
            kind = "only frozen ones (requires_grad=False)" if found else "none"
            every = ", ".join(name for names in parameters for name in names)
            raise ValueError(f"generate: {pattern!r} matches {kind} of the parameters {every}")
        chosen.update(moving)
    generated = {names: p for names, p in parameters.items() if names in chosen}
    for names, parameter in generated.items():
        _refuse_kind(names[0], parameter)
    _refuse_tables(module, {name for names in generated for name in names})
    refuse_shared_memory(module, {id(parameter) for parameter in generated.values()})
    if len({p.device for p in parameters.values()}) > 1:
        devices = ", ".join(f"{names[0]} on {p.device}" for names, p in parameters.items())
        raise ValueError(f"target: expected all parameters on one device, got {devices}")
    return generated, {names: p for names, p in parameters.items() if names not in chosen}


def starting_values(parameter: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and spread of a parameter at its start, each expanded to [numel].

    A tensor that starts constant (a bias at 0, a normalisation weight at 1) has no spread of its
    own to go by: it gets a small one, so that it can be learned and about keeps its size.
    """
    values = parameter.detach().to(dtype).flatten()
    if not len(values):
        return values, values
    mean, spread, size = values.mean(), values.std(correction=0), values.abs().max()
    if spread <= 1e-6 * size:
        spread = CONSTANT_SPREAD * (size if size > 0 else torch.ones_like(size))
    return mean.expand(len(values)), spread.expand(len(values))


def by_tensor(named: Iterable[tuple[str, Tensor]]) -> Named:
    """Each distinct tensor once, by the tuple of its names."""
    names: dict[Tensor, list[str]] = {}
    for name, tensor in named:
        names.setdefault(tensor, []).append(name)
    return {tuple(all_names): tensor for tensor, all_names in names.items()}


def _refuse_what_cannot_be_copied(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name}: not initialised yet; run the module on an input first")
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            raise ValueError(f"{name}: has a hook on its gradient, which no copy has; remove it")
    for path, part in module.named_modules():
        _refuse_wrapper(path or "target", part)
        for hook in part._forward_pre_hooks.values():
            old = type(hook).__module__.removeprefix("torch.nn.utils.")
            if old in ("weight_norm", "spectral_norm"):
                raise ValueError(
                    f"{path or 'target'}: torch.nn.utils.{old} computes a weight that can't be "
                    f"copied; use torch.nn.utils.parametrizations.{old}"
                )
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                where = f"{path}.{name}".lstrip(".")
                raise ValueError(f"{where}: computed from parameters, so it can't be copied")
    refuse_what_reaches_past(module)


def _refuse_wrapper(path: str, part: nn.Module) -> None:
    """What runs a module it holds, or compiled code, and so would not see generated values."""
    kind = type(part).__name__
    if isinstance(part, torch.jit.ScriptModule):
        raise ValueError(f"{path}: expected a module that runs in Python, got TorchScript")
    if kind == "OptimizedModule" or getattr(part, "_compiled_call_impl", None):
        raise ValueError(f"{path}: expected the module before torch.compile, got it compiled")
    if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{path}: expected the module itself, .module, got {kind}")


def _refuse_tables(module: nn.Module, generated: set[str]) -> None:
    """An embedding's options that change its weight, keep a row of it, or make it sparse."""
    for path, part in module.named_modules():
        if not isinstance(part, nn.Embedding | nn.EmbeddingBag):
            continue
        name = f"{path}.weight".lstrip(".")
        options = {"max_norm": None, "sparse": False}
        if isinstance(part, nn.Embedding):  # a bag leaves that row out
            options["padding_idx"] = None
        for option, plain in options.items():
            if name in generated and getattr(part, option) != plain:
                got = getattr(part, option)
                raise ValueError(f"{name}: generated, so expected {option}={plain}, got {got}")


def _refuse_kind(name: str, parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        raise ValueError(f"{name}: expected real numbers, got {parameter.dtype}")
    if parameter.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense parameter, got {parameter.layout}")
    if parameter.is_meta:
        raise ValueError(f"{name}: expected values to start from, got none (device meta)")
    if not parameter.isfinite().all():
        raise ValueError(f"{name}: expected finite values to start from, got others")
    single = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    if parameter.numel() and not parameter.detach().to(single).std(correction=0).isfinite():
        raise ValueError(f"{name}: expected values of a finite spread, got larger ones")
