"""Accuracy against everything stored: tokens that carry the task, and what they are compared with.

    python -m report.frontier                      # what is not recorded yet; can be stopped
    python -m report.frontier --kinds tokens tried # of these kinds alone
    python -m report.frontier --list               # what there is to measure

Each row is one setting, measured on validation images, with permutations of which no result is
reported. Tasks do not touch each other once the first has taught the generator, so those that
follow it are a sample of all: `acc` is the mean of `LATER` of them, `first` the accuracy of the
first one, and `stored` what a hundred tasks need in all, in numbers of 32 bits. `acc_8_bits` and
`acc_4_bits` are with later tasks' tokens rounded to as many bits, `stored_8_bits` and
`stored_4_bits` what is then stored, in numbers of 32 bits too.

| kind | what |
|---|---|
| tokens | the frontier's candidates |
| tried | the profile `tokens` with one thing changed |
| linear | generators without a sine: each column is a sum of `task_token_dim` shared ones |
| random | generators that stay as they started: tokens and what tasks share learn alone |
| separate | a network of its own for each task, as narrow as the budget wants |

Writes `report/reference/frontier/search.json`, and the figure of the README beside it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from hnetlib.experiment import evaluation, paths
from hnetlib.experiment.baselines import SeparateLearner
from hnetlib.experiment.config import Config, make_config
from hnetlib.experiment.data import ImageData, load_data
from hnetlib.experiment.files import write_json
from hnetlib.experiment.frontier import BOUND, draw, points
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.provenance import provenance
from hnetlib.experiment.step import prepare_torch
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork
from report.command import in_one_line

LATER = 3  # tasks measured after the first
TASKS = 100  # what `stored` is for


def point(dim: int, pixels: int, hidden: int | str, width: int, frequency: float, **more) -> dict:
    """Settings of a point: length of a token, pixels that have one, sizes of target and sines."""
    return {
        "task_token_dim": dim,
        "pixels_with_token": pixels,
        "hnet_hidden": [width],
        "target": f"mlp-{hidden}",
        "frequency": frequency,
    } | more


SMALL, MIDDLE, LARGE = (
    point(4, 384, 160, 40, 2.0, steps_per_task=1200),
    point(12, 510, 300, 64, 1.5),
    point(20, 580, "400-200", 64, 1.0, label_smoothing=0.1, first_task_factor=10),
)
TOKENS = [
    SMALL,
    MIDDLE,
    LARGE,
    point(2, 270, 100, 32, 2.5),
    point(3, 320, 120, 40, 2.5),
    point(7, 420, 200, 48, 1.5),
    point(36, 660, 500, 64, 0.7),
    point(80, 700, 700, 96, 0.5, token_lr_factor=100.0),
    point(20, 580, "400-200", 64, 1.0, label_smoothing=0.1),
    point(20, 620, 400, 64, 1.0),
    point(20, 620, 400, 64, 1.0, label_smoothing=0.1, steps_per_task=2000),
    point(20, 620, 400, 64, 1.5),
    point(16, 640, 400, 64, 1.3),
    point(20, 620, 500, 96, 1.2),
    point(20, 620, 400, 64, 1.0, steps_per_task=2000),
    point(20, 620, 400, 64, 1.0, label_smoothing=0.1),
    point(20, 620, 500, 96, 1.0, label_smoothing=0.1, steps_per_task=2000),
    MIDDLE | {"label_smoothing": 0.1},
    SMALL | {"seed": 1},
    SMALL | {"first_task_factor": 8},
    point(3, 500, 120, 48, 2.5),
    point(5, 300, 160, 40, 2.0),
]
# The middle one with one thing changed.
TRIED = [
    {"token_lr_factor": 100.0},
    {"token_lr_factor": 400.0},
    {"frequency": 1.0},
    {"frequency": 3.0},
    {"hnet_hidden": [128]},
    {"hnet_hidden": [64, 64]},
    {"target": "mlp-100"},
    {"target": "mlp-300-100"},
    {"first_task_factor": 2},
    {"first_task_factor": 12},
    {"batch_size": 256},
    {"steps_per_task": 2000},
    {"hnet_activation": "relu", "frequency": 0.0},
]
RIVALS = [SMALL, MIDDLE, LARGE]
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
SEPARATE_RATES = (3e-3, 1e-2, 3e-2)
NARROW, NARROW_RATES, STARTS = (1, 2, 4, 8), (1e-3, 3e-3, 1e-2), range(1, 9)
KINDS = ("tokens", "tried", "linear", "random", "separate")


def planned() -> Iterator[tuple[str, dict]]:
    """Kind and settings of each row."""
    yield from (("tokens", settings) for settings in TOKENS)
    for hidden in WIDTHS:
        for lr in SEPARATE_RATES:
            yield "separate", {"target": f"mlp-{hidden}", "lr": lr, "steps_per_task": 1000}
    for hidden, lr, seed in product(NARROW, NARROW_RATES, STARTS):
        narrow = {"target": f"mlp-{hidden}", "lr": lr, "steps_per_task": 1000, "seed": seed}
        yield "separate", narrow  # other starts: of so few units all may die in one
    yield from (("tried", MIDDLE | change) for change in TRIED)
    for kind in ("linear", "random"):
        yield from ((kind, settings) for settings in RIVALS)
    yield "linear", MIDDLE | {"token_lr_factor": 30.0}


def config_of(kind: str, settings: dict) -> Config:
    """Of one row, on validation."""
    method = {"method": "separate", "num_tasks": 1} if kind == "separate" else {}
    shared = {"num_tasks": 1 + LATER, "split": "validation", "permutation_seed": 1000, "threads": 1}
    return make_config("tokens", "mnist", **shared | settings | method)


def measure(kind: str, settings: dict, data: ImageData) -> dict:
    """One row: what was measured, without its name."""
    config = config_of(kind, settings)
    prepare_torch(config)
    tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
    if kind == "separate":
        learner = SeparateLearner(config, tasks)
        learner.learn_task(0)
        acc = accuracy(learner.network, tasks)[0]
        return {"acc": acc, "first": acc, "stored": TASKS * config.num_weights}
    learner = Learner(config, tasks)
    prepare_generator(kind, learner.hnet)
    for task in range(config.num_tasks):
        learner.learn_task(task)
    return results(learner)


def prepare_generator(kind: str, hnet: Hypernetwork) -> None:
    """What makes the two simple rivals: no sine, or nothing learned."""
    if kind == "linear":
        first, width = hnet.body[0], hnet.output_layer.in_features
        hnet.body = nn.Sequential(nn.Linear(first.in_features, width))
        nn.init.normal_(hnet.body[0].weight, std=first.in_features**-0.5)
    if kind == "random":
        hnet.body.requires_grad_(False)
        hnet.output_layer.requires_grad_(False)


def results(learner: Learner) -> dict:
    """Accuracies and sizes of a learner that is done, tokens as they are and rounded."""
    hnet, tasks = learner.hnet, learner.tasks
    accs = accuracy(hnet, tasks)
    one_task = hnet.task_tokens[0].numel() + hnet.num_chunks / 32
    shared = learner.stored_eval - math.ceil(hnet.num_tasks * one_task)
    row = {"acc": sum(accs[1:]) / LATER, "first": accs[0], "accs": accs}
    row["stored"] = math.ceil(shared + TASKS * one_task)
    tokens = [token.detach().clone() for token in hnet.task_tokens]
    for bits in (8, 4):
        for task, token in enumerate(tokens):
            hnet.task_tokens[task].data.copy_(rounded(token, bits))
        row[f"acc_{bits}_bits"] = sum(accuracy(hnet, tasks)[1:]) / LATER
        kept = tokens[0].numel() * bits / 32 + 2 * tokens[0].shape[1] + hnet.num_chunks / 32
        row[f"stored_{bits}_bits"] = math.ceil(shared + TASKS * kept)
    return row


def rounded(token: Tensor, bits: int) -> Tensor:
    """Tokens [U, K] at 2**bits equal steps from least to largest, those of each of the K."""
    least, largest = token.amin(0), token.amax(0)
    step = ((largest - least) / (2**bits - 1)).clamp_min(1e-12)
    return least + step * ((token - least) / step).round()


def accuracy(network: evaluation.Network, tasks: PermutedTasks) -> list[float]:
    """Of each task, evaluated by itself."""
    return evaluation.evaluate_task_aware(network, tasks, tasks.num_tasks, 0, 1).tolist()


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Measures what is not recorded yet, one row at a time; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="these alone")
    parser.add_argument("--first", type=int, help="no more than this many of each kind")
    parser.add_argument("--list", action="store_true", help="print what there is, measure nothing")
    options = parser.parse_args(arguments)
    place = paths.reference_dir("frontier") / "search.json"
    rows = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else []
    done: dict[str, int] = {}
    for kind, settings in planned():
        done[kind] = done.get(kind, 0) + 1
        beyond = options.first and done[kind] > options.first
        if kind not in options.kinds or beyond:
            continue
        if options.list:
            print(kind, settings)
        elif not any(row["kind"] == kind and row["settings"] == settings for row in rows):
            record(kind, settings, rows, place)
    if not options.list:
        figure = draw(points(), bound=BOUND)
        figure.savefig(place.with_name("frontier.png"), dpi=144, metadata={"Software": None})
    return 0


def record(kind: str, settings: dict, rows: list[dict], place: Path) -> None:
    """Measures one row, adds it and writes them all."""
    start = time.process_time()
    row = {"kind": kind, "settings": settings}
    row |= measure(kind, settings, load_data("mnist", "validation"))
    row["cpu_seconds"] = round(time.process_time() - start, 1)
    rows.append(row | {"later": LATER, "commit": provenance()["commit"]})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, rows)
    print(f"{kind:9} {row['acc']:.2%}  {row['stored']:>9,}  {settings}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
