"""A thousand tasks that do not touch each other, learned in as many processes as there are cores.

    python -m report.many_tasks                                   # 1,000 tasks of tokens-small
    python -m report.many_tasks --num-tasks 200 --processes 4     # can be stopped and goes on

Files of single tasks go to `runs/many-<profile>/`. Writes `report/reference/many/summary.json`:
accuracy of all tasks at the end and when each was learned, what is stored, seconds, memory.
"""

import argparse
import resource
import statistics
import sys
import time

from hnetlib.experiment import evaluation, paths
from hnetlib.experiment.apart import learn_apart
from hnetlib.experiment.config import available_cores, make_config
from hnetlib.experiment.files import write_json
from hnetlib.experiment.provenance import provenance


def main(arguments: list[str] | None = None) -> int:
    """Learns, evaluates and writes the summary; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tokens-small")
    parser.add_argument("--num-tasks", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=available_cores())
    options = parser.parse_args(arguments)
    config = make_config(options.profile, "mnist", num_tasks=options.num_tasks, threads=1)
    place = paths.runs_dir() / f"many-{options.profile}-s{config.seed}"
    start = time.perf_counter()
    learner = learn_apart(config, place, options.processes)
    seconds = time.perf_counter() - start
    accs = evaluation.evaluate_task_aware(learner.hnet, learner.tasks, config.num_tasks, 0, 1)
    moved = [abs(accs[task] - acc) for task, acc in learner.accuracies.items()]
    memory = max(resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN))
    row = {
        "profile": options.profile,
        "num_tasks": config.num_tasks,
        "acc": float(accs.mean()),
        "acc_least": float(accs.min()),
        "acc_std_over_tasks": statistics.stdev(accs.tolist()),
        "largest_change": float(max(moved)),
        "stored_eval": learner.stored_eval,
        "processes": options.processes,
        "seconds_of_this_call": seconds,
        "largest_process_mb": memory / 1024,
        **provenance(),
    }
    summary = paths.reference_dir("many") / "summary.json"
    summary.parent.mkdir(parents=True, exist_ok=True)
    write_json(summary, row)
    print(f"{row['num_tasks']} tasks: ACC {row['acc']:.2%}, {row['stored_eval']:,} numbers stored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
