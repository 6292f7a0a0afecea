"""Reference runs: the list of `report/planned.py`, trained and recorded as each one lands.

    python -m report.reference --profile laptop               # all that are not recorded yet
    python -m report.reference --profile laptop --methods ewc # of these methods alone
    python -m report.reference --profile laptop --no-train    # only write down what is finished

Writes `report/reference/<profile>/`: each run's settings, metrics and provenance, `summary.json`
with one row for each method over its (seed, permutation_seed) pairs, and the figure of the README.
Accuracies are fractions. `logs/reference/<method>/<profile>-s<seed>/` gets the TensorBoard log of
the first pair, but of wide plain networks, and of `laptop`'s hypernetwork those of all; a recorded
run whose log is not there gets one, its training curves if its checkpoint is on disk. Can be
stopped at any time: the same command skips what is recorded and resumes what was begun. A run that
is recorded with the same settings is not made again, also if the code has changed since: its commit
is beside it, and `--anew` makes it again. The first pair of each method is trained alone, for its
seconds; the others `--jobs` at a time, and their seconds stay out of the summary, as all do with
`--untimed`: the machine has other work.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hnetlib import plots
from hnetlib.experiment import evaluation, hnets, paths, sweep, tracking
from hnetlib.experiment.config import Config, available_cores
from hnetlib.experiment.data import load_data
from hnetlib.experiment.files import RunError, read_tensors, write_json
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.inference import BY_WEIGHTS
from hnetlib.experiment.profiles import MATCHED_SIZE, PROFILES
from hnetlib.experiment.runs import ELSEWHERE, Run
from hnetlib.experiment.tasks import PermutedTasks
from report.command import in_one_line
from report.planned import METHODS, planned

LABELS = {"hnet": "with the regulariser", "hnet-beta0": "without"}
HELD = ("laptop", "tokens-small")  # profiles whose first hypernetwork is kept for `hnetlib.load`
ALL_LOGGED = ("laptop",)  # profiles of whose hypernetwork all pairs have a log
# Settings that mean nothing to a plain network.
OF_HNET = ("hnet_hidden", "hnet_activation", "task_token_dim", "chunk_token_dim", "num_chunks")
OF_HNET += ("head_optimizer", "head_lr_factor", "damping", "beta", "look_ahead")
OF_HNET += ("penalty", "penalty_size", "snapshot")
MADE = ("hardware", "commit", "date")  # of all runs of a row, where they differ


def recorded(place: Path) -> list[dict]:
    """The runs that are written down, in the order of their methods and seeds."""
    order = list(METHODS)  # those of laptop, which are all there are
    runs = []
    for path in sorted((place / "runs").glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            runs.append(((order.index(run["method"]), run["config"]["seed"]), run))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: expected a recorded run ({error!r})") from error
    return [run for _, run in sorted(runs, key=lambda pair: pair[0])]


def record(method: str, run: Run, place: Path, timed: bool = True) -> None:
    """Writes down one finished run and its log; of the profile's first, the hypernetwork too."""
    whole = {"method": method, "run": run.name, "config": run.config.as_dict()}
    whole |= {"provenance": run.provenance, "timed": timed, "results": run.results}
    if (method, run.config.seed) == ("hnet", 0) and run.config.profile in HELD:
        whole["half_precision_acc"] = save_half(run)
    (place / "runs").mkdir(parents=True, exist_ok=True)
    write_json(place / "runs" / f"{method}-s{run.config.seed}.json", whole, indent=None)
    write_reference_log(whole)


def log_directory(recorded_run: dict) -> Path:
    """Where the TensorBoard log of a recorded run is."""
    config = recorded_run["config"]
    name = f"{config['profile']}-s{config['seed']}"
    return paths.reference_logs_dir() / recorded_run["method"] / name


def is_logged(recorded_run: dict) -> bool:
    """Whether a run has a log here: TensorBoard draws none of more than 40 until it is asked to."""
    config = recorded_run["config"]
    all_pairs = recorded_run["method"] == "hnet" and config["profile"] in ALL_LOGGED
    return all_pairs or (config["seed"] == 0 and MATCHED_SIZE not in recorded_run["method"])


def write_reference_log(recorded_run: dict) -> None:
    """The TensorBoard log of a recorded run; without its checkpoint, of what R says alone."""
    if not is_logged(recorded_run):
        return
    checkpoint = paths.runs_dir() / recorded_run["run"] / "checkpoint.pt"
    history = None
    if checkpoint.is_file():
        history = read_tensors(checkpoint).get("history")
    tracking.write_log(
        log_directory(recorded_run),
        recorded_run["method"],
        recorded_run["config"],
        recorded_run["results"],
        recorded_run["provenance"]["date"],
        history,
    )


def save_half(run: Run) -> float:
    """Keeps the trained hypernetwork in half precision; returns the ACC it then has."""
    config = run.config
    hnets.save(load_hnet(run), config)
    data = load_data(config.dataset, config.split, config.device)
    tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
    loaded = hnets.load(config.profile)
    return float(evaluation.evaluate_task_aware(loaded, tasks, config.num_tasks).mean())


def settings_of(config: dict) -> dict:
    """A recorded run's settings, those it had no name for yet at their defaults."""
    return Config.of_record(config).as_dict()


def what_it_is(method: str, config: dict) -> dict:
    """What makes a run the same as another, wherever it is made."""
    ignored = ELSEWHERE + (() if "hnet" in config["method"] else OF_HNET)
    return {"method": method} | {k: v for k, v in config.items() if k not in ignored}


