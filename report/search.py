"""Settings of single profiles: a small search on validation, one setting after the other.

    python -m report.search                          # what is not recorded yet; can be stopped
    python -m report.search --profile laptop-brief   # of runs with a tenth of the steps

Each method tries its list of values of one setting, keeps the best accuracy (ACC), and goes on to
the next; the best of all its runs is what it gets. Methods that learn in sequence do so on 20
tasks (`published10`: its ten, `original`: 60, `standard`: 40), joint ones on 100 with a fraction of
the steps. EWC and SI then go on from there with all the tasks and steps they are compared at, of
the wide ones EWC with a head per task (`REFINED`): they try both neighbours of each setting and
move to the best, until none is better. `laptop`'s hypernetwork, whose settings were found by trying
(appendix A), has each of them three times as large and a third as large, all else as it is
(`AROUND`), over all its tasks and steps.
Writes `report/reference/<profile>/search.json`, one row for each run; the winners are what
`hnetlib/experiment/profiles.py` says.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hnetlib.experiment import paths, sweep
from hnetlib.experiment.config import Config, available_cores, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.profiles import MATCHED_SIZE, WIDE, WIDE_HEADS
from report.command import in_one_line

SEQUENTIAL = {"num_tasks": 20}
JOINT = {"num_tasks": 100, "steps_per_task": 40}
RATES = ("lr", (1e-3, 3e-4, 3e-3, 1e-2, 3e-2))
JOINT_RATES = ("lr", (1e-3, 3e-3, 1e-2))
EWC = ("strength", (10.0, 3.0, 30.0, 100.0))
STRONGER = ("strength", (30.0, 100.0, 300.0))  # again, at the rate found, which was a high one
SI = ("strength", (0.3, 0.1, 1.0, 3.0, 10.0))
# Of networks as large as the hypernetwork, in `laptop-brief`: fewer values, runs take minutes.
WIDE_JOINT = {"num_tasks": 100, "steps_per_task": 10}
WIDE_RATES = ("lr", (1e-3, 3e-4, 3e-3))
LOW_RATES = ("lr", (1e-3, 3e-4, 1e-4))  # with one head, which wide networks do best with slowly
WIDE_STRENGTHS = ("strength", (10.0, 1.0, 100.0))
# The same with all of `laptop`'s steps, ten tasks: a hundred take about an hour.
WIDE_TEN = {"num_tasks": 10} | WIDE_HEADS
# 1000 was tried once the run of a hundred tasks was made (stronger.json): none of that yet
WIDE_TEN_EWC = [("strength", (100.0, 30.0, 300.0)), ("lr", (3e-3,))]
WIDE_TEN_SI = [("strength", (10.0, 30.0, 100.0)), ("lr", (1e-3,))]
HNET = [
    ("head_lr_factor", (33.0, 66.0, 100.0, 150.0, 200.0, 300.0)),
    ("lr", (3e-4, 1e-4)),
    ("damping", (0.01, 0.1)),
]
TEN = {"lr": 1e-4, "steps_per_task": 1000}
RIVALS = ("ewc", "ewc-multihead", "si", "si-multihead")
# and with as many parameters as the hypernetwork, the one that keeps most with all steps
REFINED = {"laptop": RIVALS, "laptop-brief": (*RIVALS, "ewc-multihead-matched")}
AROUND = {  # of a profile's hypernetwork: its settings, a third of each, and three times as much
    "laptop": {
        "lr": (3e-4, 1e-4, 1e-3),
        "beta": (0.1, 0.03, 0.3),
        "head_lr_factor": (33.0, 10.0, 100.0),
        "damping": (0.01, 0.003, 0.03),
    }
}
ALL_TASKS = {"num_tasks": 100, "eval_every": 50}
# Neighbours of a setting: three times as much, or a third of it.
GRID = [float(f"{digit}e{power}") for power in range(-6, 6) for digit in (1, 3)]
RECORDED = ("acc", "learning_acc", "bwt", "train_seconds")
Order = list[tuple[str, tuple]]
# method: what all its runs share, then the settings in the order they are chosen in
Plan = dict[str, tuple[dict, Order]]
SEARCH: dict[str, Plan] = {  # of profiles
    "laptop": {
        "ewc": (SEQUENTIAL, [EWC, RATES, STRONGER]),
        "ewc-multihead": (SEQUENTIAL, [EWC, RATES, STRONGER]),
        "si": (SEQUENTIAL, [SI, RATES]),
        "si-multihead": (SEQUENTIAL, [SI, RATES, ("strength", (30.0,))]),
        "fine-tuning": (SEQUENTIAL, [RATES, ("lr", (1e-4, 3e-5))]),
        "separate": (SEQUENTIAL, [("lr", (3e-3, 1e-2, 2e-2, 3e-2))]),
        "joint-plain": (JOINT, [JOINT_RATES]),
        "joint-multihead": (JOINT, [JOINT_RATES]),
        "joint-hnet": (JOINT, [("lr", (1e-3, 3e-4, 3e-3)), ("head_lr_factor", (1.0, 0.3))]),
        "ewc-multihead-matched": (WIDE_TEN, WIDE_TEN_EWC),
        "si-multihead-matched": (WIDE_TEN, WIDE_TEN_SI),
    },
    "laptop-brief": {
        "hnet": (SEQUENTIAL, HNET),
        "ewc": (SEQUENTIAL, [EWC, RATES, STRONGER]),
        "ewc-multihead": (SEQUENTIAL, [EWC, RATES, STRONGER]),
        "si": (SEQUENTIAL, [SI, RATES]),
        "si-multihead": (SEQUENTIAL, [SI, RATES]),
        "fine-tuning": (SEQUENTIAL, [RATES]),
        "ewc-matched": (SEQUENTIAL | WIDE, [WIDE_STRENGTHS, LOW_RATES, ("strength", (1000.0,))]),
        "ewc-multihead-matched": (SEQUENTIAL | WIDE_HEADS, [WIDE_STRENGTHS, WIDE_RATES]),
        "si-matched": (SEQUENTIAL | WIDE, [WIDE_STRENGTHS, LOW_RATES, ("strength", (1000.0,))]),
        "si-multihead-matched": (SEQUENTIAL | WIDE_HEADS, [WIDE_STRENGTHS, WIDE_RATES]),
        "fine-tuning-matched": (SEQUENTIAL | WIDE, [("lr", (1e-3, 3e-4, 1e-4, 3e-5))]),
        "joint-plain-matched": (WIDE_JOINT | WIDE, [WIDE_RATES]),
        "joint-multihead-matched": (WIDE_JOINT | WIDE_HEADS, [WIDE_RATES]),
    },
    # Its ten tasks with a fifth of the steps, at the published rate.
    "published10": {
        "si-multihead": (TEN, [("strength", (0.1, 1.0, 3.0, 10.0, 30.0, 100.0))]),
    },
    # Sixty tasks, as what larger betas save shows late, and fewer steps than its 500.
    "original": {
        "hnet": (
            {"num_tasks": 60, "steps_per_task": 200},
            [("beta", (0.1, 0.3, 1.0, 0.03, 0.01)), ("damping", (0.01, 0.1, 0.001))],
        ),
    },
    # By Adam: least_change wants at least as many features as chunks, and here are 25 and 40.
    "standard": {
        "hnet": (
            {"num_tasks": 40, "steps_per_task": 200},
            [
                ("lr", (1e-3, 3e-3, 1e-2)),
                ("hnet_activation", ("relu", "elu", "sine")),
                ("beta", (0.1, 0.3, 0.03, 0.01)),
            ],
        ),
    },
}


class Search:
    """The rows of a profile's search, and the runs that add to them."""

    def __init__(self, profile: str, place: Path, jobs: int = 1, plan: Plan | None = None) -> None:
        """`plan`: what is chosen for each method; by default that of `SEARCH`."""
        self.profile, self.place, self.jobs = profile, place, jobs
        self.plan = plan or SEARCH[profile]
        self.rows = json.loads(place.read_text()) if place.is_file() else []

    def choose(self, method: str) -> dict:
        """The settings a method does best with, found one after the other."""
        shared, order = self.plan[method]
        # a setting may come again; then its first list says where it starts
        chosen = {name: values[0] for name, values in reversed(order)}
        tried = []
        for name, values in order:
            asked = [(method, shared, chosen | {name: value}) for value in values]
            self.make(asked)
            tried += [(self.acc(*one), one[-1]) for one in asked]
            chosen = max(tried, key=lambda pair: pair[0])[1]
        of_these = {"method": method} | shared
        mine = (row for row in self.rows if of_these.items() <= row.items())
        return max(mine, key=lambda row: row["acc"])["settings"]

    def refine(self, methods: Sequence[str]) -> dict[str, dict]:
        """From what was chosen: the settings none of whose neighbours does better on all tasks."""
        now = {method: self.choose(method) for method in methods}
        while True:
            asked = [
                (method, self.plan[method][0] | ALL_TASKS, settings)
                for method, best in now.items()
                for settings in [best, *neighbours(best)]
            ]
            self.make(asked)
            best_last = sorted(asked, key=lambda one: self.acc(*one))
            better = {method: settings for method, _, settings in best_last}
            if better == now:
                return now
            now = better

    def around(self) -> dict:
        """The best of the hypernetwork's own settings and those with one of them changed."""
        settings = AROUND[self.profile]
        own = {name: values[0] for name, values in settings.items()}
        tried = [own] + [own | {name: v} for name, values in settings.items() for v in values[1:]]
        asked = [("hnet", ALL_TASKS, one) for one in tried]
        self.make(asked)
        return max(asked, key=lambda one: self.acc(*one))[-1]

    def acc(self, method: str, shared: dict, settings: dict) -> float | None:
        """Accuracy of a recorded run; None if there is none."""
        this = {"method": method, "settings": settings} | shared
        return next((row["acc"] for row in self.rows if this.items() <= row.items()), None)

    def make(self, asked: list[tuple[str, dict, dict]]) -> None:
        """Trains and records those runs that are not: method, what all share, and settings."""
        left = [one for one in asked if self.acc(*one) is None]
        configs = [self.config(method, shared | settings) for method, shared, settings in left]
        for outcome in sweep.values(sweep.train(configs, self.jobs)):
            run, (method, shared, settings) = outcome.value, left[outcome.number]
            row = {"method": method, "settings": settings, **shared}
            row |= {name: run.results[name] for name in RECORDED}
            self.rows.append(row | {"commit": run.provenance["commit"]})
            self.place.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.place, self.rows)

    def config(self, method: str, settings: dict) -> Config:
        """Of one run: on validation, with pixel orders that no result is reported of."""
        adam = {"head_optimizer": "adam"} if method == "joint-hnet" else {}
        return make_config(
            self.profile,
            "mnist",
            method=method.removesuffix(MATCHED_SIZE),
            split="validation",
            permutation_seed=1000,
            threads=1,
            **adam,
            **settings,
        )


def neighbours(settings: dict) -> list[dict]:
    """These settings with one of them a step up or down the grid."""
    return [
        settings | {name: GRID[GRID.index(value) + step]}
        for name, value in settings.items()
        for step in (-1, 1)
    ]


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Searches, then prints what was found; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", choices=list(SEARCH))
    parser.add_argument("--methods", nargs="+", help="these alone")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="at the same time")
    options = parser.parse_args(arguments)
    place = paths.reference_dir(options.profile) / "search.json"
    search = Search(options.profile, place, options.jobs)
    methods = options.methods or [*SEARCH[options.profile], *["hnet"] * (options.profile in AROUND)]
    found = {method: search.choose(method) for method in methods if method in search.plan}
    if "hnet" in methods and options.profile in AROUND:
        found["hnet"] = search.around()
    found |= search.refine([m for m in methods if m in REFINED.get(options.profile, ())])
    for method, settings in found.items():
        print(f"{method:16} {settings}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
