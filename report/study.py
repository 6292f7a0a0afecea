"""The study of draws: how much of the penalty a step must see, and how it is best drawn.

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

from hnetlib.experiment import paths, sweep
from hnetlib.experiment.config import Config, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.runs import Run
from report.command import in_one_line

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


def planned(rows: list[dict]) -> Iterator[list[Config]]:
    """The runs in three parts; `rows` are those recorded so far, added to before the next part."""
    short = itertools.product(BETAS, TASKS_DRAWN, ("rows", "tasks"))  # the middle betas first
    yield [make(kind, drawn, beta) for beta, drawn, kind in short]
    best = {(kind, drawn): best_beta(rows, make(kind, drawn, beta=0.0)) for kind, drawn in LONG}
    long = [(best[size], size, pair) for pair, size in itertools.product(PAIRS, LONG)]
    long += [(beta, size, 0) for beta, size in itertools.product(LONG_BETAS, LONG)]
    yield [make(*size, beta, LONG_TASKS, pair) for beta, size, pair in long]
    largest = make("rows", TASKS_DRAWN[-1], 0.0, LONG_TASKS)
    yield [make("all", 1, best_beta(rows, largest), LONG_TASKS)]


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


@in_one_line
def main() -> int:
    """Trains and records what is missing, one run at a time, as steps are timed; 0."""
    place = paths.reference_dir("laptop") / "study.json"
    study = json.loads(place.read_text()) if place.is_file() else {"rows": []}
    rows = study["rows"]
    for configs in planned(rows):
        named = {tuple(getattr(config, name) for name in KNOWN_BY): config for config in configs}
        known = {tuple(row[name] for name in KNOWN_BY) for row in rows}
        left = [config for values, config in named.items() if values not in known]
        for outcome in sweep.values(sweep.train(left, workers=1)):
            run = outcome.value
            study["config"] = {k: v for k, v in run.config.as_dict().items() if k not in VARIED}
            rows.append(row_of(run, VARIED) | {"ms_per_step": ms_per_step(run)})
            write_json(place, study)
    return 0


if __name__ == "__main__":
    sys.exit(main())
