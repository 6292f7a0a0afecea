"""Run directories: one for each configuration, with its checkpoint and, once finished, its results.

runs/hnet-laptop-s0-1a2b3c4d/
    config.json       every setting
    provenance.json   commit, versions, hardware, date
    checkpoint.pt     the state after the last finished task
    metrics.json      written when the run is finished: metrics, matrix R, seconds
"""

import ast
import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hnetlib import paths
from hnetlib.config import Config
from hnetlib.provenance import provenance

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
    "plain",
    "regularizer",
    "skeleton",
    "snapshots",
    "squares",
    "step",
    "targets",
    "tasks",
)


class Run:
    """The directory of one run, known by its config, its data and the code."""

    def __init__(self, config: Config, data_checksum: str) -> None:
        identity = {
            "config": config.as_dict(),
            "data": data_checksum,
            "code": code_hash(),
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        self.method, self.config = config.method, config
        self.name = f"{self.method}-{config.profile}-s{config.seed}-{digest}"
        self.directory = paths.runs_dir() / self.name
        self.log_dir = paths.logs_dir() / self.method / f"{config.profile}-s{config.seed}-{digest}"

    @property
    def finished(self) -> bool:
        """Whether its results are on disk."""
        return (self.directory / "metrics.json").is_file()

    @property
    def results(self) -> dict:
        """Contents of metrics.json; FileNotFoundError before the run is finished."""
        return json.loads((self.directory / "metrics.json").read_text())

    @property
    def provenance(self) -> dict:
        """Commit, versions, hardware and date of the (last part of the) training."""
        return json.loads((self.directory / "provenance.json").read_text())

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

    def start(self) -> None:
        """Makes the directory and writes down what is about to run, and where."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / "config.json", self.config.as_dict())
        write_json(self.directory / "provenance.json", provenance())

    def save_checkpoint(self, state: dict) -> None:
        """Replaces the checkpoint in one step: a reader sees the old one or the new one."""
        write_tensors(self.directory / "checkpoint.pt", state)

    def load_checkpoint(self, device: str = "cpu") -> dict | None:
        """The last checkpoint, or None if there is none."""
        path = self.directory / "checkpoint.pt"
        return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None

    def finish(self, results: dict) -> None:
        """Writes the results: from now on the run is finished."""
        write_json(self.directory / "metrics.json", results)

    @contextmanager
    def locked(self):
        """Holds the run against a second process that would train it too: that one waits."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"run {self.name}: waiting for another process that trains it", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_tensors(path: Path, content: dict) -> None:
    """Writes a dictionary with tensors to a side file, then puts it in place in one step."""
    side = path.with_suffix(".part")
    torch.save(content, side)
    os.replace(side, path)


def write_json(path: Path, content: dict | list, indent: int | None = 1) -> None:
    """Writes JSON to a side file, then puts it in place in one step. NaN becomes null."""
    side = path.with_suffix(".part")
    side.write_text(json.dumps(content, indent=indent, default=_plain) + "\n")
    os.replace(side, path)


def matrix_rows(R: np.ndarray) -> list[list[float | None]]:
    """R as JSON-ready rows, null where it is NaN."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]


def code_hash(modules: tuple[str, ...] = NUMERIC_MODULES) -> str:
    """Hash of what these modules do: their syntax trees without comments and docstrings."""
    digest = hashlib.sha256()
    for module in modules:
        tree = ast.parse((paths.PACKAGE / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                node.body = [part for part in node.body if not _is_text(part)]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
