"""Figures: lines that can be told apart, and that show what they say."""

from itertools import combinations

import numpy as np
import pytest

from hnetlib import plots
from hnetlib.experiment import frontier


def test_no_two_lines_look_alike():
    lines = {f"method {number}": ([1, 2], [0.5, 0.6]) for number in range(12)}
    (axis,) = plots.curves(lines, xlabel="tasks", ylabel="accuracy").axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
    assert len(looks) == len(lines)


def test_learned_and_kept_show_diagonal_and_rows():
    unknown = np.nan  # the second row was evaluated on its own task alone
    R = np.array([[0.9, unknown, unknown], [unknown, 0.8, unknown], [0.6, 0.7, 0.5]])
    when_learned, so_far = plots.learned_and_kept({"one": R}, window=2).axes
    assert np.allclose(when_learned.lines[0].get_xydata(), [[1, 0.9], [2, 0.85], [3, 0.65]])
    assert np.allclose(so_far.lines[0].get_xydata(), [[1, 0.9], [3, 0.6]])


def test_kept_and_lost_go_from_before_to_after_in_a_lane_of_their_own():
    groups = {
        "held": {"a": (0.9, 0.8), "b": (0.7, 0.7)},
        "free": {"a": (0.9, 0.2), "b": (0.6, 0.1)},
    }
    (axis,) = plots.kept_and_lost(groups, xlabel="accuracy").axes
    before, after, others_before, others_after = (line.get_xydata() for line in axis.lines)
    assert before[:, 0].tolist() == [0.9, 0.7]
    assert after[:, 0].tolist() == [0.8, 0.7]
    assert others_after[:, 0].tolist() == [0.2, 0.1]
    assert (before[:, 1] < others_before[:, 1]).all()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("axis", "values", "shown"),
    [
        ("x", (0.5, 1.0, 8.0), {"0.5", "2", "8"}),
        ("x", (1.0, 30.0, 1000.0), {"1", "10", "1000"}),
        ("y", (12.0, 90.0, 523.0), {"20", "50", "500"}),
        ("y", (1e-5, 0.1, 10.0), {r"$\mathdefault{10^{-4}}$"}),
    ],
)
def test_logarithmic_axes_have_readable_labels(axis, values, shown):
    points = (values, (1, 2, 3)) if axis == "x" else ((1, 2, 3), values)
    figure = plots.curves({"a": points}, xlabel="x", ylabel="y", **{f"log_{axis}": True})
    figure.canvas.draw()
    labels = getattr(figure.axes[0], f"get_{axis}ticklabels")()
    assert shown <= {label.get_text() for label in labels}


def test_the_frontier_has_a_line_for_several_points_and_named_marks_for_others():
    near = {f"mark {n}": [(4e6, 0.7)] for n in range(3)} | {"theirs (published)": [(4.1e6, 0.7)]}
    fig = frontier.draw({"line": [(2e5, 0.9), (1e5, 0.8)], **near})
    (axis,) = fig.axes
    line, *marks = axis.lines
    assert list(line.get_xdata()) == [1e5, 2e5]
    assert line.get_linestyle() == "-"
    assert [mark.get_marker() for mark in marks] == ["s", "s", "s", "*"]
    names = [text for text in axis.texts if text.get_text()]
    assert [name.get_text() for name in names] == ["mark 0", "mark 1", "mark 2", "theirs"]
    for one, other in combinations([name.get_window_extent() for name in names], 2):
        assert not one.overlaps(other)
    assert axis.get_xscale() == "log"
    plots.plt.close(fig)
