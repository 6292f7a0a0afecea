"""Run directories: one for each configuration, with its checkpoint and, once finished, its results.

runs/hnet-laptop-s0-1a2b3c4d5e6f/
    config.json             every setting
    provenance.json         commit, versions, hardware, date
    checkpoint.pt           the state after the last finished task
    checkpoint.previous.pt  the one before, should the last be damaged
    within.pt               the state within the task that follows (see hnetlib/experiment/loop.py)
    metrics.json            written when the run is finished: metrics, matrix R, seconds

A run is known by what can change its result: its settings, data, PyTorch's version and the code of
its method (`identity`). Where it runs (threads, device, hardware) and what its settings are called
(the profile) can not, so a finished run is found again whatever those are.
"""

import hashlib
import json
import os
import tempfile
from contextlib import AbstractContextManager, suppress

import numpy as np
import torch

from hnetlib.experiment import paths
from hnetlib.experiment.config import Config
from hnetlib.experiment.files import (
    RunError,
    entries,
    fill_with_tensors,
    locked,
    one_line,
    read_json,
    read_sound,
    read_tensors,
    set_aside,
    side_file,
    write_json,
)
from hnetlib.experiment.identity import code_hash
from hnetlib.experiment.provenance import provenance

ELSEWHERE = ("threads", "device", "profile")  # settings that leave the result as it is
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
RESULTS = {"R", "acc", "bwt", "train_seconds", "eval_seconds"}  # which a finished run has
UNKNOWN = dict.fromkeys(("commit", "date", "python", "torch", "hardware"), "unknown")


class Run:
    """The directory of one run, known by its config, its data and the code."""

    def __init__(self, config: Config, data_checksum: str) -> None:
        self.method, self.config = config.method, config
        identity = identity_of(config, data_checksum)
        self.digest = _digest(identity)
        # of all runs that differ from this one in how many tasks they learn alone
        self.family = _digest(identity | {"config": identity["config"] | {"num_tasks": None}})
        digest = self.digest
        named = f"{self.method}-{config.profile}-s{config.seed}-{digest}"
        # it may have been begun under another profile's name
        there = [named] if (paths.runs_dir() / named).is_dir() else []
        there = there or sorted(path.name for path in entries(paths.runs_dir(), f"*-{digest}"))
        self.name = there[0] if there else named
        self.directory = paths.runs_dir() / self.name
        log = self.name.removeprefix(f"{self.method}-")
        self.log_dir = paths.logs_dir() / self.method / log

    @property
    def finished(self) -> bool:
        """Whether its results are on disk, whole."""
        return read_json(self.directory / "metrics.json").keys() >= RESULTS

    @property
    def results(self) -> dict:
        """Contents of metrics.json; RunError before the run is finished."""
        if not self.finished:
            raise RunError(f"{self.directory / 'metrics.json'}: expected a finished run's results")
        return read_json(self.directory / "metrics.json")

    @property
    def provenance(self) -> dict:
        """Commit, versions, hardware and date of the (last part of the) training."""
        written = read_json(self.directory / "provenance.json")
        return {name: written.get(name, unknown) for name, unknown in UNKNOWN.items()}

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
            with one_line(place, f"{variable} names another place"):
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=place) as probe:
                    probe.write(b"probe")

    def start(self) -> None:
        """Writes down what is about to run, and where; call it with the run `locked`."""
        for side in self.directory.glob(".*.part"):  # of a process that was killed
            side.unlink(missing_ok=True)
        if (self.directory / "metrics.json").exists():
            set_aside(self.directory / "metrics.json", "results that are not whole")
        write_json(self.directory / "config.json", self.config.as_dict())
        here = provenance(self.config.device) | {"family": self.family}
        write_json(self.directory / "provenance.json", here)

    def save_checkpoint(self, state: dict) -> None:
        """Puts a checkpoint in place of the last one, which stays as the one before.

        Killed at any point it leaves one that `load_checkpoint` finds.
        """
        current = self.directory / CHECKPOINT
        with side_file(current) as side:
            fill_with_tensors(side, state | {"run": self.digest})
            if current.exists():
                os.replace(current, self.directory / PREVIOUS)

    def load_checkpoint(self, device: str = "cpu") -> dict | None:
        """The last whole checkpoint; None if there is none. Damaged ones are set aside."""
        last = self.load_tensors(CHECKPOINT, device)
        return self.load_tensors(PREVIOUS, device) if last is None else last

    def load_shorter(self, device: str = "cpu") -> dict | None:
        """The checkpoint of the run of fewer tasks, all else equal, that got furthest; or None.

        Only where it measured all its tasks last when this run will too.
        """
        longest = None
        for config in entries(paths.runs_dir(), f"{self.method}-*/config.json"):
            place, num_tasks = config.parent, read_json(config).get("num_tasks", 0)
            if read_json(place / "provenance.json").get("family") != self.family:
                continue
            if not isinstance(num_tasks, int):  # a damaged file
                continue
            if num_tasks >= self.config.num_tasks or num_tasks % self.config.eval_every:
                continue
            with suppress(RunError):
                state = read_tensors(place / CHECKPOINT, device)
                if state.get("run") != place.name.rpartition("-")[2]:
                    continue  # put there from another run
                if longest is None or state["num_learned"] > longest["num_learned"]:
                    longest = state
        return longest

    def save_tensors(self, name: str, state: dict) -> None:
        """Replaces a file of the directory in one step."""
        with side_file(self.directory / name) as side:
            fill_with_tensors(side, state | {"run": self.digest})

    def load_tensors(self, name: str, device: str = "cpu") -> dict | None:
        """What `save_tensors` wrote; None if there is nothing, or nothing whole of this run."""
        other = "it is of a run with other settings, data or code"
        return read_sound(
            self.directory / name,
            device,
            lambda state: None if state.get("run") == self.digest else other,
        )

    def finish(self, results: dict) -> None:
        """Writes the results: from now on the run is finished."""
        write_json(self.directory / "metrics.json", results)

    def locked(self) -> AbstractContextManager[None]:
        """Holds the run against a second process that would train it too: that one waits."""
        return locked(self.directory / "lock", f"run {self.name}")


def identity_of(config: Config, data_checksum: str) -> dict:
    """All that can change what comes of a config: its settings, data, code, PyTorch's version."""
    return {
        "config": {k: v for k, v in config.as_dict().items() if k not in ELSEWHERE},
        "data": data_checksum,
        "code": code_hash(config.method),
        "torch": torch.__version__.split("+")[0],  # without the build
    }


def _digest(identity: dict) -> str:
    """48 bits: that any two of a million runs have one has a chance of 1 in 500."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def matrix_rows(R: np.ndarray) -> list[list[float | None]]:
    """R as JSON-ready rows, null where it is NaN."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]
