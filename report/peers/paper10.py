"""The paper's ten tasks by its authors' library: one run, beside those of profile `paper10`.

    python -m report.peers.paper10                  # more than an hour on one thread
    python -m report.peers.paper10 --steps 20 --num-tasks 2 --out report/build/peer.json

Same images, pixel orders, batches and number of steps as `make reference PROFILE=paper10` for its
first pair. Writes `report/reference/paper10/peer.json`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hnetlib.experiment.config import Config, defaults
from hnetlib.experiment.files import write_json
from hnetlib.experiment.paths import reference_dir
from hnetlib.experiment.provenance import provenance
from report.peers.alone import run_alone
from report.peers.compare import at_least_1, version

SCRIPT, LIBRARY = "hypnettorch_paper", "hypnettorch"


def sizes_of(config: Config, threads: int) -> dict:
    """What `report.peers.stream` is asked for, to learn as a run with this config does."""
    return {
        "num_tasks": config.num_tasks,
        "steps": config.steps_per_task,
        "threads": threads,
        "batch_size": config.batch_size,
        "dataset": config.dataset,
        "first_task_factor": config.first_task_factor,
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one line where the library or a run fails."""
    config = Config(**defaults("paper10", "mnist"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-tasks", type=at_least_1, default=config.num_tasks)
    parser.add_argument(
        "--steps",
        dest="steps_per_task",
        type=at_least_1,
        default=config.steps_per_task,
        metavar="N",
    )
    parser.add_argument("--threads", type=at_least_1, default=config.threads)
    parser.add_argument("--dataset", choices=["mnist", "mnist5k"], default="mnist")
    parser.add_argument("--out", type=Path, default=reference_dir("paper10") / "peer.json")
    options = vars(parser.parse_args(arguments))
    out, threads = options.pop("out"), options.pop("threads")
    asked = sizes_of(replace(config, **options), threads)
    try:
        row = {"library": LIBRARY, "version": version(LIBRARY)} | run_alone(SCRIPT, asked)
    except (ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"provenance": provenance() | asked, "row": row})
    print(f"{LIBRARY}: ACC {row['acc']:.2%} in {row['train_seconds'] / 60:.0f} minutes; {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
