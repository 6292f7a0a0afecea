"""Accuracy against time: a hundred tasks by `laptop` with fewer and more steps on each.

    python -m report.pace          # what is not recorded yet; can be stopped at any time

All on validation, one pair of seed and pixel orders, on a machine that does nothing else: seconds
count. The settings are those of `laptop`, found at 400 steps, and for few steps also those of
`laptop-brief`, found at 40.
Writes `report/reference/laptop/pace.json`, one row for each run, as each one lands.
"""

import json
import sys

from hnetlib.experiment import paths, sweep
from hnetlib.experiment.config import make_config
from hnetlib.experiment.files import write_json
from report.command import in_one_line
from report.study import row_of

RUNS = [("laptop-brief", 40), ("laptop-brief", 100), ("laptop-brief", 200)]
RUNS += [("laptop", 100), ("laptop", 200), ("laptop", 400), ("laptop", 800)]
SETTINGS = ("profile", "steps_per_task", "threads")
EVAL_EVERY = 20  # of the tasks in between only the new one


@in_one_line
def main() -> int:
    """Trains and records what is missing, one run at a time; 0."""
    place = paths.reference_dir("laptop") / "pace.json"
    rows = json.loads(place.read_text()) if place.is_file() else []
    known = [(row["profile"], row["steps_per_task"]) for row in rows]
    asked = {"split": "validation", "permutation_seed": 1000, "eval_every": EVAL_EVERY}
    left = [
        make_config(profile, "mnist", steps_per_task=steps, **asked)
        for profile, steps in RUNS
        if (profile, steps) not in known
    ]
    for outcome in sweep.values(sweep.train(left, workers=1)):
        run = outcome.value
        rows.append(row_of(run, SETTINGS) | {"train_seconds": run.results["train_seconds"]})
        write_json(place, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
