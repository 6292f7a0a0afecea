"""The same tasks learned by hnetlib, hypnettorch and Avalanche: accuracy, time, memory, lines.

    python -m report.peers.compare                             # ten tasks, into report/reference/
    python -m report.peers.compare --num-tasks 2 --steps 20    # a quick try, into report/build/

Every script beside this file gets the same images, pixel orders, number of steps, batch size and
threads, and a process of its own, one after the other; the task is known when accuracy is measured.
Settings of the peers were chosen by `choose.py`. "Above data" is the peak above what the process
held with PyTorch and the images loaded: the library itself, what it learns and what it keeps.
"""

import argparse
import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hnetlib.experiment.config import available_cores
from hnetlib.experiment.files import write_json
from hnetlib.experiment.paths import PACKAGE, reference_dir
from hnetlib.experiment.provenance import provenance
from report.peers.alone import HERE, run_alone
from report.peers.lines import COUNTED, count
from report.peers.stream import DEFAULTS, FIRST_TASK_FACTOR

REQUIREMENTS = HERE / "requirements.txt"
IMPORT_TORCH = "import torch; from memory import peak_megabytes; print(peak_megabytes())"
QUICK = Path("report/build/peers.json")
HEADER = (
    f"{'library':13} {'version':8} {'method':24}{'ACC':>7}{'train s':>9}{'peak MB':>9}"
    f"{'above data':>12}{'lines':>7}"
)
LINE = (
    "{library:13} {version:8} {method:24}{acc:7.2%}{train_seconds:9.0f}{peak_mb:9.0f}"
    "{above_data_mb:12.0f}{lines:7d}"
)


@dataclass(frozen=True)
class Entry:
    """One row: what it is, and what it took on two cores of an AMD EPYC, for the estimate."""

    library: str
    method: str
    start_s: float  # imports, data and evaluation
    task_s: float  # beside the steps
    step_ms: float  # without old tasks
    old_task_ms: float  # more, for each old task


ENTRIES = {
    "ours": Entry("hnetlib", "least change (laptop)", 8, 0, 18, 0),
    "ours_plain": Entry("hnetlib", "paper's (laptop-plain)", 8, 0, 22, 0),
    "hypnettorch_all": Entry("hypnettorch", "paper's, all old tasks", 8, 0, 15, 5),
    "avalanche_ewc": Entry("avalanche-lib", "EWC, a head per task", 15, 2, 12, 0.1),
    "avalanche_si": Entry("avalanche-lib", "SI, no effect on a CPU", 15, 0.2, 12, 0),
}


def pinned() -> dict[str, str]:
    """The versions of the peers that are compared, by name."""
    lines = REQUIREMENTS.read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def version(library: str) -> str:
    """The version that is compared; ImportError with the fix where another one is installed."""
    if library == "hnetlib":
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
        return project["project"]["version"]
    expected = pinned()[library]
    try:
        found = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != expected:
        raise ImportError(
            f"{library}: expected version {expected}, found {found}; the fix is: make peers, or: "
            f"pip install --no-deps -r report/peers/requirements.txt, or: --only ours ours_plain"
        )
    return found


def estimate(entry: Entry, num_tasks: int, steps: int) -> float:
    """Seconds that a row will take, about."""
    all_steps = steps * (num_tasks - 1 + FIRST_TASK_FACTOR)
    old = steps * num_tasks * (num_tasks - 1) / 2  # (step, old task) pairs
    milliseconds = all_steps * entry.step_ms + old * entry.old_task_ms
    return entry.start_s + num_tasks * entry.task_s + milliseconds / 1e3


def torch_megabytes() -> float:
    """What a process takes that only imports torch."""
    command = [sys.executable, "-c", IMPORT_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    return float(done.stdout)


def row(script: str, asked: dict) -> dict:
    """Everything about one script."""
    entry = ENTRIES[script]
    names = {"script": script, "library": entry.library, "version": version(entry.library)}
    names |= {"method": entry.method}
    return names | run_alone(script, asked) | count(HERE / f"{script}.py")


def at_least_1(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return int(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m report.peers.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--num-tasks", type=at_least_1, default=DEFAULTS["num_tasks"])
    parser.add_argument("--steps", type=at_least_1, default=DEFAULTS["steps"], help="on each task")
    parser.add_argument("--batch-size", type=at_least_1, default=DEFAULTS["batch_size"])
    parser.add_argument("--threads", type=at_least_1, default=available_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--permutation-seed", type=int, default=0)
    parser.add_argument("--dataset", choices=["mnist", "mnist5k"], default="mnist")
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--only", nargs="+", choices=list(ENTRIES), default=list(ENTRIES))
    parser.add_argument("--out", type=Path, help="default: report/reference/laptop/peers.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = vars(parse(arguments))
    only, out = options.pop("only"), options.pop("out")
    is_whole = all(options[name] == DEFAULTS[name] for name in options if name != "threads")
    whole_out = reference_dir("laptop") / "peers.json"
    out = out or (whole_out if is_whole and only == list(ENTRIES) else QUICK)
    try:
        for script in only:
            version(ENTRIES[script].library)
        seconds = [estimate(ENTRIES[s], options["num_tasks"], options["steps"]) for s in only]
        torch_mb = torch_megabytes()
        print(f"{len(only)} rows, one after the other: about {sum(seconds) / 60:.0f} minutes")
        rows = []
        for script, about in zip(only, seconds, strict=True):
            print(f"{script}: about {about / 60:.1f} minutes ...", flush=True)
            rows.append(row(script, options))
    except (ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(HEADER, *(LINE.format(**found) for found in rows), sep="\n")
    content = {"provenance": provenance() | options | {"torch_mb": torch_mb}}
    content |= {"lines_counted": COUNTED, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content)
    print(f"a process that only imports torch: {torch_mb:.0f} MB")
    print(f"lines: {COUNTED}\nwritten: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
