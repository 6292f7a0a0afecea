"""How MNIST is fetched, and what is said where it cannot be."""

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import FIRST_FILE, refusing_mirror

from hnetlib.experiment import mnist_files
from hnetlib.experiment.data import DataError, load_data, resolve_dataset
from hnetlib.experiment.paths import data_dir
from report.resolve import main

# Fetching


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
