"""What is known of accuracy against everything stored, over 100 tasks of PermutedMNIST."""

import json
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Bbox, offset_copy

from hnetlib.experiment import paths
from hnetlib.experiment.config import NUM_PIXELS
from hnetlib.plots import plt

BITS_A_TASK = math.lgamma(NUM_PIXELS + 1) / math.log(2)  # of one permutation of the pixels
BOUND = ("the bits of 100 permutations", 100 * BITS_A_TASK / 32)
TASKS, TOKENS = 100, ("tokens-small", "tokens", "tokens-large")
Points = list[tuple[float, float]]  # parameters stored, final average accuracy
OTHERS = " (published)"  # ends the names of what others measured
ERRORS = (0.8, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01)  # with a tick of their own
BESIDE = [(6, 0, "left"), (-6, 0, "right"), (0, 9, "center"), (0, -9, "center")]  # of a mark
BESIDE += [(dx, up, side) for up in (-20, 20, -32) for dx, side in ((8, "left"), (-8, "right"))]


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
    found |= {p.label + OTHERS: [(p.stored, p.acc)] for p in PUBLISHED}
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


def draw(
    points: Mapping[str, Points],
    *,
    lines: Collection[str] | None = None,
    bound: tuple[str, float] | None = None,
) -> Figure:
    """Accuracy over parameters stored, so drawn that errors of half the size are as far apart.

    Names in `lines` are joined (None: where there are several points), others have marks with
    their name beside the first. `bound`: a name, and how many parameters it is.
    """
    fig, axis = plt.subplots(figsize=(7.0, 4.8))
    ours, theirs = ("s", "0.2", "run here, test images"), ("*", "0.5", "published by others")
    named, seen = {}, set()
    for label, some in points.items():
        x, y = np.array(sorted(some)).T
        if label in lines if lines is not None else len(some) > 1:
            axis.plot(x, 1 - y, marker="o", label=label)
            continue
        mark, color, kind = theirs if label.endswith(OTHERS) else ours
        once = {} if kind in seen else {"label": kind}
        axis.plot(x, 1 - y, mark, color=color, markersize=8 if mark == "*" else 5, **once)
        named[label.removesuffix(OTHERS)] = (x[0], 1 - y[0])
        seen.add(kind)
    if bound:
        axis.axvline(bound[1], color="0.6", linestyle=":", label=bound[0])
    axis.set(xscale="log", yscale="log", xlabel="parameters of 32 bits stored for all tasks")
    axis.set(ylabel="final average accuracy (%), errors on a log scale")
    axis.invert_yaxis()
    axis.set_xlim(right=4e7)  # room for names
    high, low = axis.get_ylim()
    ticks = [share for share in ERRORS if low <= share <= high]
    axis.set_yticks(ticks, [f"{100 * (1 - share):g}" for share in ticks])
    axis.yaxis.set_minor_locator(NullLocator())
    handles, labels = axis.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    fig.draw_without_rendering()  # places are known from here on
    _name(axis, named)
    return fig


def _name(axis: Axes, marks: Mapping[str, tuple[float, float]]) -> None:
    """Writes each name beside its mark, where nothing is drawn and no other name stands."""
    taken = []
    for line in axis.lines:
        x, y = axis.transData.transform(line.get_xydata()).T
        if line.get_linestyle() != "None":  # all along it
            where = np.linspace(0, len(x) - 1, 40 * len(x))
            x, y = (np.interp(where, range(len(x)), values) for values in (x, y))
        taken += [Bbox.from_extents(a - 4, b - 4, a + 4, b + 4) for a, b in zip(x, y, strict=True)]
    for name, at in marks.items():
        for dx, dy, side in BESIDE:
            place = offset_copy(axis.transData, axis.figure, dx, dy, units="points")
            text = axis.text(*at, name, transform=place, ha=side, va="center", fontsize=7.5)
            text.set_in_layout(False)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken) or (dx, dy, side) == BESIDE[-1]:
                break
            text.remove()
        taken.append(box)
        if abs(dy) > 9:  # a line to its mark
            form = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
            axis.annotate("", at, (dx, dy), textcoords="offset points", arrowprops=form)
