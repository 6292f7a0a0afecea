"""Figures of the report, in one style (that of `experiment.frontier` too): of results, a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter

from hnetlib.hypernet import Hypernetwork

# from matplotlib's own defaults: a matplotlibrc of the reader's must not change the figures
plt.style.use(["default", Path(__file__).parent / "report.mplstyle"])

CHANCE = 0.1  # ten classes of about equal size
SAME_PLACE = 0.05  # of all pixels: pairs of tasks this close in x are averaged together
Curve = tuple[Sequence[float], Sequence[float]]  # x, y


def image_rows(rows: Mapping[str, np.ndarray], titles: Sequence[str] = ()) -> Figure:
    """Rows of grey images: each value is [N, S, S] with the same N; a title above each column."""
    count = len(next(iter(rows.values())))
    size = (7.0, 7.0 / (count + 1.3) * len(rows) + 0.25)
    fig, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray_r")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, loc="center", fontsize=9)
    return fig


def curves(
    lines: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    percent: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Lines over a common axis; `reference` draws named horizontal lines (chance, upper bound)."""
    fig, axis = plt.subplots()
    num_colours = len(plt.rcParams["axes.prop_cycle"])
    for number, (label, (x, y)) in enumerate(lines.items()):
        style = "-" if number < num_colours else "--"  # colours start again
        axis.plot(x, y, style, label=label, marker="o" if len(x) <= 20 else None)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))  # steps, tasks and chunks are whole
    if log_x:
        nearest, farthest = axis.dataLim.intervalx
        few_decades = farthest < 30 * nearest  # a tick for each would be one or two
        axis.set_xscale("log", base=2 if few_decades else 10)
        axis.xaxis.set_major_formatter("{x:g}")
    if log_y:
        axis.set_yscale("log")
        lowest, highest = axis.dataLim.intervaly
        if highest < 1000 * lowest:  # powers of ten alone would be one or two
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
    if percent:
        as_percent(axis)
    add_references(axis, reference or {})
    legend_below(fig)
    return fig


def kept_and_lost(
    groups: Mapping[str, Mapping[str, tuple[float, float]]], *, xlabel: str
) -> Figure:
    """For each name and group that has it a line from one fraction (a bar) to another (a dot)."""
    names = list(next(iter(groups.values())))
    fig, axis = plt.subplots(figsize=(7.0, 0.42 * len(names) + 1.3))
    for number, (label, ends) in enumerate(groups.items()):
        places = np.array([names.index(name) for name in ends])
        places = places + 0.24 * (number - (len(groups) - 1) / 2)
        before, after = np.array(list(ends.values())).T
        color = f"C{number}"
        axis.hlines(places, before, after, color=color, linewidth=1.6)
        axis.plot(before, places, "|", color=color, markersize=9, markeredgewidth=2)
        axis.plot(after, places, "o", color=color, markersize=6, label=label)
    axis.set(xlabel=xlabel, yticks=range(len(names)))
    axis.set_yticklabels(names)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    legend_below(fig)
    return fig


