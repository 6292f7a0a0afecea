"""Trained runs not told the task: every rule of chapter 10, on test images, recorded by seed.

    python -m report.untold --profile tokens        # of its finished runs in runs/

The runs are those of `report.reference`, whose checkpoints have to be there; rules were chosen on
validation. The rule by weights is measured on all test images, the others, for which all networks
look at every image, on `NUM_IMAGES` of each task. Writes `report/reference/<profile>/untold.json`:
a row for each seed and rule.
"""

import argparse
import json
import sys

from hnetlib.experiment import inference, paths
from hnetlib.experiment.data import ImageData, load_data
from hnetlib.experiment.files import write_json
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.profiles import PROFILES
from hnetlib.experiment.runs import Run
from hnetlib.experiment.step import prepare_torch
from hnetlib.experiment.tasks import PermutedTasks
from report.command import in_one_line
from report.planned import planned

NUM_IMAGES = 500  # of each task, at equal distances
KNOWN_BY = ("seed", "num_tasks")  # rows of others stay


def rows_of(run: Run, data: ImageData, num_images: int) -> list[dict]:
    """What every rule finds in one finished run, a row each."""
    config, hnet = run.config, load_hnet(run)
    tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
    kinds = {rule: kind for kind, group in inference.RULES.items() for rule in group}
    rules = {rule: inference.RULES[kind][rule] for rule, kind in kinds.items()}
    if config.noise_share:
        rules, kinds = rules | inference.NOT_NONE, kinds | {"not none": "confidence"}
    by_weights, everything = inference.BY_WEIGHTS, len(data.eval_labels)
    others = {name: rule for name, rule in rules.items() if name != by_weights}
    found = inference.evaluate(hnet, tasks, others, num_images, inference.BATCH)
    found[by_weights] = inference.evaluate_by_weights(hnet, tasks, everything, inference.BATCH)
    images = dict.fromkeys(others, num_images) | {by_weights: everything}
    shared = {"seed": config.seed, "num_tasks": config.num_tasks}
    shared["commit"] = run.provenance["commit"]
    return [
        shared | {"num_images": images[rule], "asked": kinds[rule], "rule": rule} | vars(said)
        for rule, said in ((rule, found[rule]) for rule in rules)
    ]


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 after one line where no run is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", choices=list(PROFILES))
    parser.add_argument("--num-images", type=int, default=NUM_IMAGES)
    options = parser.parse_args(arguments)
    place, found = paths.reference_dir(options.profile) / "untold.json", 0
    rows = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else []
    data = load_data("mnist")
    for method, config in planned(options.profile):
        run = Run(config, data.checksum)
        if method != "hnet" or not run.finished:
            continue
        prepare_torch(config)
        mine = rows_of(run, data, options.num_images)
        same = [mine[0][name] for name in KNOWN_BY]
        rows = [row for row in rows if [row[name] for name in KNOWN_BY] != same] + mine
        write_json(place, sorted(rows, key=lambda row: [row[name] for name in KNOWN_BY]))
        best, found = max(mine, key=lambda row: row["label"]), found + 1
        print("seed {seed}: {rule}, class right {label:.2%}".format(**best), flush=True)
    if not found:
        print(f"error: no finished run of profile {options.profile} here", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
