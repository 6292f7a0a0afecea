"""Figures: lines that can be told apart, and that show what they say."""

import numpy as np

from hnetlib import plots


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
