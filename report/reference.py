"""Reference runs: a committed list, trained one after the other, recorded as each one lands.

    python report/reference.py --profile laptop            # all that are not recorded yet
    python report/reference.py --profile laptop --no-train # only write down what is finished

Writes `report/reference/<profile>/`: each run's settings, metrics and provenance, `summary.json`
with one row for each method over its (seed, permutation_seed) pairs, and the figure of the README.
Accuracies are fractions. `logs/reference/<method>/<profile>-s<seed>/` gets each run's TensorBoard
log; a recorded run whose log is not there gets one, its training curves if its checkpoint is on
disk. Can be stopped at any time: the same command skips what is recorded and resumes what was
begun. A run that is recorded with the same settings is not made again, also if the code has changed
since: its commit is beside it, and `--anew` makes it again.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hnetlib import evaluation, paths, plots, pretrained, tracking
from hnetlib.config import Config, make_config, plain
from hnetlib.data import load_data
from hnetlib.learner import load_hnet, train_or_load
from hnetlib.runs import Run, write_json
from hnetlib.tasks import PermutedTasks

PLAIN = {"plain": True}  # the profile that learns as in the paper, instead of the one asked for
# method: what differs from the profile, and the pairs: seed and permutation_seed are one number
METHODS: dict[str, tuple[dict, tuple[int, ...]]] = {
    "hnet": ({}, (0, 1, 2)),
    "hnet-adam": (PLAIN, (0,)),
    "hnet-beta0": (PLAIN | {"beta": 0.0, "num_tasks": 20}, (0,)),
}
LABELS = {"hnet": "with the regulariser", "hnet-beta0": "without"}
PROFILES = ("laptop",)


def planned(profile: str) -> Iterator[tuple[str, Config]]:
    """The runs of a profile on MNIST, the first pair of every method before the second of any."""
    for pair in range(max(len(pairs) for _, pairs in METHODS.values())):
        for method, (changes, pairs) in METHODS.items():
            if pair < len(pairs):
                seed = pairs[pair]
                settings = {"seed": seed, "permutation_seed": seed, **changes}
                chosen = plain(profile) if settings.pop("plain", False) else profile
                yield method, make_config(chosen, "mnist", **settings)


def recorded(place: Path) -> list[dict]:
    """The runs that are written down, in the order of their methods and seeds."""
    runs = [json.loads(path.read_text()) for path in sorted((place / "runs").glob("*.json"))]
    order = list(METHODS)
    return sorted(runs, key=lambda run: (order.index(run["method"]), run["config"]["seed"]))


def record(method: str, run: Run, place: Path) -> None:
    """Writes down one finished run and its log; of the profile's first, the hypernetwork too."""
    whole = {"method": method, "run": run.name, "config": run.config.as_dict()}
    whole |= {"provenance": run.provenance, "results": run.results}
    if (method, run.config.seed) == ("hnet", 0):
        whole["half_precision_acc"] = save_half(run)
    (place / "runs").mkdir(parents=True, exist_ok=True)
    write_json(place / "runs" / f"{method}-s{run.config.seed}.json", whole, indent=None)
    write_reference_log(whole)


def log_directory(recorded_run: dict) -> Path:
    """Where the TensorBoard log of a recorded run is."""
    config = recorded_run["config"]
    name = f"{config['profile']}-s{config['seed']}"
    return paths.reference_logs_dir() / recorded_run["method"] / name


def write_reference_log(recorded_run: dict) -> None:
    """The TensorBoard log of a recorded run; without its checkpoint, of what R says alone."""
    checkpoint = paths.runs_dir() / recorded_run["run"] / "checkpoint.pt"
    history = None
    if checkpoint.is_file():
        history = torch.load(checkpoint, map_location="cpu", weights_only=True).get("history")
    tracking.write_log(
        log_directory(recorded_run),
        recorded_run["method"],
        settings_of(recorded_run["config"]),
        recorded_run["results"],
        recorded_run["provenance"]["date"],
        history,
    )


