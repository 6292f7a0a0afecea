"""MNIST's four files: there, sound, or fetched.

They are used only when size and md5 are those of the originals. Absent ones are downloaded, with
a bounded wait, beside their place and moved there when all are sound.
"""

import hashlib
import os
import queue
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path

from torchvision import datasets

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


def missing_files(root: Path, names: Iterable[str]) -> list[str]:
    """Those of the named files that are not there at all."""
    return [name for name in names if not os.path.exists(raw_dir(root) / name)]


def ensure(root: Path, names: Iterable[str]) -> None:
    """Downloads MNIST if one of these files is missing; DataError if one is damaged."""
    missing = missing_files(root, names)
    _check_files(root, [name for name in names if name not in missing])
    if missing:
        _fetch(root, missing)


def _check_files(root: Path, names: Iterable[str]) -> None:
    flaws = []
    for name in names:
        path, (size, md5) = raw_dir(root) / name, FILES[name]
        try:
            found_size, found_md5 = path.stat().st_size, None
            if found_size == size:
                with path.open("rb") as file:
                    found_md5 = hashlib.file_digest(file, _md5).hexdigest()
        except OSError as error:
            raise DataError(f"MNIST file {path} cannot be read: {_reason(error)}") from error
        if found_size != size:
            flaws.append(f"{path} (expected {size} bytes, got {found_size})")
        elif found_md5 != md5:
            flaws.append(f"{path} (expected md5 {md5}, got {found_md5})")
    if flaws:
        raise DataError(
            f"damaged MNIST file: {', '.join(flaws)}; replace it by the original, or delete it "
            f"to have it downloaded again"
        )


def _md5():
    return hashlib.md5(usedforsecurity=False)


@cache  # one search for mirrors and one announcement a process
def falls_back(root: Path) -> bool:
    """Whether MNIST cannot be had although all was tried; the reason goes to stderr."""
    try:
        ensure(root, FILES)
    except MissingDataError as error:
        print(f"using scikit-learn's bundled digits: {error}", file=sys.stderr)
        return True
    return False


def _fetch(root: Path, missing: list[str]) -> None:
    """Downloads all of MNIST beside its place, and moves it there when every file is sound."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=root, prefix=".mnist-download-")
    except OSError as error:
        raise _missing_error(
            root, missing, f"nothing can be written in {root}: {_reason(error)}"
        ) from None
    with scratch:
        failures = _probe_mirrors()
        for mirror in [mirror for mirror in MIRRORS if mirror not in failures]:
            print(f"downloading MNIST from {mirror}", file=sys.stderr)
            copy = Path(scratch.name, str(len(failures)))
            try:
                _download(mirror, copy)
            except (OSError, RuntimeError, HTTPException) as error:
                failures[mirror] = _reason(error)
            else:
                return _move_files(raw_dir(copy), raw_dir(root))
    tried = "; ".join(f"{mirror}: {failure}" for mirror, failure in failures.items())
    raise _missing_error(root, missing, f"no mirror could give it ({tried})")


def _missing_error(root: Path, missing: list[str], why: str) -> MissingDataError:
    lacking = "" if len(missing) == len(FILES) else f" (missing: {', '.join(missing)})"
    return MissingDataError(
        f"MNIST is not in {raw_dir(root)}{lacking} and {why}; to use it, put the four extracted "
        f"files there: {', '.join(FILES)}"
    )


def _download(mirror: str, root: Path) -> None:
    with _socket_timeout(STALL_SECONDS):
        reader_class(FILES, mirror)(root, download=True)
    _check_files(root, FILES)


def _move_files(source: Path, place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            os.replace(source / name, place / name)
    except OSError as error:
        raise DataError(f"downloaded MNIST cannot be put in {place}: {_reason(error)}") from error


def reader_class(names: Iterable[str], *mirrors: str) -> type[datasets.MNIST]:
    """torchvision's MNIST that knows these files and mirrors alone."""
    archives = [(file, md5) for file, md5 in ARCHIVES if file.removesuffix(".gz") in names]

    class MNIST(datasets.MNIST):  # its name is that of the directory
        resources = archives

        def _check_legacy_exist(self) -> bool:
            return False  # an old `processed` directory was never checked: not read

    MNIST.mirrors = list(mirrors)
    return MNIST


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