def accuracy_by_task(
    scores: Mapping[str, Sequence[float]], reference: Mapping[str, float] | None = None
) -> Figure:
    """Accuracy of every task: a dot each, in the order they were learned."""
    fig, axis = plt.subplots()
    for label, values in scores.items():
        axis.plot(np.arange(1, len(values) + 1), values, "o", label=label, alpha=0.85)
    axis.set(xlabel="task, in the order learned", ylabel="test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    as_percent(axis)
    add_references(axis, reference or {})
    legend_below(fig)
    return fig


def retention(
    matrices: Mapping[str, np.ndarray],
    first_tasks: int = 5,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Accuracy of the first few tasks while later ones are learned: one panel a matrix R."""
    fig, axes = plt.subplots(1, len(matrices), sharey=True, squeeze=False)
    for axis, (label, R) in zip(axes[0], matrices.items(), strict=True):
        learned = np.arange(1, len(R) + 1)
        for task in range(min(first_tasks, len(R))):
            known = ~np.isnan(R[:, task])  # not before it was learned, nor where not evaluated
            marker = "o" if known.sum() <= 20 else None
            axis.plot(learned[known], R[known, task], label=f"task {task + 1}", marker=marker)
        axis.set(xlabel="tasks learned so far", title=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        as_percent(axis)
        add_references(axis, reference or {})
    axes[0, 0].set_ylabel("test accuracy (%)")
    legend_below(fig, axes[0, -1])
    return fig


def learned_and_kept(matrices: Mapping[str, np.ndarray], window: int = 10) -> Figure:
    """Lost plasticity beside forgetting, a line for each matrix R in both of two panels.

    Left the accuracy of tasks when they are learned, a mean over each `window` of them (fewer at
    the start); right the mean over all tasks learned so far, where these were evaluated.
    """
    fig, (when_learned, so_far) = plt.subplots(1, 2, sharey=True)
    for label, R in matrices.items():
        learned = np.arange(1, len(R) + 1)
        diagonal = R.diagonal()
        recent = [diagonal[max(0, t - window) : t].mean() for t in learned]
        kept = np.array([R[t - 1, :t].mean() for t in learned])
        known = ~np.isnan(kept)
        when_learned.plot(learned, recent, label=label)
        so_far.plot(learned[known], kept[known], label=label)
    when_learned.set(title=f"when learned, mean of {window} tasks", ylabel="test accuracy (%)")
    so_far.set(title="all tasks learned so far")
    for axis in (when_learned, so_far):
        axis.set_xlabel("tasks learned so far")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        as_percent(axis)
    legend_below(fig)
    return fig


def accuracy_matrix(
    R: np.ndarray, xlabel: str = "evaluated on task", ylabel: str = "after learning task"
) -> Figure:
    """A matrix of accuracies as an image: by default R, a row per moment and a column per task."""
    fig, axis = plt.subplots(figsize=(5.6, 4.6))
    rows, columns = R.shape
    extent = (0.5, columns + 0.5, rows + 0.5, 0.5)
    image = axis.imshow(100 * R, vmin=100 * float(np.nanmin(R)), vmax=100, extent=extent)
    axis.grid(False)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(integer=True))
    fig.colorbar(image, label="test accuracy (%)")
    return fig


def by_difference(
    panels: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    percent: bool = False,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Pairs of tasks, a dot each, over how much they differ (a fraction, written as percent).

    Pairs that differ by about as much (gaps of at most `SAME_PLACE`) share a mean, with a bar of
    one sample standard deviation up and down. A panel for each entry of `panels`.
    """
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False)
    for axis, (label, (x, y)) in zip(axes[0], panels.items(), strict=True):
        x, y = np.sort(x), np.asarray(y)[np.argsort(x)]
        borders = np.flatnonzero(np.diff(x) > SAME_PLACE) + 1
        groups = np.split(y, borders)
        places = [group.mean() for group in np.split(x, borders)]
        means = [group.mean() for group in groups]
        spread = [group.std(ddof=1) if len(group) > 1 else 0.0 for group in groups]
        axis.plot(x, y, "o", color="C0", alpha=0.3, markeredgewidth=0, label="a pair of tasks")
        axis.errorbar(places, means, spread, color="C1", capsize=3, marker="o", label="mean")
        axis.set(xlabel=xlabel, title=label)
        axis.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
        if percent:
            as_percent(axis)
        add_references(axis, reference or {})
    axes[0, 0].set_ylabel(ylabel)
    legend_below(fig, axes[0, 0])
    return fig


def two_ways_to_write(old: np.ndarray, new: np.ndarray, change: float) -> Figure:
    """The shortest and the least felt of all changes [2] that write a new output by `change`.

    `old` [t, 2] are the features of old tasks, `new` [2] those of the one that is learned.
    """
    felt = old.T @ old / len(old)  # [2, 2]: old tasks feel w by w^T felt w
    ways = {}
    for name, metric in (("shortest", np.eye(2)), ("least felt", np.linalg.inv(felt))):
        ways[name] = change * (metric @ new) / (new @ metric @ new)
    fig, axis = plt.subplots(figsize=(6.0, 3.6))
    reach = 1.35 * max(abs(np.concatenate(list(ways.values()))))
    x, y = np.meshgrid(*[np.linspace(-reach, reach, 200)] * 2)
    cost = felt[0, 0] * x**2 + 2 * felt[0, 1] * x * y + felt[1, 1] * y**2
    least = ways["least felt"] @ felt @ ways["least felt"]
    axis.contour(x, y, cost, levels=least * 2.0 ** np.arange(-1, 7), colors="0.75", linewidths=0.8)
    along = np.array([-new[1], new[0]]) / np.linalg.norm(new)
    line = ways["shortest"] + np.linspace(-2 * reach, 2 * reach, 2)[:, None] * along
    axis.plot(*line.T, color="0.3", label="all that write the new output")
    for number, (name, way) in enumerate(ways.items()):
        axis.plot(*np.stack([np.zeros(2), way]).T, color=f"C{number}", linewidth=1.6)
        axis.plot(*way, "o", color=f"C{number}", label=f"{name}: felt {way @ felt @ way:.2f}")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.set(xlabel="change of the first weight", ylabel="of the second")
    legend_below(fig)
    return fig


def chunk_map(hnet: Hypernetwork) -> Figure:
    """The target's flat weight vector: its tensors as bars, the chunks' borders as lines."""
    fig, axis = plt.subplots(figsize=(7.0, 1.9))
    start = 0
    for number, (names, shape, _) in enumerate(hnet.layout):
        color = f"C{number % 7}"
        axis.barh(0, shape.numel(), left=start, height=0.8, color=color, label=names[0])
        start += shape.numel()
    borders = np.arange(1, hnet.num_chunks) * hnet.chunk_size
    axis.vlines(borders[borders < start], -0.55, 0.55, color="0.1", linewidth=0.9)
    axis.set(xlabel="position in the flat weight vector", yticks=[], xlim=(0, start))
    axis.grid(False)
    legend_below(fig)
    return fig


def legend_below(fig: Figure, axis: Axes | None = None) -> None:
    """One legend under the figure, where it hides nothing."""
    handles, labels = (axis or fig.axes[0]).get_legend_handles_labels()
    columns = 2 if len(labels) == 4 else min(len(labels), 3)
    fig.legend(handles, labels, loc="outside lower center", ncols=columns)


def as_percent(axis: Axes) -> None:
    """Fractions on the y axis, written as percent."""
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))


def add_references(axis: Axes, lines: Mapping[str, float]) -> None:
    """Named horizontal lines: what to compare a curve with."""
    for (label, value), style in zip(lines.items(), ("--", ":", "-."), strict=False):
        axis.axhline(value, color="0.35", linestyle=style, linewidth=1.1, label=label, zorder=1)
