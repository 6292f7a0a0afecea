"""What is known of accuracy against everything stored, over 100 tasks of PermutedMNIST."""

import json
import math
from typing import NamedTuple

from hnetlib.experiment import paths
from hnetlib.experiment.config import NUM_PIXELS

BITS_A_TASK = math.lgamma(NUM_PIXELS + 1) / math.log(2)  # of one permutation of the pixels
BOUND = ("the bits of 100 permutations", 100 * BITS_A_TASK / 32)
TASKS, TOKENS = 100, ("tokens-small", "tokens", "tokens-large")
Points = list[tuple[float, float]]  # parameters stored, final average accuracy


class Published(NamedTuple):
    """A point that others published."""

    label: str
    name: str
    stored: float  # parameters, of 32 bits
    acc: float
    source: str


POSTERIOR = "chrhenning/posterior_replay_cl, probabilistic/prob_mnist/README.rst; one run"
MASSE = "numenta/htmpapers, from the figure of Masse et al.; a random gate per task besides"
PUBLISHED = (
    Published("PR-Dirac-SR", "PR-Dirac-SR, deterministic", 2.95e6, 0.9590, POSTERIOR),
    Published("PR-BbB-SR", "PR-BbB-SR, Bayesian", 5.58e6, 0.9684, POSTERIOR),
    Published("SI + XdG", "SI with context gating", 5.59e6, 0.9550, MASSE),
)
KINDS = {  # of rows of the search, on validation
    "tokens": "tokens",
    "separate": "a network for each task",
    "linear": "linear generator",
    "random": "generator never learned",
}


def points() -> dict[str, Points]:
    """By name: committed runs on test images, searches on validation, and what is published."""
    found = {f"{name} (validation)": searched(kind) for kind, name in KINDS.items()}
    found["tokens in 8 bits (validation)"] = searched("tokens", "_8_bits")
    rows = {row["profile"]: row for row in _rows() if row["method"] == "hnet"}
    (rows["separate"],) = [row for row in _rows() if row["method"] == "separate"]
    sizes = {name: (row["stored_eval"], row["acc_mean"]) for name, row in rows.items()}
    found["tokens"] = [sizes.pop(name) for name in TOKENS if name in sizes]
    found |= {name: [size] for name, size in sizes.items()}
    found |= {f"{p.label} (published)": [(p.stored, p.acc)] for p in PUBLISHED}
    return {name: some for name, some in found.items() if some}


def called(row: dict) -> str:
    """A summary row's method; wide: a plain network with as many numbers as the hypernetwork."""
    return row["method"] + (", wide" if row.get("size") == "matched" else "")


def searched(kind: str, bits: str = "") -> Points:
    """Points of the search that no other of their kind beats with fewer parameters.

    Of one start each, but for networks for each task: of so few units all may die in one.
    """
    path = paths.reference_dir("frontier") / "search.json"
    rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row["kind"] == kind]
    if kind != "separate":
        rows = [row for row in rows if not row["settings"].get("seed")]
    best: Points = []
    for stored, acc in sorted((row[f"stored{bits}"], -row[f"acc{bits}"]) for row in rows):
        if not best or -acc > best[-1][1]:
            best.append((stored, -acc))
    return best


def _rows() -> list[dict]:
    """Rows of all summaries, of 100 tasks with all their steps."""
    found = []
    for path in sorted(paths.reference_dir("").glob("*/summary.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["num_tasks"] == TASKS and "brief" not in row["profile"]:
                found.append(row)
    return found
