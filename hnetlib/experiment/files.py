"""Files written whole or not at all, and read only where they are whole.

Each goes to a side file first, which then takes its place in one step: a process that is killed, or
a disk that is full, leaves what was there before. What can't be done is a RunError of one line.
"""

import errno
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunError(RuntimeError):
    """A run cannot be read or written; the message is one line that names the file."""


class DamagedError(RunError):
    """A file is not whole."""


def write_tensors(path: Path, content: dict) -> None:
    """Writes a dictionary with tensors to a side file, then puts it in place in one step."""
    with side_file(path) as side:
        fill_with_tensors(side, content)


def read_tensors(path: Path, device: str = "cpu") -> dict:
    """What `write_tensors` wrote; DamagedError where it is not whole, RunError if unreadable."""
    with one_line(path):
        content = io.BytesIO(path.read_bytes())
    if not _is_whole(content):  # torch.load does not look at checksums
        raise DamagedError(f"{path} is damaged")
    try:
        state = torch.load(content, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        state = None
    except (RuntimeError, MemoryError) as error:  # a whole file where memory is short, say
        if "PytorchStreamReader" in str(error):  # damage between the parts
            raise DamagedError(f"{path} is damaged") from error
        raise RunError(f"{path} can't be loaded: {' '.join(str(error).split())}") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is not what was written here")
    return state


def _is_whole(content: io.BytesIO) -> bool:
    """Whether it is an archive in which every part has its checksum."""
    try:
        with zipfile.ZipFile(content) as archive:
            return bool(archive.namelist()) and archive.testzip() is None
    except MemoryError:
        raise
    except Exception:  # what damage raises depends on where it is
        return False
    finally:
        content.seek(0)


def fill_with_tensors(side: Path, state: dict) -> None:
    content = io.BytesIO()  # torch.save itself would hide why a disk can't be written
    torch.save(state, content)
    _write(side, content.getbuffer())


def write_json(path: Path, content: dict | list, indent: int | None = 1) -> None:
    """Writes JSON to a side file, then puts it in place in one step.

    NaN and the infinities, which JSON does not have, become null.
    """
    text = json.dumps(_plain(content), indent=indent, allow_nan=False) + "\n"
    with side_file(path) as side:
        _write(side, text.encode())


@contextmanager
def side_file(path: Path) -> Iterator[Path]:
    """A file to write, which is then put at `path` in one step; RunError names what can't be."""
    side = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with one_line(path):
            yield side
            os.replace(side, path)
    finally:
        with suppress(OSError):
            side.unlink(missing_ok=True)


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a crash could leave an empty file under the final name


@contextmanager
def one_line(path: Path, hint: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        more = f"; {hint}" if hint else ""
        raise RunError(f"{path} can't be read or written: {why(error)}{more}") from error


@contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Holds a lock file against a second process that would do the same: that one waits."""
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{name}: waiting for another process that trains it", flush=True)
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # some network disks have no locks
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise RunError(f"{path} can't be locked: {why(error)}") from error
        print(f"{name}: not locked, as {path} can't be: {why(error)}")
    try:
        yield
    finally:
        lock.release()


def why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def set_aside(path: Path, flaw: str) -> None:
    """Renames a file that is of no use, and says so."""
    kept = path.with_name(f"{path.stem}.damaged{path.suffix}")
    with one_line(path):
        os.replace(path, kept)
    print(f"{path} is not used: {flaw}; kept as {kept.name}", file=sys.stderr, flush=True)


def read_sound(path: Path, device: str, flaw_of: Callable[[dict], str | None]) -> dict | None:
    """What `write_tensors` wrote; None where there is nothing, or it is of no use and set aside.

    That is what is damaged, and what `flaw_of` has a word for: it returns None where all is well.
    """
    if not path.exists():
        return None
    try:
        content = read_tensors(path, device)
        flaw = flaw_of(content)
        if flaw is None:
            return content
    except DamagedError:
        flaw = "it is damaged"
    set_aside(path, flaw)
    return None


def entries(place: Path, pattern: str) -> list[Path]:
    """What is there; nothing where the place can't be read."""
    try:
        return list(place.glob(pattern)) if place.is_dir() else []
    except OSError:
        return []


def read_json(path: Path) -> dict:
    """Its content; an empty dictionary if there is none, or none that is whole."""
    try:
        with one_line(path):  # a file that is there and can't be read is not one to make again
            content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _plain(value: object) -> object:
    """`value` as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
