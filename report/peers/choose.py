"""How the peers' settings were chosen: short runs on validation images, other pixel orders.

    python -m report.peers.choose avalanche_ewc        # one script's grid; without a name: all

Each run learns a few tasks with every combination of its grid, and is written down as it lands in
`report/reference/laptop/peers_search.json`; one that is there already is not made again. The best
at the most tasks are the defaults in the scripts; a test compares.
"""

import argparse
import itertools
import json
import sys

from hnetlib.experiment import sweep
from hnetlib.experiment.files import write_json
from hnetlib.experiment.paths import reference_dir
from report.peers.alone import run_alone

VALIDATION = {"split": "validation", "permutation_seed": 1000}
FEW, MORE, MOST = ({"num_tasks": number, "steps": 200} for number in (3, 5, 6))
KEPT = ("settings", "acc", "acc_per_task")
# script, size of its runs, and the values that are combined; later ones narrow down
GRIDS = (
    ("hypnettorch_all", FEW, {"lr": [1e-3, 5e-4], "beta": [0.01, 0.1, 1.0]}),
    ("avalanche_ewc", MORE, {"lr": [1e-3, 3e-3], "ewc_lambda": [1e1, 1e2, 1e3, 1e4]}),
    ("hypnettorch_all", FEW, {"lr": [2e-3], "beta": [0.01]}),
    ("hypnettorch_all", MOST, {"lr": [1e-3], "beta": [0.001, 0.01, 0.1]}),
    ("avalanche_si", MORE, {"lr": [1e-3, 3e-3], "si_lambda": [1e-1, 1e0, 1e1]}),
)


def combinations(grid: dict[str, list]) -> list[dict]:
    """Every choice of one value for each name."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def is_of(row: dict, script: str, size: dict, changes: dict) -> bool:
    """Whether a recorded row is this run."""
    wanted = {"script": script, **size}.items() <= row.items()
    return wanted and changes.items() <= row["settings"].items()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", metavar="script", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="at the same time")
    options = parser.parse_args(arguments)
    path = reference_dir("laptop") / "peers_search.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    wanted = [(script, size, c) for script, size, grid in GRIDS for c in combinations(grid)]
    left = [
        run
        for run in wanted
        if run[0] in (options.scripts or run) and not any(is_of(row, *run) for row in rows)
    ]

    def measured(run: tuple[str, dict, dict]) -> dict:
        script, size, changes = run
        row = run_alone(
            script, VALIDATION | size | {"threads": options.threads, "changes": changes}
        )
        return {"script": script, **size, **{name: row[name] for name in KEPT}}

    for outcome in sweep.values(sweep.outcomes(measured, left, workers=options.jobs)):
        rows.append(outcome.value)
        write_json(path, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
