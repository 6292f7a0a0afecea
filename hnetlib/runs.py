"""Run directories: one for each configuration, with its checkpoint and, once finished, its results.

runs/hnet-laptop-s0-1a2b3c4d/
    config.json             every setting
    provenance.json         commit, versions, hardware, date
    checkpoint.pt           the state after the last finished task
    checkpoint.previous.pt  the one before, should the last be damaged
    within.pt               the state within the task that follows (see hnetlib/loop.py)
    metrics.json            written when the run is finished: metrics, matrix R, seconds

A run is known by what can change its result: its settings, data, code and PyTorch's version. Where
it runs (threads, device, hardware) and what its settings are called (the profile) can not, so a
finished run is found again whatever those are.
"""

import ast
import errno
import hashlib
import io
import json
import os
import pickle
import sys
import tempfile
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from hnetlib import paths
from hnetlib.config import Config
from hnetlib.provenance import provenance

ELSEWHERE = ("threads", "device", "profile")  # settings that leave the result as it is
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
RESULTS = {"R", "acc", "bwt", "train_seconds", "eval_seconds"}  # which a finished run has
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
UNKNOWN = dict.fromkeys(("commit", "date", "python", "torch", "hardware"), "unknown")

# Modules that can change the numbers of a run: an edit of their code makes it another run.
# What `profiles` says is in the config already.
NUMERIC_MODULES = (
    "baselines",
    "checks",
    "chunks",
    "config",
    "continual",
    "data",
    "evaluation",
    "generated",
    "hypernet",
    "importance",
    "layers",
    "learner",
    "least_change",
    "loop",
    "mnist_files",
    "plain",
    "regularizer",
    "skeleton",
    "snapshots",
    "squares",
    "step",
    "targets",
    "tasks",
    "tokens",
)


class RunError(RuntimeError):
    """A run cannot be read or written; the message is one line that names the file."""


class DamagedError(RunError):
    """A file is not whole."""


