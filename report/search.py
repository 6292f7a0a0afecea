"""Settings of the baselines: a small search on validation, one setting after the other.

    python report/search.py        # what is not recorded yet; can be stopped at any time

Each method tries its list of values of one setting, keeps the best accuracy (ACC), and goes on to
the next; the best of all its runs is what it gets. Sequential methods and separate networks do so
on 20 tasks, joint ones on 100 with a tenth of the steps. Writes
`report/reference/laptop/search.json`, one row for each run; the winners are the `BASELINES` of
`hnetlib/config.py`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from hnetlib import paths
from hnetlib.config import make_config
from hnetlib.learner import train_or_load
from hnetlib.runs import write_json

SEQUENTIAL = {"num_tasks": 20}
JOINT = {"num_tasks": 100, "steps_per_task": 40}
RATES = ("lr", (1e-3, 3e-4, 3e-3, 1e-2))
EWC = ("strength", (10.0, 3.0, 30.0, 100.0))
STRONGER = ("strength", (30.0, 100.0, 300.0))  # again, at the rate found, which was a high one
SI = ("strength", (0.3, 0.1, 1.0, 3.0, 10.0))
# method: what all its runs share, then the settings in the order in which they are chosen
SEARCH: dict[str, tuple[dict, list[tuple[str, tuple]]]] = {
    "ewc": (SEQUENTIAL, [EWC, RATES, STRONGER]),
    "ewc-multihead": (SEQUENTIAL, [EWC, RATES, STRONGER]),
    "si": (SEQUENTIAL, [SI, RATES]),
    "si-multihead": (SEQUENTIAL, [SI, RATES, ("strength", (30.0,))]),
    "fine-tuning": (SEQUENTIAL, [RATES]),
    "separate": (SEQUENTIAL, [("lr", (3e-3, 1e-2, 2e-2))]),
    "joint-plain": (JOINT, [("lr", (1e-3, 3e-3, 1e-2))]),
    "joint-multihead": (JOINT, [("lr", (1e-3, 3e-3, 1e-2))]),
    "joint-hnet": (JOINT, [("lr", (1e-3, 3e-4)), ("head_lr_factor", (1.0, 0.3))]),
}


class Search:
    """The rows of search.json, and the runs that add to them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rows = json.loads(place.read_text()) if place.is_file() else []

    def choose(self, method: str) -> dict:
        """The settings a method does best with, found one after the other."""
        shared, order = SEARCH[method]
        chosen = {name: values[0] for name, values in order}
        tried = []
        for name, values in order:
            for value in values:
                settings = chosen | {name: value}
                tried.append((self.acc(method, shared, settings), settings))
            chosen = max(tried, key=lambda pair: pair[0])[1]
        return max(
            ((row["acc"], row["settings"]) for row in self.rows if row["method"] == method),
            key=lambda pair: pair[0],
        )[1]

    def acc(self, method: str, shared: dict, settings: dict) -> float:
        """Accuracy of one run, recorded or trained now."""
        for row in self.rows:
            if row["method"] == method and row["settings"] == settings:
                return row["acc"]
        adam = {"head_optimizer": "adam"} if method == "joint-hnet" else {}
        config = make_config(
            "laptop", "mnist", method=method, split="validation", permutation_seed=1000, threads=1,
            **adam, **shared, **settings,
        )  # fmt: skip
        run = train_or_load(config, progress=False)
        names = ("acc", "learning_acc", "bwt", "train_seconds")
        row = {"method": method, "settings": settings, **shared}
        row |= {name: run.results[name] for name in names}
        self.rows.append(row | {"commit": run.provenance["commit"]})
        write_json(self.place, self.rows)
        print(f"{method:16} {settings}  {row['acc']:.2%}  {row['train_seconds']:.0f} s", flush=True)
        return row["acc"]


def winners(place: Path) -> Iterator[tuple[str, dict]]:
    """Each method with its settings, training what is missing."""
    search = Search(place)
    for method in SEARCH:
        yield method, search.choose(method)


def main() -> int:
    """Searches, then prints what was found; 0."""
    for method, settings in list(winners(paths.reference_dir("laptop") / "search.json")):
        print(f"{method:16} {settings}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
