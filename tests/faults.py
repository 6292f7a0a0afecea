"""`make faults`: kill training at random instants, go on, and compare with a run never stopped.

    python tests/faults.py --kills 50 --reports 2

Each of three configurations is trained once undisturbed. Then the same is killed (SIGKILL) at
random instants, within tasks and between them, and started again until it is finished: its results
and its network must be the same to the bit. Two processes that train one run at once must train it
once. `--reports`: so many times `make report` (profile smoke) is killed on its way, with one and
with two chapters at a time, and run again.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hnetlib.experiment import loop, paths
from hnetlib.experiment.config import Config, make_config
from hnetlib.experiment.learner import train_or_load

ROOT = paths.PACKAGE.parent
SECONDS_BETWEEN = 0.02  # checkpoints within a task, so that most kills leave one behind
CONFIGS = {
    "least change": {"profile": "smoke"},
    "whole tasks, snapshots when learned": {
        "profile": "smoke-plain",
        "penalty": "tasks",
        "penalty_size": 1,
        "snapshot": "at_learning",
    },
    "SI": {"profile": "smoke-plain", "method": "si"},
}
# a child is forked with PyTorch loaded, so that a kill falls into training and not into imports
FORK = multiprocessing.get_context("fork")


def start(config: Config, place: Path) -> multiprocessing.Process:
    """A process that trains `config` with its runs and logs in `place`."""

    def train() -> None:
        os.environ |= {"HNETLIB_RUNS": str(place / "runs"), "HNETLIB_LOGS": str(place / "logs")}
        loop.SECONDS_BETWEEN_CHECKPOINTS = SECONDS_BETWEEN
        train_or_load(config, progress=False)

    process = FORK.Process(target=train)
    process.start()
    return process


def outcome(place: Path) -> dict:
    """What must be equal of the one finished run in `place`: its results and its network."""
    (directory,) = (place / "runs").iterdir()
    results = json.loads((directory / "metrics.json").read_text())
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    digest = hashlib.sha256()
    for name, value in state["network"].items():
        digest.update(name.encode() + value.numpy().tobytes())
    kept = {name: value for name, value in results.items() if not name.endswith("_seconds")}
    return kept | {"network": digest.hexdigest(), "history": state["history"]}


def is_within_a_task(directory: Path) -> bool:
    """Whether what is on disk goes on within a task, and not where the last one was learned."""
    parts = [directory / name for name in ("within.pt", "checkpoint.pt")]
    states = [torch.load(part, weights_only=True) if part.exists() else {} for part in parts]
    return states[0].get("task") == states[1].get("num_learned", 0)


def kill_and_go_on(config: Config, kills: int, chance: random.Random, folder: Path) -> int:
    """Checks one configuration; returns how many kills found a state within a task on disk."""
    began = time.monotonic()
    start(config, folder / "whole").join()
    seconds, expected = time.monotonic() - began, outcome(folder / "whole")
    done = within = runs = 0
    while done < kills:
        place, runs = folder / f"killed {runs}", runs + 1
        finished = False
        while not finished:
            process = start(config, place)
            # once all kills are spent, the last run may finish
            process.join(chance.uniform(0, seconds) if done < kills else None)
            finished = not process.is_alive()
            if not finished:
                process.kill()
                process.join()
                done += 1
                within += any(map(is_within_a_task, place.glob("runs/*")))
        assert process.exitcode == 0, f"{place}: ended with {process.exitcode}"
        assert outcome(place) == expected, f"{place}: differs from the run never stopped"
    return within


def train_twice_at_once(config: Config, folder: Path) -> None:
    """Two processes, one run: the second waits for the first and reads what it made."""
    start(config, folder / "alone").join()
    both = [start(config, folder / "both") for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert outcome(folder / "both") == outcome(folder / "alone")


def kill_a_report(jobs: int, chance: random.Random, folder: Path) -> None:
    """`make report` of a copy of this checkout, killed three times on its way, then run again."""
    copy = folder / f"report {jobs}"
    shutil.copytree(ROOT, copy, ignore=_made_here)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    places = {"HNETLIB_RUNS": str(copy / "runs"), "HNETLIB_LOGS": str(copy / "logs")}
    command = ["make", "report", "ENV=active", "PROFILE=smoke", f"JOBS={jobs}"]
    settings = {"cwd": copy, "env": os.environ | places | {"PATH": path}, "text": True}
    for _ in range(3):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, **settings
        )
        time.sleep(chance.uniform(5, 40))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (copy / "report" / "build" / "report.html").stat().st_size > 500_000
    assert not list(copy.glob("runs/*/.*.part")), "half-written files are left"


def _made_here(folder: str, names: list[str]) -> set[str]:
    """What a fresh checkout does not have; `runs` of committed results it has."""
    top = {".git", ".venv", "runs", "data"} if Path(folder) == ROOT else set()
    return (top | {"build", "__pycache__"}) & set(names)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or an AssertionError that says what differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--reports", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, settings) in enumerate(CONFIGS.items()):
            config = make_config(dataset="mnist5k", threads=1, **settings)
            kills = len(range(number, options.kills, len(CONFIGS)))
            within = kill_and_go_on(config, kills, chance, Path(scratch, name))
            print(f"{name}: {kills} kills, {within} with a state within a task: equal", flush=True)
        train_twice_at_once(config, Path(scratch, "two"))
        print("two processes on one run: trained once, equal", flush=True)
        for number in range(options.reports):
            kill_a_report(1 + number % 2, chance, Path(scratch))
            print(f"make report, {1 + number % 2} at a time: killed 3 times, whole", flush=True)
    print(f"all as if never stopped, in {time.monotonic() - began:.0f} s (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
