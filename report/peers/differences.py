"""What differs between our paper's ten tasks and those of its authors' library: one run for each.

    python -m report.peers.differences            # what is not recorded yet; hours on one thread
    python -m report.peers.differences --jobs 2   # two at a time

The first two tasks of `report.peers.paper10`, one thing changed in each run, and two runs of them
by our code with one thing changed in each; without a change they are the beginning of the first run
of profile `paper10`. Images, permutations, batches and steps are those of that run, unless the row
says otherwise.
Writes `report/reference/paper10/differences.json`, one row for each run, as each one lands.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from hnetlib.experiment import sweep
from hnetlib.experiment.config import Config, available_cores, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.paths import reference_dir
from hnetlib.experiment.provenance import provenance
from report.peers.alone import run_alone
from report.peers.compare import at_least_1, version
from report.peers.paper10 import LIBRARY, SCRIPT, sizes_of

NUM_TASKS = 2
XAVIER = {"start": "xavier"}
# what differs, by the library or by our code, and how
THEIRS: dict[str, dict] = {
    "as the library starts": {},
    "start: Xavier, as in the authors' scripts": XAVIER,
    "Xavier, images padded to 32x32": XAVIER | {"padding": 2},
    "Xavier, a head for each task": XAVIER | {"own_heads": True},
    "Xavier, learning rate 0.0005": XAVIER | {"lr": 5e-4},
}
OURS: dict[str, dict] = {
    "learning rate 0.0005": {"lr": 5e-4},
    "no look-ahead": {"look_ahead": False},
}


def planned() -> list[tuple[str, str, dict]]:
    """Library, what differs, and how, of all runs."""
    ours = [("hnetlib", name, changes) for name, changes in OURS.items()]
    return ours + [(LIBRARY, name, changes) for name, changes in THEIRS.items()]


def learn(one: tuple[str, str, dict], sizes: dict) -> dict:
    """One run: its row."""
    library, name, changes = one
    row = {"library": library, "name": name, "changes": changes, **sizes}
    if library == LIBRARY:
        found = of_library(make_config("paper10", **sizes), changes)
    else:
        run = train_or_load(make_config("paper10", threads=1, **sizes, **changes))
        found = run.results | {"acc_per_task": run.results["R"][-1]}
    row |= {key: found[key] for key in ("acc", "acc_per_task")}
    return row | {key: provenance()[key] for key in ("commit", "hardware", "date")}


def of_library(config: Config, changes: dict) -> dict:
    """What `report.peers.stream` measures of the library on these tasks."""
    changes = dict(changes)
    return run_alone(
        SCRIPT, sizes_of(config, 1) | {"padding": changes.pop("padding", 0), "changes": changes}
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one line where the library or a run fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-tasks", type=at_least_1, default=NUM_TASKS)
    parser.add_argument("--steps", type=at_least_1, help="on each task; default: the profile's")
    parser.add_argument("--dataset", choices=["mnist", "mnist5k"], default="mnist")
    parser.add_argument("--jobs", type=at_least_1, default=available_cores())
    parser.add_argument("--out", type=Path, default=reference_dir("paper10") / "differences.json")
    options = parser.parse_args(arguments)
    sizes = {"num_tasks": options.num_tasks, "dataset": options.dataset}
    sizes["steps_per_task"] = options.steps  # None: the profile's
    rows = json.loads(options.out.read_text()) if options.out.is_file() else []
    alike = [row for row in rows if all(row.get(k) == v for k, v in sizes.items())]
    known = [(row["library"], row["name"]) for row in alike]
    left = [one for one in planned() if one[:2] not in known]
    try:
        version(LIBRARY)
        landed = sweep.outcomes(
            partial(learn, sizes=sizes),
            left,
            label=lambda number: ", ".join(left[number][:2]),
            said=lambda row: f"ACC {row['acc']:.2%}",
            workers=options.jobs,
        )
        for outcome in sweep.values(landed):
            rows.append(outcome.value)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, rows)
    except (ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
