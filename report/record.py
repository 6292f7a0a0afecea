"""Finished runs of a profile, written down as reference results that git keeps.

    python report/record.py --profile laptop --dataset mnist

Reads `runs/`, trains nothing. Writes `report/reference/<profile>/summary.json`, one row for each
method over the (seed, permutation_seed) pairs that are finished, each run's settings, metrics and
provenance beside it, and the figure of the README. Accuracies are fractions.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from hnetlib import plots
from hnetlib.config import make_config
from hnetlib.data import load_data
from hnetlib.runs import Run

HERE = Path(__file__).resolve().parent
PAIRS = (0, 1, 2)  # seed and permutation_seed are the same number in each pair
# name in the summary: what differs from the profile
METHODS: dict[str, dict] = {"hnet": {}, "hnet-beta0": {"beta": 0.0, "num_tasks": 20}}
LABELS = {"hnet": "with the regulariser", "hnet-beta0": "without"}


def finished_runs(profile: str, dataset: str, checksum: str, changes: dict) -> list[Run]:
    """The finished ones among the runs of a method, one for each pair."""
    found = []
    for pair in PAIRS:
        config = make_config(profile, dataset, seed=pair, permutation_seed=pair, **changes)
        run = Run("hnet", config, checksum)
        if run.finished:
            found.append(run)
    return found


def summarise(method: str, runs: list[Run]) -> dict:
    """One row of the summary: means over the runs, and what the method is made of."""
    results = [run.results for run in runs]

    def mean(name: str) -> float:
        return statistics.fmean(result[name] for result in results)

    accuracies = [result["acc"] for result in results]
    config, first = runs[0].config, results[0]
    # the penalty needs a copy of the hypernetwork, or a whole network for each task
    snapshots = {
        "before_task": first["trainable"],
        "at_learning": config.num_tasks * first["num_weights"],
    }
    return {
        "method": method,
        "profile": config.profile,
        "dataset": config.dataset,
        "num_tasks": config.num_tasks,
        "n_seeds": len(runs),
        "acc_mean": statistics.fmean(accuracies),
        "acc_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "learning_acc_mean": mean("learning_acc"),
        "bwt_mean": mean("bwt"),
        "forgetting_mean": mean("forgetting"),
        "train_seconds_mean": mean("train_seconds"),
        "eval_seconds_mean": mean("eval_seconds"),
        "trainable": first["trainable"],
        "stored_train": snapshots[config.snapshot] if config.beta else 0,
        "stored_eval": first["trainable"],
        "hardware": runs[0].provenance["hardware"],
        "commit": runs[0].provenance["commit"],
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 after one line where there is nothing to record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--dataset", default="mnist", choices=["mnist", "digits"])
    options = parser.parse_args(arguments)
    place = HERE / "reference" / options.profile
    checksum = load_data(options.dataset).checksum
    rows, matrices = [], {}
    for method, changes in METHODS.items():
        runs = finished_runs(options.profile, options.dataset, checksum, changes)
        if runs:
            rows.append(summarise(method, runs))
            matrices[LABELS[method]] = runs[0].matrix
        for run in runs:
            whole = {"method": method, "config": run.config.as_dict()}
            whole |= {"provenance": run.provenance, "results": run.results}
            _write(place / "runs" / f"{method}-s{run.config.seed}.json", json.dumps(whole))
    if not rows:
        print(f"error: no finished run of profile {options.profile} to record", file=sys.stderr)
        return 1
    _write(place / "summary.json", json.dumps(rows, indent=1))
    figure = plots.retention(matrices, reference={"chance": plots.CHANCE})
    figure.savefig(place / "retention.png", dpi=144, metadata={"Software": None})
    for row in rows:
        print(f"{row['method']:12} {row['num_tasks']:4} tasks  n={row['n_seeds']}", end="  ")
        print(f"ACC {row['acc_mean']:.2%}  BWT {100 * row['bwt_mean']:+.2f} points")
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_suffix(".part")
    side.write_text(text + "\n")
    os.replace(side, path)


if __name__ == "__main__":
    sys.exit(main())
