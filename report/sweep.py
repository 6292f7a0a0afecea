"""`make sweep`: every combination of a grid of settings, trained or run as a notebook; one table.

    python -m report.sweep beta=0.01,0.03 seed=0..2 --profile laptop
    python -m report.sweep beta=0.01,0.03 seed=0..2 --notebook notebooks/05_regularised.ipynb
    python -m report.sweep grid.yaml --scheduler tcp://host:8786

Writes to `--out`: `table.csv` and `table.json`, a row for each combination of settings that
differ with mean, standard deviation and n over seeds; `jobs.json`, what came of each job; and the
executed notebooks. The same command again does what is not finished. What failed is listed at the
end, and the status is then 1.

A Dask cluster (`pip install ".[report,cluster]"`) needs workers of one thread with this hnetlib,
and `HNETLIB_RUNS`, `HNETLIB_LOGS` and `HNETLIB_DATA` on a disk that all share and that has locks.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hnetlib.experiment import paths, sweep, table
from hnetlib.experiment.config import (
    Config,
    available_cores,
    defaults,
    make_config,
    resolve_dataset,
)
from hnetlib.experiment.data import DataError
from hnetlib.experiment.files import RunError, write_json
from hnetlib.experiment.grid import combinations
from hnetlib.experiment.stops import stopped_by_sigterm
from hnetlib.experiment.sweep import Outcome, SweepError
from hnetlib.experiment.values import say_in_any_locale
from report import notebook_jobs
from report.execute import NotebookError

MEASURED = ("acc", "learning_acc", "bwt", "forgetting", "train_seconds", "eval_seconds")
Landed = Iterator[Outcome]  # with a row of results as the value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 where jobs failed, 2 after one line where nothing could begin."""
    say_in_any_locale()
    options = _parse(arguments)
    try:
        with stopped_by_sigterm():
            return run(options)
    except (ValueError, DataError, RunError, NotebookError, SweepError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is not finished", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """Does what is asked for and writes it down, also when it is stopped; the exit status."""
    combined = combinations(" ".join(options.grid))
    settings, landed = (_notebooks if options.notebook else _runs)(options, combined)
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(landed)
    finally:
        if outcomes:
            _write(settings, sorted(outcomes, key=lambda o: o.number), options.out)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"failed: {combined[outcome.number]}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def complete(combined: list[dict], options: argparse.Namespace) -> list[dict]:
    """The same with profile, data set and threads; names are sound, and data is found once."""
    start = {"profile": options.profile, "dataset": options.dataset, "threads": 1}
    asked = [start | settings for settings in combined]
    for one in asked:
        defaults(one["profile"], one["dataset"])
    found = cache(resolve_dataset)
    return [one | {"dataset": found(one["profile"], one["dataset"])} for one in asked]


def _runs(options: argparse.Namespace, combined: list[dict]) -> tuple[list[dict], Landed]:
    for settings in combined:  # before data is looked for
        make_config(**{"profile": options.profile} | settings | {"dataset": "mnist5k"})
    configs = [make_config(**settings) for settings in complete(combined, options)]
    firsts: dict[Config, dict] = {}  # settings may differ in what the profile says anyway
    for config, settings in zip(configs, combined, strict=True):
        firsts.setdefault(config, settings)
    configs, combined[:] = list(firsts), firsts.values()
    landed = sweep.train(configs, options.jobs, options.scheduler)

    def row(one: sweep.Run) -> dict:
        return {"run": one.name} | {name: one.results[name] for name in MEASURED}

    return [config.as_dict() for config in configs], _rows(landed, row)


def _notebooks(options: argparse.Namespace, combined: list[dict]) -> tuple[list[dict], Landed]:
    notebook_jobs.check(options.notebook, combined)
    jobs = notebook_jobs.jobs_of(options.notebook, complete(combined, options), options.out)
    landed = sweep.outcomes(
        notebook_jobs.run,
        jobs,
        finished=notebook_jobs.finished,
        label=lambda number: jobs[number].output.stem,
        workers=options.jobs,
        scheduler=options.scheduler,
    )

    def row(output: Path) -> dict:
        return {"notebook": output.name} | notebook_jobs.headlines(output)

    return [job.parameters for job in jobs], _rows(landed, row)


def _rows(landed: Landed, row: Callable[[Any], dict]) -> Landed:
    for outcome in landed:
        yield outcome if outcome.error else replace(outcome, value=row(outcome.value))


def _write(settings: list[dict], outcomes: list[Outcome], out: Path) -> None:
    done = [(settings[o.number], o.value) for o in outcomes if o.error is None]
    named = ("run", "notebook")
    numbers = [(s, {k: v for k, v in value.items() if k not in named}) for s, value in done]
    table.write(table.tidy(numbers), out)
    write_json(
        out / "jobs.json",
        [{"settings": settings[o.number], "error": o.error} | (o.value or {}) for o in outcomes],
    )
    print(f"{len(done)} of {len(settings)} jobs are in {out / 'table.csv'} and table.json")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", nargs="+", help="name=value,value name=first..last, or a YAML file")
    parser.add_argument("--notebook", type=Path, help="execute it instead of training")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--dataset", default="auto")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="at the same time here")
    parser.add_argument("--scheduler", help="of a Dask cluster, tcp://host:8786")
    parser.add_argument("--out", type=Path, default=paths.project_root() / "report/build/sweep")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
