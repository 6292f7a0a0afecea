"""How long `make report` will take, said before it starts, and what is left as it goes.

    python -m report.estimate --profile laptop --jobs 2 --threads 1 --plan PLAN \\
        --pairs SOURCE EXECUTED ... --library ...

`report/reference/<profile>/times.json` says of each data set how long each chapter took in a cold
run, and how long a training step took on that machine; the same step is timed here, and scales it.
Without it the last run in `report/build/` is taken. Chapters that are up to date take no time. The
plan is a file that report/execute.py reads. `--record` writes a data set's times after a cold run:

    python -m report.estimate --profile laptop --plan report/build/laptop-mnist5k --record
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hnetlib.experiment.paths import reference_dir

TIMES = "times.json"
SECONDS = 1.5  # of timing


def seconds_of(executed: Path) -> float | None:
    """How long an executed notebook took; None where there is none, or none that says so."""
    try:
        notebook = json.loads(executed.read_text(encoding="utf-8"))
        return float(notebook["metadata"]["papermill"]["duration"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_current(source: Path, executed: Path, library: Sequence[Path]) -> bool:
    """Whether make leaves this chapter as it is: it is newer than all that it is made from."""
    if not executed.is_file():
        return False
    made = executed.stat().st_mtime_ns
    return all(file.stat().st_mtime_ns <= made for file in (source, *library))


def together(seconds: Sequence[float], jobs: int) -> float:
    """Seconds until all are done, `jobs` at a time, the longest first."""
    lanes = [0.0] * jobs
    for each in sorted(seconds, reverse=True):
        lanes[lanes.index(min(lanes))] += each
    return max(lanes)


def step_milliseconds(profile: str, threads: int, seconds: float = SECONDS) -> float:
    """Median milliseconds of a profile's training step on this machine, ten tasks behind it."""
    import torch  # only when something is timed

    from hnetlib.experiment.config import Config, defaults
    from hnetlib.experiment.hnet_learner import Learner
    from hnetlib.experiment.step import TrainingStep, prepare_torch

    config = Config(**defaults(profile, "mnist5k") | {"num_tasks": 11, "threads": threads})
    prepare_torch(config)
    images = torch.rand(config.batch_size, config.num_pixels)
    labels = torch.randint(10, (config.batch_size,))
    learner, times, end = Learner(config, tasks=None), [], time.perf_counter() + seconds
    regularizer = learner.regularizer
    regularizer.old_tasks = list(range(10))
    for task in regularizer.old_tasks:
        learner.hnet.freeze_token(task)
    with regularizer.learning(10):
        step = TrainingStep(config, learner.hnet, regularizer, 10)
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            step(images, labels, regularizer.draw())
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def committed_seconds(profile: str, run: str, milliseconds: float) -> dict[str, float]:
    """Seconds of each chapter in a cold `run`, as laptop-mnist, at the speed measured, if known."""
    try:
        times = json.loads((reference_dir(profile) / TIMES).read_text(encoding="utf-8"))[run]
        factor = milliseconds / times["step_ms"]
        return {name: factor * seconds for name, seconds in times["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return {}


def record(profile: str, folder: Path) -> None:
    """Puts the times of the executed notebooks and the plan in `folder` into times.json."""
    from hnetlib.experiment.files import write_json
    from hnetlib.experiment.provenance import provenance

    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    seconds = {name: round(seconds_of(folder / name), 1) for name in plan["expected"]}
    content = {name: plan[name] for name in ("step_ms", "threads", "jobs")} | provenance()
    place = reference_dir(profile) / TIMES
    others = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    write_json(place, others | {folder.name: content | {"seconds": seconds}})


def make_plan(
    pairs: Sequence[tuple[Path, Path]], library: Sequence[Path], profile: str, milliseconds: float
) -> dict[str, float | None]:
    """Seconds expected of each chapter that must run, by the name of its notebook."""
    known = committed_seconds(profile, pairs[0][1].parent.name, milliseconds) if pairs else {}
    return {
        made.name: known.get(made.name) or seconds_of(made)
        for source, made in pairs
        if not is_current(source, made, library)
    }


def describe(expected: dict[str, float | None], num_chapters: int, jobs: int) -> str:
    """The line that is printed before chapters run."""
    if not expected:
        return "every chapter is up to date: seconds"
    count = f"{len(expected)} of {num_chapters} chapters to run, {jobs} at a time"
    if None in expected.values():
        return f"{count}: no measured time for this profile yet"
    return (
        f"{count}: about {said(together(list(expected.values()), jobs))} at this machine's speed, "
        "less for finished runs"
    )


def said(seconds: float) -> str:
    """A duration in whole minutes, or in seconds where it is short."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def left(folder: Path) -> str:
    """What is left of the plan in `folder`, "" where there is none or nothing is left.

    The plan is stretched by how much longer finished chapters took than it said.
    """
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        expected, begun, jobs = plan["expected"], plan["begun"], plan["jobs"]
        done = [n for n in expected if (p := folder / n).is_file() and p.stat().st_mtime >= begun]
        took = sum(seconds_of(folder / name) or 0.0 for name in done)
        pace = took / sum(expected[name] for name in done) if done else 1.0
        remaining = pace * together(list(expected.values()), jobs) - (time.time() - begun)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return ""
    waiting = len(expected) - len(done)
    return f"{waiting} to go, about {said(max(remaining, 1.0))}" if waiting else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plan", type=Path, required=True, help="folder of executed notebooks")
    parser.add_argument("--pairs", nargs="*", type=Path, default=[])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--library", nargs="*", type=Path, default=[])
    options = parser.parse_args(arguments)
    if options.record:
        record(options.profile, options.plan)
        return 0
    pairs = list(zip(options.pairs[::2], options.pairs[1::2], strict=True))
    waiting = any(not is_current(*pair, options.library) for pair in pairs)
    milliseconds = step_milliseconds(options.profile, options.threads) if waiting else 0.0
    expected = make_plan(pairs, options.library, options.profile, milliseconds)
    print(describe(expected, len(pairs), options.jobs), flush=True)
    if waiting:
        options.plan.mkdir(parents=True, exist_ok=True)
        plan = {"expected": expected, "begun": time.time(), "jobs": options.jobs}
        plan |= {"step_ms": round(milliseconds, 3), "threads": options.threads}
        (options.plan / "plan.json").write_text(json.dumps(plan) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
