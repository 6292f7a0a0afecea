"""Figures: lines that can be told apart."""

from hnetlib import plots


def test_no_two_lines_look_alike():
    lines = {f"method {number}": ([1, 2], [0.5, 0.6]) for number in range(12)}
    (axis,) = plots.curves(lines, xlabel="tasks", ylabel="accuracy").axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
    assert len(looks) == len(lines)
