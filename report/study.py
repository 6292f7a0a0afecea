"""The K study: how much of the penalty a step must see, at the same cost for two ways to draw it.

    python -m report.study         # what is not recorded yet; can be stopped at any time

Kinds `rows` and `tasks`, six sizes each, five betas, all else equal, with the method as the paper
has it (`laptop-plain`: Adam), on validation. Drawing K tasks costs a step as much as drawing C * K
rows. The sizes that tell most are then run over 100 tasks with three pairs of seed and pixel
orders, each with the beta it did best with over 20; with one pair also with larger betas, as more
tasks ask for more; and last the whole penalty, with the beta that the largest size then did best
with.
Writes `report/reference/laptop/study.json`, one row for each run, as each one lands.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator

from hnetlib.experiment import paths
from hnetlib.experiment.config import Config, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.runs import Run

NUM_TASKS, STEPS_PER_TASK = 20, 100  # fewer steps than the profile's: a run takes a minute
TASKS_DRAWN = (1, 2, 4, 6, 8, 16)
BETAS = (0.1, 0.3, 0.03, 0.01, 1.0)
LONG_TASKS, PAIRS = 100, (0, 1, 2)
LONG_BETAS = (0.1, 0.3)
LONG = (("rows", 1), ("rows", 6), ("rows", 16), ("tasks", 1), ("tasks", 6))  # in tasks' worth
VARIED = ("num_tasks", "seed", "permutation_seed", "penalty", "penalty_size", "beta", "eval_every")
KNOWN_BY = ("num_tasks", "seed", "penalty", "penalty_size", "beta")


def make(
    penalty: str, drawn: int, beta: float, num_tasks: int = NUM_TASKS, pair: int = 0
) -> Config:
    """One run; `drawn` is in tasks' worth of rows."""
    num_chunks = make_config("laptop-plain", "mnist").num_chunks
    return make_config(
        "laptop-plain",
        "mnist",
        threads=1,
        split="validation",
        seed=pair,
        permutation_seed=1000 + pair,
        num_tasks=num_tasks,
        steps_per_task=STEPS_PER_TASK,
        eval_every=1 if num_tasks == NUM_TASKS else 10,
        beta=beta,
        penalty=penalty,
        penalty_size=drawn * (num_chunks if penalty == "rows" else 1),
    )


def planned(rows: list[dict]) -> Iterator[Config]:
    """The runs, the middle betas first; `rows` are those recorded so far, added to meanwhile."""
    for beta, drawn, kind in itertools.product(BETAS, TASKS_DRAWN, ("rows", "tasks")):
        yield make(kind, drawn, beta)
    for pair, (kind, drawn) in itertools.product(PAIRS, LONG):
        yield make(kind, drawn, best_beta(rows, make(kind, drawn, beta=0.0)), LONG_TASKS, pair)
    for beta, (kind, drawn) in itertools.product(LONG_BETAS, LONG):
        yield make(kind, drawn, beta, LONG_TASKS)
    largest = make("rows", TASKS_DRAWN[-1], 0.0, LONG_TASKS)
    yield make("all", 1, best_beta(rows, largest), LONG_TASKS)


def best_beta(rows: list[dict], config: Config) -> float:
    """With which beta this kind and size did best over as many tasks, by the first pair."""
    same = ("num_tasks", "seed", "penalty", "penalty_size")
    alike = (row for row in rows if all(row[name] == getattr(config, name) for name in same))
    return max(alike, key=lambda row: row["acc"])["beta"]


def row_of(run: Run, settings: Iterable[str]) -> dict:
    """What a study keeps of a run: the settings it varies, what came of them, and where."""
    row = {name: getattr(run.config, name) for name in settings}
    row |= {name: run.results[name] for name in ("acc", "learning_acc", "bwt")}
    return row | {name: run.provenance[name] for name in ("hardware", "commit", "date")}


def ms_per_step(run: Run) -> float:
    """Milliseconds of training, by its optimiser steps."""
    steps = sum(run.config.steps(task) for task in range(run.config.num_tasks))
    return 1000 * run.results["train_seconds"] / steps


def main() -> int:
    """Trains and records what is missing; 0."""
    place = paths.reference_dir("laptop") / "study.json"
    study = json.loads(place.read_text()) if place.is_file() else {"rows": []}
    for config in planned(study["rows"]):
        this = {name: getattr(config, name) for name in KNOWN_BY}
        if any(this.items() <= row.items() for row in study["rows"]):
            continue
        run = train_or_load(config, progress=False)
        study["config"] = {k: v for k, v in config.as_dict().items() if k not in VARIED}
        study["rows"].append(row_of(run, VARIED) | {"ms_per_step": ms_per_step(run)})
        write_json(place, study)
        print(
            "{num_tasks:3} {penalty:5} {penalty_size:4}  beta {beta:<5} {acc:.2%}".format(
                **study["rows"][-1]
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