def summarise(runs: list[dict]) -> dict:
    """One row of the summary: means over a method's runs, and what the method is made of."""
    config, first = settings_of(runs[0]["config"]), runs[0]["results"]
    acc = [run["results"]["acc"] for run in runs]
    name = runs[0]["method"]
    row = {"method": name.split(MATCHED_SIZE)[0], "size": size_of(runs[0]), "recorded_as": name}
    shown = ("profile", "dataset", "num_tasks", "steps_per_task", "target")
    row |= {name: config[name] for name in shown}
    row |= {"n_seeds": len(runs), "acc_mean": statistics.fmean(acc)}
    row["acc_std"] = statistics.stdev(acc) if len(runs) > 1 else None
    for name in ("learning_acc", "bwt", "forgetting"):
        row[f"{name}_mean"] = _mean(run["results"][name] for run in runs)
    for name in ("train_seconds", "eval_seconds"):
        timed = [run for run in runs if run.get("timed", True)]
        row[f"{name}_mean"] = _mean(run["results"][name] for run in timed)
    row["trainable"] = first["trainable"]
    row["stored_eval"] = first.get("stored_eval", first["trainable"])
    a_copy = first["trainable"] if config["beta"] else 0  # of a run that did not say it yet
    row["stored_train"] = first.get("stored_train", a_copy)
    made = {name: [run["provenance"][name] for run in runs] for name in MADE}
    return row | {name: "; ".join(dict.fromkeys(values)) for name, values in made.items()}


def not_told(place: Path) -> dict:
    """Share of classes right where the rule by weights has to find the task, of `report.untold`."""
    path = place / "untold.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    acc = [row["label"] for row in rows if row["rule"] == BY_WEIGHTS]
    if not acc:
        return {}
    spread = statistics.stdev(acc) if len(acc) > 1 else None
    return {"not_told_mean": statistics.fmean(acc), "not_told_std": spread, "not_told_n": len(acc)}


def size_of(run: dict) -> str | None:
    """Of a plain network: the target's, or matched to the hypernetwork's numbers."""
    if "hnet" in run["config"].get("method", "hnet"):
        return None
    return "matched" if MATCHED_SIZE in run["method"] else "target"


def _mean(values: Iterable[float | None]) -> float | None:
    """None where there is nothing to take a mean of."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def write_summary(place: Path) -> list[dict]:
    """Writes summary.json and the figure from the recorded runs; returns the rows."""
    runs = recorded(place)
    by_method = {run["method"]: [] for run in runs}
    for run in runs:
        by_method[run["method"]].append(run)
    rows = [summarise(same) for same in by_method.values()]
    for row in rows:
        if row["method"] == "hnet":
            row |= not_told(place)
    write_json(place / "summary.json", rows)
    matrices = {
        LABELS[method]: np.array(same[0]["results"]["R"], dtype=float)
        for method, same in by_method.items()
        if method in LABELS
    }
    if matrices:
        figure = plots.retention(matrices, reference={"chance": plots.CHANCE})
        figure.savefig(place / "retention.png", dpi=144, metadata={"Software": None})
    return rows


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 after one line where there is nothing to record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", choices=list(PROFILES))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="these alone")
    parser.add_argument("--no-train", action="store_true", help="only write down finished runs")
    parser.add_argument("--anew", action="store_true", help="make recorded runs again too")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="at the same time")
    parser.add_argument("--untimed", action="store_true", help="the machine has other work too")
    options = parser.parse_args(arguments)
    return make_and_summarise(options, paths.reference_dir(options.profile))


def make_and_summarise(options: argparse.Namespace, place: Path) -> int:
    """Trains and records what is missing, then writes logs and summary; the exit status."""
    make_missing(options, place)
    if not (place / "runs").is_dir():
        print(f"error: no finished run of profile {options.profile} to record", file=sys.stderr)
        return 1
    for run in recorded(place):
        if not (log_directory(run) / tracking.FILE_NAME).is_file():
            write_reference_log(run)
    for row in write_summary(place):
        print(f"{row['method']:18} {row['num_tasks']:4} tasks  n={row['n_seeds']}", end="  ")
        print(f"ACC {row['acc_mean']:.2%}")
    return 0


def make_missing(options: argparse.Namespace, place: Path) -> None:
    """Trains and records the planned runs that are not recorded yet; SweepError where some fail."""
    left = list(missing(options, recorded(place)))
    alone = [] if options.untimed else [one for one in left if one[1].seed == 0]
    others = [one for one in left if one not in alone]

    def landed() -> Iterator[sweep.Outcome]:
        for part, jobs in ((alone, 1), (others, options.jobs)):
            for outcome in sweep.train([config for _, config in part], jobs):
                yield replace(outcome, value=(part[outcome.number][0], outcome.value, jobs == 1))

    for outcome in sweep.values(landed()):
        method, run, had_the_machine = outcome.value
        record(method, run, place, timed=had_the_machine and not options.untimed)
        write_summary(place)


def missing(options: argparse.Namespace, runs: list[dict]) -> Iterator[tuple[str, Config]]:
    """The planned runs that are asked for and not recorded; with --no-train the finished ones."""
    known = [what_it_is(run["method"], settings_of(run["config"])) for run in runs]
    checksum = load_data("mnist").checksum
    for method, config in planned(options.profile):
        if options.methods and method not in options.methods:
            continue
        if what_it_is(method, config.as_dict()) in known and not options.anew:
            print(f"{method}, seed {config.seed}: recorded already")
        elif not options.no_train or Run(config, checksum).finished:
            yield method, config


if __name__ == "__main__":
    sys.exit(main())