def save_half(run: Run) -> float:
    """Keeps the trained hypernetwork in half precision; returns the ACC it then has."""
    config = run.config
    pretrained.save(load_hnet(run), config)
    data = load_data(config.dataset, config.split, config.device)
    tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
    loaded = pretrained.load(config.profile)
    return float(evaluation.evaluate_task_aware(loaded, tasks, config.num_tasks).mean())


def settings_of(config: dict) -> dict:
    """A recorded run's settings, those it had no name for yet at their defaults."""
    return Config(**config).as_dict()


def summarise(runs: list[dict]) -> dict:
    """One row of the summary: means over a method's runs, and what the method is made of."""
    config, first = settings_of(runs[0]["config"]), runs[0]["results"]

    def values(name: str) -> list[float]:
        return [run["results"][name] for run in runs]

    # the penalty needs a copy of the hypernetwork, or a whole network for each task
    snapshots = {
        "before_task": first["trainable"],
        "at_learning": config["num_tasks"] * first["num_weights"],
    }
    spread = statistics.stdev(values("acc")) if len(runs) > 1 else None
    row = {"method": runs[0]["method"]}
    row |= {name: config[name] for name in ("profile", "dataset", "num_tasks")}
    row |= {"n_seeds": len(runs), "acc_mean": statistics.fmean(values("acc")), "acc_std": spread}
    for name in ("learning_acc", "bwt", "forgetting", "train_seconds", "eval_seconds"):
        row[f"{name}_mean"] = statistics.fmean(values(name))
    row["trainable"] = row["stored_eval"] = first["trainable"]
    row["stored_train"] = snapshots[config["snapshot"]] if config["beta"] else 0
    return row | {name: runs[0]["provenance"][name] for name in ("hardware", "commit")}


def write_summary(place: Path) -> list[dict]:
    """Writes summary.json and the figure from the recorded runs; returns the rows."""
    runs = recorded(place)
    by_method = {run["method"]: [] for run in runs}
    for run in runs:
        by_method[run["method"]].append(run)
    rows = [summarise(same) for same in by_method.values()]
    write_json(place / "summary.json", rows)
    matrices = {
        LABELS[method]: np.array(same[0]["results"]["R"], dtype=float)
        for method, same in by_method.items()
        if method in LABELS
    }
    figure = plots.retention(matrices, reference={"chance": plots.CHANCE})
    figure.savefig(place / "retention.png", dpi=144, metadata={"Software": None})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 after one line where there is nothing to record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", choices=PROFILES)
    parser.add_argument("--no-train", action="store_true", help="only write down finished runs")
    parser.add_argument("--anew", action="store_true", help="make recorded runs again too")
    options = parser.parse_args(arguments)
    place = paths.reference_dir(options.profile)
    checksum = load_data("mnist").checksum
    known = [(run["method"], settings_of(run["config"])) for run in recorded(place)]
    for method, config in planned(options.profile):
        run = Run(config, checksum)
        if (method, config.as_dict()) in known and not options.anew:
            print(f"{method}, seed {config.seed}: recorded already")
            continue
        if not run.finished:
            if options.no_train:
                continue
            print(f"{method}, seed {config.seed}: training {config.num_tasks} tasks", flush=True)
            run = train_or_load(config)
        record(method, run, place)
        write_summary(place)
    if not (place / "runs").is_dir():
        print(f"error: no finished run of profile {options.profile} to record", file=sys.stderr)
        return 1
    for run in recorded(place):
        if not (log_directory(run) / tracking.FILE_NAME).is_file():
            write_reference_log(run)
    for row in write_summary(place):
        print(f"{row['method']:12} {row['num_tasks']:4} tasks  n={row['n_seeds']}", end="  ")
        print(f"ACC {row['acc_mean']:.2%}  BWT {100 * row['bwt_mean']:+.2f} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
