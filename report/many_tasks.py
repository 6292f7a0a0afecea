"""A thousand tasks that do not touch each other, learned by as many workers as there are cores.

    python -m report.many_tasks                                   # 1,000 tasks of tokens-small
    python -m report.many_tasks --num-tasks 250 --seed 1          # can be stopped and goes on
    python -m report.many_tasks --scheduler tcp://host:8786       # by a Dask cluster

Files of single tasks go to `runs/many-<profile>-s<seed>/`. Writes `report/reference/many/
tasks.json`, a row for each profile, seed and number of tasks: accuracy of all tasks at the end
and when each was learned, what is stored, memory; and, where the task is not told,
what the rule by weights finds on all test images of each task, one image at a time and by the
protocol of Wortsman et al. (arXiv 2006.14769): one image decides for a batch of `inference.BATCH`.
"""

import argparse
import json
import resource
import statistics
import sys

from hnetlib.experiment import evaluation, inference, paths
from hnetlib.experiment.apart import learn_apart
from hnetlib.experiment.config import Config, available_cores, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.provenance import provenance
from report.command import in_one_line

KNOWN_BY = ("profile", "seed", "num_tasks")


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Learns, evaluates and writes the summary; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tokens-small")
    parser.add_argument("--num-tasks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="also that of the permutations")
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--scheduler", help="of a Dask cluster that shares HNETLIB_RUNS")
    options = parser.parse_args(arguments)
    if options.num_tasks < 2:
        raise ValueError(f"num-tasks: expected at least 2, got {options.num_tasks}")
    config = make_config(
        options.profile,
        "mnist",
        num_tasks=options.num_tasks,
        seed=options.seed,
        permutation_seed=options.seed,
        threads=1,
    )
    place = paths.runs_dir() / f"many-{options.profile}-s{config.seed}"
    learner = learn_apart(config, place, options.workers, options.scheduler)
    row = row_of(learner, config) | provenance()
    summary = paths.reference_dir("many") / "tasks.json"
    rows = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in KNOWN_BY)] + [row]
    summary.parent.mkdir(parents=True, exist_ok=True)
    write_json(summary, sorted(rows, key=lambda r: tuple(r[key] for key in KNOWN_BY)))
    print(
        f"{row['num_tasks']} tasks: ACC {row['acc']:.2%}, not told {row['untold']['label']:.2%}, "
        f"{row['stored_eval']:,} numbers stored"
    )
    return 0


def row_of(learner: Learner, config: Config) -> dict:
    """What a learner of all tasks has kept, told the task and not told."""
    accs = evaluation.evaluate_task_aware(learner.hnet, learner.tasks, config.num_tasks, 0, 1)
    moved = [abs(accs[task] - acc) for task, acc in learner.accuracies.items()]
    images = len(learner.tasks.data.eval_labels)
    untold = inference.evaluate_by_weights(learner.hnet, learner.tasks, images, inference.BATCH)
    memory = max(resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN))
    return {
        "profile": config.profile,
        "seed": config.seed,
        "num_tasks": config.num_tasks,
        "acc": float(accs.mean()),
        "acc_least": float(accs.min()),
        "acc_std_over_tasks": statistics.stdev(accs.tolist()),
        "largest_change": float(max(moved)),
        "stored_eval": learner.stored_eval,
        "untold": vars(untold) | {"rule": inference.BY_WEIGHTS, "num_images": images},
        "largest_process_mb": memory / 1024,
    }


if __name__ == "__main__":
    sys.exit(main())
