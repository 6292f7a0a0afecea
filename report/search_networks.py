"""Settings of chapter 8, chosen on validation: one rate and one beta for all its networks.

    python -m report.search_networks    # what is not recorded yet; can be stopped at any time

All networks learn their streams with each value of a setting; the one with the best mean ACC stays,
and the next setting is tried. The convolutional LeNet that learns one task has settings of its own.
Writes `report/reference/laptop/networks.json`, a row for each run: MNIST, held-out training images,
`permutation_seed` 1000.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from hnetlib.experiment import paths
from hnetlib.experiment.data import ImageData, load_data
from hnetlib.experiment.evaluation import metrics
from hnetlib.experiment.files import write_json
from hnetlib.experiment.networks import Case, build, make_cases, make_streams, pretrained_lenet
from hnetlib.experiment.provenance import provenance
from hnetlib.experiment.stream_learner import learn
from hnetlib.experiment.streams import ShiftedTask
from report.command import in_one_line

NUM_TASKS, STEPS, BATCH_SIZE, NUM_IMAGES, HIDDEN = 5, 120, 64, 2000, [100]
ORDER = [("lr", (3e-3, 1e-3, 1e-2)), ("beta", (0.1, 0.01, 1.0)), ("num_chunks", (20,))]
# One task: images moved by a pixel each way. Fewer steps, and batches of 128 that are not moved,
# came first: their rows are kept.
LENET = {"steps": 4000, "num_chunks": 20}
LENET_ORDER = [("lr", (2e-3,))]
PLACE = paths.reference_dir("laptop") / "networks.json"


class Search:
    """The rows that are recorded, and the runs that add to them."""

    def __init__(self, data: ImageData) -> None:
        self.data, self.streams = data, make_streams(data, NUM_TASKS, permutation_seed=1000)
        self.cases = make_cases(pretrained_lenet(data, STEPS, BATCH_SIZE))
        self.rows = json.loads(PLACE.read_text()) if PLACE.is_file() else []
        self.commit = provenance()["commit"]

    def choose(self, order: list[tuple[str, tuple]], score: Callable[[dict], float]) -> dict:
        """The settings that score best, one found after the other."""
        chosen = {name: values[0] for name, values in order}
        for name, values in order:
            scores = {value: score(chosen | {name: value}) for value in values}
            chosen[name] = max(scores, key=scores.get)
            print(f"{name}: " + ", ".join(f"{v:g} {s:.2%}" for v, s in scores.items()), flush=True)
        return chosen

    def mean_acc(self, settings: dict) -> float:
        """Over all networks."""
        runs = (self.acc(n, settings, partial(self.learned, c)) for n, c in self.cases.items())
        return statistics.mean(runs)

    def lenet_acc(self, settings: dict) -> float:
        """Of the one task."""
        return self.acc("convolutional LeNet, one task", LENET | settings, self.single)

    def acc(self, name: str, settings: dict, run: Callable[[dict], dict]) -> float:
        """Of one run, recorded or made now."""
        for row in self.rows:
            if row["network"] == name and row["settings"] == settings:
                return row["acc"]
        start = time.perf_counter()
        row = {"network": name, "settings": settings, **run(settings)}
        row |= {"seconds": round(time.perf_counter() - start, 1), "commit": self.commit}
        self.rows.append(row)
        write_json(PLACE, self.rows)
        print(f"{name:29} {settings}  {row['acc']:.2%}  {row['seconds']} s", flush=True)
        return row["acc"]

    def learned(self, case: Case, settings: dict) -> dict:
        """Metrics of a stream."""
        hnet = build(case, NUM_TASKS, settings["num_chunks"], HIDDEN)
        given = {"lr": settings["lr"], "beta": settings["beta"], "most": NUM_IMAGES}
        stream = self.streams[case.stream]
        return metrics(learn(hnet, stream, steps=STEPS, batch_size=BATCH_SIZE, **given))

    def single(self, settings: dict) -> dict:
        """The same of one task, the images as they are."""
        hnet = build(self.cases["convolutional LeNet"], 1, settings["num_chunks"], HIDDEN)
        given = {"steps": settings["steps"], "lr": settings["lr"], "beta": 0.0}
        return metrics(learn(hnet, ShiftedTask(self.data), batch_size=BATCH_SIZE, **given))


@in_one_line
def main() -> int:
    """Searches, then prints what was found; 0."""
    torch.set_num_threads(1)
    search = Search(load_data("mnist", "validation"))
    print(search.choose(ORDER, search.mean_acc), search.choose(LENET_ORDER, search.lenet_acc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