class Run:
    """The directory of one run, known by its config, its data and the code."""

    def __init__(self, config: Config, data_checksum: str) -> None:
        settings = {k: v for k, v in config.as_dict().items() if k not in ELSEWHERE}
        identity = {
            "config": settings,
            "data": data_checksum,
            "code": code_hash(),
            "torch": torch.__version__.split("+")[0],  # without the build
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        self.method, self.config, self.digest = config.method, config, digest
        named = f"{self.method}-{config.profile}-s{config.seed}-{digest}"
        # it may have been begun under another profile's name
        there = sorted(path.name for path in _entries(paths.runs_dir(), f"*-{digest}"))
        self.name = named if named in there or not there else there[0]
        self.directory = paths.runs_dir() / self.name
        log = self.name.removeprefix(f"{self.method}-")
        self.log_dir = paths.logs_dir() / self.method / log

    @property
    def finished(self) -> bool:
        """Whether its results are on disk, whole."""
        return _read_json(self.directory / "metrics.json").keys() >= RESULTS

    @property
    def results(self) -> dict:
        """Contents of metrics.json; RunError before the run is finished."""
        if not self.finished:
            raise RunError(f"{self.directory / 'metrics.json'}: expected a finished run's results")
        return _read_json(self.directory / "metrics.json")

    @property
    def provenance(self) -> dict:
        """Commit, versions, hardware and date of the (last part of the) training."""
        return UNKNOWN | _read_json(self.directory / "provenance.json")

    @property
    def origin(self) -> dict:
        """Where this run's numbers come from, in one table: for `hnetlib.notebook.provenance`."""
        return {
            "run": self.name,
            **self.provenance,
            "seed": self.config.seed,
            "permutation seed": self.config.permutation_seed,
            "training seconds": round(self.results["train_seconds"]),
            "evaluation seconds": round(self.results["eval_seconds"]),
        }

    @property
    def matrix(self) -> np.ndarray:
        """The accuracy matrix R [T, T], NaN where a task was not learned yet."""
        return np.array(self.results["R"], dtype=np.float64)

    def check_places(self) -> None:
        """RunError unless files can be written where the run and its log go."""
        for place, variable in ((self.directory, "HNETLIB_RUNS"), (self.log_dir, "HNETLIB_LOGS")):
            with _one_line(place, f"{variable} names another place"):
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=place) as probe:
                    probe.write(b"probe")

    def start(self) -> None:
        """Writes down what is about to run, and where; call it with the run `locked`."""
        for side in self.directory.glob(".*.part"):  # of a process that was killed
            side.unlink(missing_ok=True)
        if (self.directory / "metrics.json").exists():
            _set_aside(self.directory / "metrics.json", "results that are not whole")
        write_json(self.directory / "config.json", self.config.as_dict())
        write_json(self.directory / "provenance.json", provenance(self.config.device))

    def save_checkpoint(self, state: dict) -> None:
        """Puts a checkpoint in place of the last one, which stays as the one before.

        Killed at any point it leaves one that `load_checkpoint` finds.
        """
        current = self.directory / CHECKPOINT
        with _side_file(current) as side:
            _write_tensors(side, state | {"run": self.digest})
            if current.exists():
                os.replace(current, self.directory / PREVIOUS)

    def load_checkpoint(self, device: str = "cpu") -> dict | None:
        """The last whole checkpoint; None if there is none. Damaged ones are set aside."""
        last = self.load_tensors(CHECKPOINT, device)
        return self.load_tensors(PREVIOUS, device) if last is None else last

    def save_tensors(self, name: str, state: dict) -> None:
        """Replaces a file of the directory in one step."""
        with _side_file(self.directory / name) as side:
            _write_tensors(side, state | {"run": self.digest})

    def load_tensors(self, name: str, device: str = "cpu") -> dict | None:
        """What `save_tensors` wrote; None if there is nothing, or nothing whole of this run."""
        path = self.directory / name
        if not path.exists():
            return None
        try:
            state = read_tensors(path, device)
            if state.get("run") == self.digest:
                return state
            flaw = "it is of a run with other settings, data or code"
        except DamagedError:
            flaw = "it is damaged"
        _set_aside(path, flaw)
        return None

    def finish(self, results: dict) -> None:
        """Writes the results: from now on the run is finished."""
        write_json(self.directory / "metrics.json", results)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run against a second process that would train it too: that one waits."""
        lock = FileLock(self.directory / "lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"run {self.name}: waiting for another process that trains it", flush=True)
                lock.acquire()
        except (OSError, NotImplementedError) as error:  # some network disks have no locks
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise RunError(f"{lock.lock_file} can't be locked: {_why(error)}") from error
            print(f"run {self.name}: not locked, as {lock.lock_file} can't be: {_why(error)}")
        try:
            yield
        finally:
            lock.release()


def write_tensors(path: Path, content: dict) -> None:
    """Writes a dictionary with tensors to a side file, then puts it in place in one step."""
    with _side_file(path) as side:
        _write_tensors(side, content)


def read_tensors(path: Path, device: str = "cpu") -> dict:
    """What `write_tensors` wrote; DamagedError where it is not whole, RunError if unreadable."""
    with _one_line(path):
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


def _write_tensors(side: Path, state: dict) -> None:
    content = io.BytesIO()  # torch.save itself would hide why a disk can't be written
    torch.save(state, content)
    _write(side, content.getbuffer())


def write_json(path: Path, content: dict | list, indent: int | None = 1) -> None:
    """Writes JSON to a side file, then puts it in place in one step.

    NaN and the infinities, which JSON does not have, become null.
    """
    text = json.dumps(_plain(content), indent=indent, allow_nan=False) + "\n"
    with _side_file(path) as side:
        _write(side, text.encode())


@contextmanager
def _side_file(path: Path) -> Iterator[Path]:
    """A file to write, which is then put at `path` in one step; RunError names what can't be."""
    side = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _one_line(path):
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
def _one_line(path: Path, hint: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        more = f"; {hint}" if hint else ""
        raise RunError(f"{path} can't be read or written: {_why(error)}{more}") from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _set_aside(path: Path, flaw: str) -> None:
    """Renames a file that is of no use, and says so."""
    kept = path.with_name(f"{path.stem}.damaged{path.suffix}")
    with _one_line(path):
        os.replace(path, kept)
    print(f"{path} is not used: {flaw}; kept as {kept.name}", file=sys.stderr, flush=True)


def _entries(place: Path, pattern: str) -> list[Path]:
    """What is there; nothing where the place can't be read."""
    try:
        return list(place.glob(pattern)) if place.is_dir() else []
    except OSError:
        return []


def _read_json(path: Path) -> dict:
    """Its content; an empty dictionary if there is none, or none that is whole."""
    try:
        with _one_line(path):  # a file that is there and can't be read is not one to make again
            content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def matrix_rows(R: np.ndarray) -> list[list[float | None]]:
    """R as JSON-ready rows, null where it is NaN."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]


def code_hash(modules: tuple[str, ...] = NUMERIC_MODULES) -> str:
    """Hash of what these modules say, without comments, docstrings and blank lines.

    It is one of text and not of syntax trees, which differ between versions of Python.
    """
    digest = hashlib.sha256()
    for module in modules:
        source = (paths.PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        digest.update(_code_of(source).encode())
    return digest.hexdigest()


def _code_of(source: str) -> str:
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:  # which reaches to the end of its line
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for row in range(node.lineno, node.end_lineno + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _plain(value: object) -> object:
    """`value` as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
