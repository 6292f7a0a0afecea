"""The paper's ten tasks by its authors' library: one run, beside those of profile `paper10`.

    python -m report.peers.paper10                  # more than an hour on one thread
    python -m report.peers.paper10 --steps 20 --num-tasks 2 --out report/build/peer.json

Same images, pixel orders, batches and number of steps as `make reference PROFILE=paper10` for its
first pair. Writes `report/reference/paper10/peer.json`.
"""

import argparse
import sys
from pathlib import Path

from hnetlib.experiment.config import Config, defaults
from hnetlib.experiment.files import write_json
from hnetlib.experiment.paths import reference_dir
from hnetlib.experiment.provenance import provenance
from report.peers.alone import run_alone
from report.peers.compare import at_least_1, version

SCRIPT, LIBRARY = "hypnettorch_paper", "hypnettorch"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one line where the library or a run fails."""
    config = Config(**defaults("paper10", "mnist"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-tasks", type=at_least_1, default=config.num_tasks)
    parser.add_argument("--steps", type=at_least_1, default=config.steps_per_task)
    parser.add_argument("--threads", type=at_least_1, default=config.threads)
    parser.add_argument("--dataset", choices=["mnist", "mnist5k"], default="mnist")
    parser.add_argument("--out", type=Path, default=reference_dir("paper10") / "peer.json")
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    asked = options | {"batch_size": config.batch_size, "first_task_factor": 1}
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
