"""What the settings of a run have to be: one line for the first that is not.

Nothing here changes a number: no run is known by this code (see `identity`).
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import torch

from hnetlib.checks import expect_one_of
from hnetlib.chunks import Piece
from hnetlib.experiment.profiles import methods
from hnetlib.experiment.values import is_number, is_whole
from hnetlib.targets import MLP

LARGEST, LARGEST_RATE = 1e30, 1e36  # far above any use, and float32 has them
LARGEST_SEED = 2**63 - 1  # what PyTorch's generators take
MOST_TASKS = 10_000  # the accuracy matrix alone then takes 0.8 GB
MOST_THREADS = 1024  # more than any machine's cores; PyTorch starts them all, or crashes
FROM_0 = ("seed", "permutation_seed", "generator_tasks", "pixels_with_token")
ABOVE_0 = ("lr", "head_lr_factor", "token_lr_factor", "damping")
AT_LEAST_0 = ("beta", "strength", "frequency")
Rule = tuple[str, bool, str]  # a setting, whether it is sound, and what it should be


def check(config: Any) -> None:
    """ValueError with one line unless the settings of this `Config` are sound, and go together."""
    for name, kind in ((field.name, field.type) for field in fields(config)):
        value = getattr(config, name)
        if kind is str or get_origin(kind) is Literal:
            _expect(config, (name, isinstance(value, str), "a name"))
        if get_origin(kind) is Literal:
            expect_one_of(name, value, methods() if name == "method" else get_args(kind))
    for rules in (_numbers, _places, _of_tokens, _of_method, _of_the_last_layer):
        for rule in rules(config):  # one after the other: a later one builds on those before
            _expect(config, rule)


def _expect(config: Any, rule: Rule) -> None:
    name, sound, expected = rule
    if not sound:
        raise ValueError(f"{name}: expected {expected}, got {getattr(config, name)!r}")


def _numbers(config: Any) -> Iterator[Rule]:
    """Each number by itself."""
    for field in fields(config):
        if field.type is int and field.name not in FROM_0:
            sound = is_whole(getattr(config, field.name), 1)
            yield field.name, sound, "a whole number of at least 1"
    yield "num_tasks", config.num_tasks <= MOST_TASKS, f"at most {MOST_TASKS:,} tasks"
    yield "threads", config.threads <= MOST_THREADS, f"at most {MOST_THREADS:,}"
    for name in FROM_0:
        sound = is_whole(getattr(config, name), 0, LARGEST_SEED)
        yield name, sound, f"a whole number from 0 to {LARGEST_SEED}"
    for name in ABOVE_0:
        value = getattr(config, name)
        yield name, is_number(value) and value > 0, "a number above 0"
    for name in AT_LEAST_0:
        yield name, is_number(getattr(config, name), 0), "a number of at least 0"
    for name in (*ABOVE_0, *AT_LEAST_0):
        yield name, getattr(config, name) <= LARGEST, f"at most {LARGEST:g}"
    for name in ("head_lr_factor", "token_lr_factor"):
        product = config.lr * getattr(config, name)
        yield name, product <= LARGEST_RATE, f"at most {LARGEST_RATE:g} times 1 / lr"
    smooth = is_number(config.label_smoothing, 0) and config.label_smoothing < 1
    yield "label_smoothing", smooth, "a number from 0 to below 1"
    hidden = config.hnet_hidden
    sound = isinstance(hidden, tuple) and all(is_whole(size, 1) for size in hidden)
    yield "hnet_hidden", sound and len(hidden) > 0, "layer sizes of at least 1"
    yield "look_ahead", isinstance(config.look_ahead, bool), "True or False"


def _places(config: Any) -> Iterator[Rule]:
    """Where it computes, and how exactly."""
    yield "device", config.device in ("cpu", "cuda"), "cpu or cuda"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu, since PyTorch finds no CUDA here, got cuda")
    sound = config.precision != "tf32" or config.device == "cuda"
    yield "precision", sound, "float32 or bf16 on a CPU"


def _of_tokens(config: Any) -> Iterator[Rule]:
    """How tasks are told, and what is generated."""
    limit = f"at most one chunk for each of the target's {config.num_weights} weights"
    yield "num_chunks", config.num_chunks <= config.num_weights, limit
    sound = config.frequency == 0 or config.hnet_activation == "sine"
    yield "frequency", sound, "0 where hnet_activation is not sine"
    if config.cut != "flat":
        _try_cut(config)
    by_pixel = config.cut == f"{MLP.pixel_weight}:1" and config.tokens == "chunk"
    sound = config.pixels_with_token == 0 or by_pixel
    yield "pixels_with_token", sound, f"0, or tokens chunk and cut {MLP.pixel_weight}:1"
    limit = f"at most the {config.num_pixels} there are"
    yield "pixels_with_token", config.pixels_with_token <= config.num_pixels, limit
    if config.pixels_with_token:  # old tasks that lack tokens have no snapshots
        yield "generator_tasks", config.generator_tasks == 1, "1 with pixels_with_token"
        sound = config.snapshot == "before_task"
        yield "snapshot", sound, "before_task with pixels_with_token"
    other = config.tokens == "chunk" or config.generator_tasks > 0
    sound = config.head_optimizer == "adam" or not other
    yield "head_optimizer", sound, "adam with tokens chunk or generator_tasks"


def _try_cut(config: Any) -> int:
    """In how many chunks the target's parameters are cut; ValueError unless they can be."""
    with torch.device("meta"):
        target = config.make_target()
    pieces = [Piece((n,), p.shape, p.dtype) for n, p in target.named_parameters()]
    chosen = [piece for piece in pieces if piece.names[0] in config.generate]
    return config.cut_of_target(chosen or pieces, 1).num_chunks


def _of_method(config: Any) -> Iterator[Rule]:
    """What a method can do with."""
    if config.method == "joint-hnet":
        yield "generator_tasks", config.generator_tasks == 0, "0 with joint-hnet"
        yield "head_optimizer", config.head_optimizer == "adam", "adam with joint-hnet"
    if config.method.startswith("joint-"):
        drawn = min(config.tasks_per_batch, config.num_tasks)
        limit = f"at least an image for each of the {drawn} tasks of a batch"
        yield "batch_size", config.batch_size >= drawn, limit
    if config.method == "separate":
        sound = config.target.startswith(("mlp-", "lenet-300-100"))
        yield "target", sound, "a dense network with separate"
    share = config.noise_share
    sound = is_number(share, 0, 0.9) and (share == 0 or config.method == "hnet")
    yield "noise_share", sound, "0 to 0.9, with method hnet"


def _of_the_last_layer(config: Any) -> Iterator[Rule]:
    """What goes with normalised steps of it."""
    if config.head_optimizer != "adam":
        yield "look_ahead", not config.look_ahead, f"False with {config.head_optimizer}"
        units = config.hnet_hidden[-1]
        limit = f"at most the last hidden layer's {units} units with {config.head_optimizer}"
        if config.cut == "flat":
            yield "num_chunks", config.num_chunks <= units, limit
        else:
            yield "cut", _try_cut(config) <= units, f"chunks of {limit}"
