"""Images and labels as tensors in memory: MNIST, or scikit-learn's bundled digits.

MNIST's files are checked, and downloaded when they are absent, by `hnetlib.mnist_files`.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torchvision import datasets

from hnetlib import mnist_files
from hnetlib.config import Dataset, Split, expect_one_of
from hnetlib.mnist_files import DataError
from hnetlib.paths import data_dir

MNIST_VALIDATION = 10_000  # the last training images
DIGITS_SHARE = 0.2  # of the images for the test, and of the rest for validation

__all__ = ["DataError", "ImageData", "load_data", "resolve_dataset"]


@dataclass(frozen=True)
class ImageData:
    """Training and evaluation images of one data set; `eval` is what accuracy is measured on."""

    name: str  # "mnist" or "digits"
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
    """The name of the data set to use, "mnist" or "digits"; MNIST is downloaded when absent.

    "auto" is MNIST if it can be had, else the digits, with the reason on stderr. "mnist" raises a
    DataError where it cannot be had; a damaged file is a DataError for both.
    """
    expect_one_of("dataset", dataset, ("auto", *get_args(Dataset)))
    if dataset == "digits":
        return "digits"
    root = data_dir()
    absent = mnist_files.missing_files(root, mnist_files.FILES)
    if dataset == "auto" and absent and mnist_files.falls_back(root):
        return "digits"
    mnist_files.ensure(root, mnist_files.FILES)
    return "mnist"


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
    data = _load_mnist(data_dir(), split) if dataset == "mnist" else _load_digits(split)
    return data.to(device)


def _load_mnist(root: Path, split: str) -> ImageData:
    names = [name for name in mnist_files.FILES if split == "test" or name.startswith("train")]
    mnist_files.ensure(root, names)
    reader = mnist_files.reader_class(names)
    train = _flat(reader(root, train=True))
    if split == "test":
        evaluation = _flat(reader(root, train=False))
    else:
        evaluation = [part[-MNIST_VALIDATION:] for part in train]
        train = [part[:-MNIST_VALIDATION] for part in train]
    sizes = f"{len(train[1])} {len(evaluation[1])}"
    checksum = _checksum("mnist", split, sizes, *(mnist_files.FILES[name][1] for name in names))
    return ImageData("mnist", *train, *evaluation, 28, 10, checksum, split)


def _flat(part: datasets.MNIST) -> list[Tensor]:
    return [part.data.flatten(1).float() / 255, part.targets]  # [N, 28 * 28], [N]


def _load_digits(split: str) -> ImageData:
    from sklearn.datasets import load_digits  # takes a second: only when needed
    from sklearn.model_selection import train_test_split

    def halves(images, labels):
        return train_test_split(
            images, labels, test_size=DIGITS_SHARE, random_state=0, stratify=labels
        )

    images, test_images, labels, test_labels = halves(*load_digits(return_X_y=True))
    if split == "validation":
        images, test_images, labels, test_labels = halves(images, labels)
    train = [torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long()]
    evaluation = [torch.from_numpy(test_images / 16).float(), torch.from_numpy(test_labels).long()]
    arrays = (part.numpy().tobytes() for part in (*train, *evaluation))
    checksum = _checksum("digits", split, *arrays)
    return ImageData("digits", *train, *evaluation, 8, 10, checksum, split)


def _checksum(*parts: str | bytes) -> str:
    digests = [hashlib.sha256(p.encode() if isinstance(p, str) else p).digest() for p in parts]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]
