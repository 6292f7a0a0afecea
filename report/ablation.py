"""What each choice of `laptop` brings: an ablation, one choice after the other, all else equal.

    python -m report.ablation               # what is not recorded yet; can be stopped at any time
    python -m report.ablation --steps 400   # with all of laptop's steps, four times as many
    python -m report.ablation --times       # a step of each row, on a machine without other work

A hundred tasks of MNIST at `laptop`'s sizes, images per batch and penalty, on test images, with
three pairs of seed and permutations. `STEPS` says what each row adds to the one before; with the
few steps each is also run without the penalty. What learns by Adam has Adam's rates
(`laptop-plain`), what learns by normalised steps has theirs: a rate of the one means nothing to the
other. `TUNED` is the first row at the settings it does best with: of `SEARCH`, ten runs of a
hundred tasks, about as many as were tried for `laptop`, on validation (`ablation_search.json`),
with the few steps. `WHOLE` is that with the penalty summed over all old tasks, as the paper has it,
where the others draw ten rows; `TUNED_SINES` and `WHOLE_SINES` are sines at the same rates and
beta, which were not searched for them.

By default with a quarter of the steps: Adam moves every one of 5.6 million parameters at each step
and takes two to three times as long as what is learned here otherwise. Writes
`report/reference/laptop/ablation.json`, one row for each run, as each one lands; with `--times`
`ablation_times.json`, milliseconds of a training step behind 99 old tasks, all rows taking turns.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hnetlib.experiment import paths, sweep
from hnetlib.experiment.config import Config, available_cores, make_config
from hnetlib.experiment.data import load_data
from hnetlib.experiment.files import write_json
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.provenance import provenance
from hnetlib.experiment.step import TrainingStep, prepare_torch
from hnetlib.experiment.tasks import PermutedTasks, seeded_generator
from report.bench import clock
from report.command import in_one_line
from report.search import Plan, Search
from report.study import row_of

PAPER, TUNED = "Adam, ReLU", "Adam, ReLU, tuned"
WHOLE, TUNED_SINES = "Adam, ReLU, tuned, whole penalty", "Adam, sines, same rates"
WHOLE_SINES = "Adam, sines, same rates, whole penalty"
ADAM = {"head_optimizer": "adam", "lr": 1e-3, "head_lr_factor": 1.0}
STEPS: dict[str, dict] = {
    PAPER: ADAM | {"hnet_activation": "relu"},
    "+ sines": ADAM | {"hnet_activation": "sine"},
    "+ normalised steps": {"head_optimizer": "shortest_change"},
    "+ least change": {},
}
PAIRS, FEW_STEPS = (0, 1, 2), 100
SEARCH: Plan = {
    "hnet": (
        {
            "num_tasks": 100,
            "steps_per_task": FEW_STEPS,
            "eval_every": 50,
            "head_optimizer": "adam",
            "hnet_activation": "relu",
        },
        [
            ("lr", (1e-3, 3e-4, 3e-3)),
            ("head_lr_factor", (1.0, 0.3, 3.0)),
            ("beta", (0.1, 0.03, 0.3)),
            # the best values were the last of their lists
            ("head_lr_factor", (3.0, 10.0)),
            ("beta", (0.3, 1.0)),
            ("lr", (3e-4, 1e-4)),
        ],
    )
}
KEPT = ("beta", "steps_per_task", "seed", "lr", "head_lr_factor", "head_optimizer")
KEPT += ("hnet_activation", "batch_size", "num_chunks", "penalty", "penalty_size", "num_tasks")


def make(changes: dict, steps_per_task: int, pair: int) -> Config:
    """One run: `laptop`, but for these settings."""
    return make_config(
        "laptop",
        "mnist",
        threads=1,
        eval_every=50,
        seed=pair,
        permutation_seed=pair,
        steps_per_task=steps_per_task,
        **changes,
    )


def planned(found: dict, steps_per_task: int) -> Iterator[tuple[str, Config]]:
    """The names and configs of all runs, those of one pair before the next.

    Without the penalty least change is the shortest change: those runs stand once, and with the few
    steps alone, as nothing is left after those. `found`: what the first row does best with.
    """
    tuned, sines, whole = STEPS[PAPER] | found, STEPS["+ sines"] | found, {"penalty": "all"}
    rows = [*STEPS.items(), (TUNED, tuned), (TUNED_SINES, sines)]
    rows += [(WHOLE, tuned | whole), (WHOLE_SINES, sines | whole)]
    if steps_per_task == FEW_STEPS:
        rows += [(name, changes | {"beta": 0.0}) for name, changes in [*STEPS.items()][:-1]]
    for pair in PAIRS:
        for name, changes in rows:
            yield name, make(changes, steps_per_task, pair)


def timed_step(config: Config) -> Callable[[], object]:
    """A training step on the last task of a config; all others are old, as if learned."""
    data = load_data("mnist5k")  # any images take as long
    learner = Learner(config, PermutedTasks(data, config.num_tasks, config.permutation_seed))
    keep, last = learner.regularizer, config.num_tasks - 1
    for task in range(last):
        with keep.learning(task):
            pass
    learning = keep.learning(last)
    learning.__enter__()
    train = TrainingStep(config, learner.hnet, keep, last, False)
    draws = seeded_generator(config.seed)
    batch = data.train_images[: config.batch_size], data.train_labels[: config.batch_size]

    def step() -> object:
        return train(*batch, keep.draw(draws), 1.0)

    step.learning = learning  # goes on until the step is dropped
    return step


def measure(found: dict, place: Path, rounds: int = 30) -> None:
    """Writes the median milliseconds of a step of each row, one thread."""
    configs = {
        name: config
        for name, config in planned(found, FEW_STEPS)
        if config.beta and not config.seed
    }
    prepare_torch(next(iter(configs.values())))
    steps = {name: timed_step(config) for name, config in configs.items()}
    for step in steps.values():
        step()  # warms up
    taken = [{name: clock(step, "cpu") for name, step in steps.items()} for _ in range(rounds)]
    rows = {name: 1e3 * statistics.median(one[name] for one in taken) for name in steps}
    write_json(place, {"ms": rows, "n": rounds, "threads": 1, "provenance": provenance()})
    for name, ms in rows.items():
        print(f"{name:40}{ms:7.1f} ms")


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Trains and records what is missing; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=FEW_STEPS, help="a task")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="at the same time")
    parser.add_argument("--times", action="store_true", help="measure steps, train nothing")
    options = parser.parse_args(arguments)
    search = paths.reference_dir("laptop") / "ablation_search.json"
    found = Search("laptop", search, options.jobs, SEARCH).choose("hnet")
    place = paths.reference_dir("laptop") / "ablation.json"
    if options.times:
        measure(found, place.with_name("ablation_times.json"))
        return 0
    rows = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else []
    known = {(row["name"], *(row[setting] for setting in KEPT)) for row in rows}
    left = [
        (name, config)
        for name, config in planned(found, options.steps)
        if (name, *(getattr(config, setting) for setting in KEPT)) not in known
    ]
    for outcome in sweep.values(sweep.train([config for _, config in left], options.jobs)):
        rows.append({"name": left[outcome.number][0], **row_of(outcome.value, KEPT)})
        write_json(place, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
