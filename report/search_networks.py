"""Settings of chapter 8, chosen on validation: one rate and one beta for all its networks.

    python report/search_networks.py         # what is not recorded yet; can be stopped at any time

Every network learns its stream with each setting, one after the other as in `ORDER`: the values of
a setting are compared by the mean ACC of all networks, and the best stays. The convolutional LeNet
that learns one task has a list of its own. Writes `report/reference/laptop/networks.json`, a row
for each run: MNIST, held-out training images, `permutation_seed` 1000.
"""

import json
import statistics
import sys
import time

import torch

from hnetlib import paths
from hnetlib.data import ImageData, load_data
from hnetlib.evaluation import metrics
from hnetlib.networks import CASES, LENET, SETTINGS, build, fit_lenet, make_streams
from hnetlib.provenance import provenance
from hnetlib.runs import write_json
from hnetlib.stream_learner import learn

ORDER = [("lr", (3e-3, 1e-3, 1e-2)), ("beta", (0.1, 0.01, 1.0)), ("num_chunks", (20, 5))]
LENET_TRIALS = ({}, {"lr": 1e-3}, {"lr": 4e-3}, {"hnet_hidden": (200, 250, 350)})
PLACE = paths.reference_dir("laptop") / "networks.json"


class Search:
    """The rows that are recorded, and the runs that add to them."""

    def __init__(self, data: ImageData) -> None:
        self.data, self.streams = data, make_streams(data, 5, permutation_seed=1000)
        self.rows = json.loads(PLACE.read_text()) if PLACE.is_file() else []
        self.commit = provenance()["commit"]

    def choose(self) -> dict:
        """The settings that all networks together do best with, and the penalty's worth."""
        chosen = {name: values[0] for name, values in ORDER}
        for name, values in ORDER:
            means = {value: self.mean_acc(chosen | {name: value}) for value in values}
            chosen[name] = max(means, key=means.get)
            print(f"{name}: " + ", ".join(f"{v:g} {acc:.2%}" for v, acc in means.items()))
        return chosen

    def mean_acc(self, settings: dict) -> float:
        """Over all networks."""
        return statistics.mean(self.row(name, settings)["acc"] for name in CASES)

    def row(self, name: str, settings: dict) -> dict:
        """What is recorded of one run, or what it gives now."""
        return self._find(name, settings) or self._add(name, settings, self._learned)

    def lenet(self) -> list[dict]:
        """The single task's trials."""
        trials = [LENET | {k: list(v) if isinstance(v, tuple) else v for k, v in t.items()}
                  for t in LENET_TRIALS]
        name = "LeNet, one task"
        return [self._find(name, t) or self._add(name, t, self._fitted) for t in trials]

    def _find(self, name: str, settings: dict) -> dict | None:
        same = (r for r in self.rows if r["network"] == name and r["settings"] == settings)
        return next(same, None)

    def _add(self, name: str, settings: dict, run) -> dict:
        start = time.perf_counter()
        row = {"network": name, "settings": settings, **run(name, settings)}
        row |= {"seconds": round(time.perf_counter() - start, 1), "commit": self.commit}
        self.rows.append(row)
        write_json(PLACE, self.rows)
        print(f"{name:28} {settings}  {row['acc']:.2%}  {row['seconds']} s", flush=True)
        return row

    def _learned(self, name: str, settings: dict) -> dict:
        stream = self.streams[CASES[name].stream]
        given = SETTINGS | settings
        hnet = build(name, self.data, stream.num_tasks, given.pop("num_chunks"))
        return metrics(learn(hnet, stream, most=2000, **given))

    def _fitted(self, name: str, settings: dict) -> dict:
        return {"acc": fit_lenet(self.data, **settings)[1]}


def main() -> int:
    """Searches, then prints what was found; 0."""
    torch.set_num_threads(1)
    search = Search(load_data("mnist", "validation"))
    print(search.choose())
    best = max(search.lenet(), key=lambda row: row["acc"])
    print(best["settings"], f"{best['acc']:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
