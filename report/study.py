"""The K study: how much of the penalty a step must see, at the same cost for two ways to draw it.

    python report/study.py         # what is not recorded yet; can be stopped at any time

Kinds `rows` and `tasks`, six sizes each, four betas, all else equal, with the method as the paper
has it (`laptop-plain`: Adam), on validation. Drawing K tasks costs a step as much as drawing C * K
rows. Writes `report/reference/laptop/study.json`, one row for each run, as each one lands.
"""

import itertools
import json
import sys
from collections.abc import Iterator

from hnetlib import paths
from hnetlib.config import Config, make_config
from hnetlib.learner import train_or_load
from hnetlib.runs import Run, write_json

NUM_TASKS, STEPS_PER_TASK = 20, 100  # fewer steps than the profile's: 48 runs in half an hour
TASKS_DRAWN = (1, 2, 4, 6, 8, 16)
BETAS = (0.1, 0.3, 0.03, 1.0)


def planned() -> Iterator[Config]:
    """The runs, the middle betas first."""
    num_chunks = make_config("laptop-plain", "mnist").num_chunks
    for beta, drawn, kind in itertools.product(BETAS, TASKS_DRAWN, ("rows", "tasks")):
        yield make_config(
            "laptop-plain",
            "mnist",
            threads=1,
            split="validation",
            permutation_seed=1000,
            num_tasks=NUM_TASKS,
            steps_per_task=STEPS_PER_TASK,
            beta=beta,
            penalty=kind,
            penalty_size=drawn * (num_chunks if kind == "rows" else 1),
        )


def row_of(run: Run) -> dict:
    """What the study keeps of a run."""
    config, results = run.config, run.results
    steps = sum(config.steps(task) for task in range(config.num_tasks))
    row = {name: getattr(config, name) for name in ("penalty", "penalty_size", "beta", "seed")}
    row |= {name: results[name] for name in ("acc", "learning_acc", "bwt")}
    row["ms_per_step"] = 1000 * results["train_seconds"] / steps
    return row | {name: run.provenance[name] for name in ("hardware", "commit", "date")}


def main() -> int:
    """Trains and records what is missing; 0."""
    place = paths.reference_dir("laptop") / "study.json"
    study = json.loads(place.read_text()) if place.is_file() else {"rows": []}
    known = [(row["penalty"], row["penalty_size"], row["beta"]) for row in study["rows"]]
    for config in planned():
        if (config.penalty, config.penalty_size, config.beta) in known:
            continue
        run = train_or_load(config, progress=False)
        study["config"] = {k: v for k, v in config.as_dict().items() if k not in VARIED}
        study["rows"].append(row_of(run))
        write_json(place, study)
        print("{penalty:5} {penalty_size:4}  beta {beta:<5} {acc:.2%}".format(**study["rows"][-1]))
    return 0


VARIED = ("penalty", "penalty_size", "beta")

if __name__ == "__main__":
    sys.exit(main())
