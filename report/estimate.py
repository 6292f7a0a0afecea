"""How long `make report` will take, said before it starts.

    python report/estimate.py --profile laptop --jobs 2 --pairs SOURCE EXECUTED ... --library ...

Each executed notebook knows how long it took: the committed one of the same profile in
`report/reference/`, or else the last one in `report/build/`. Chapters that are up to date take no
time.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hnetlib.paths import reference_dir


def seconds_of(executed: Path) -> float | None:
    """How long an executed notebook took; None where there is none."""
    if not executed.is_file():
        return None
    return json.loads(executed.read_text())["metadata"].get("papermill", {}).get("duration")


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


def describe(
    pairs: Sequence[tuple[Path, Path]], library: Sequence[Path], profile: str, jobs: int
) -> str:
    """The line that is printed."""
    waiting = [pair for pair in pairs if not is_current(*pair, library)]
    if not waiting:
        return "every chapter is up to date: seconds"
    committed = reference_dir(profile) / "notebooks"
    known = [seconds_of(committed / made.name) or seconds_of(made) for _, made in waiting]
    count = f"{len(waiting)} of {len(pairs)} chapters to run, {jobs} at a time"
    if None in known:
        return f"{count}: no measured time for this profile yet"
    minutes = together(known, jobs) / 60
    about = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{60 * minutes:.0f} seconds"
    return f"{count}: about {about} if they took as long as last time, less for finished runs"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--pairs", nargs="+", type=Path, required=True)
    parser.add_argument("--library", nargs="*", type=Path, default=[])
    options = parser.parse_args(arguments)
    pairs = list(zip(options.pairs[::2], options.pairs[1::2], strict=True))
    print(describe(pairs, options.library, options.profile, max(1, options.jobs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
