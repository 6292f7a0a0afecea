"""The one figure: final average accuracy against everything stored, as inline SVG.

Drawn here and not by matplotlib, so that its text is text and its colours are the page's, in light
and in dark. The vertical axis is logarithmic in the error, or all that matters would be one line.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 52  # margins
ERRORS = (0.015, 0.85)  # best and worst that have a place; others are at the border
STORED = (50e3, 13e6)
ACCURACIES = (98, 97, 95, 90, 80, 60, 20)  # with a tick, in percent
SIZES = ("100k", "300k", "1M", "3M", "10M")
UNITS = {"k": 1e3, "M": 1e6}
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A method: what must be kept to solve all tasks, and how well it solves them."""

    name: str
    stored: float
    acc: float  # a fraction
    kind: str  # "ours", "other", "at-once" or "published"
    note: str = ""  # n and spread, or the source
    label: str = ""  # beside its mark; "": none

    @property
    def place(self) -> tuple[float, float]:
        return _x(self.stored), _y(self.acc)


def _x(stored: float) -> float:
    low, high = map(math.log10, STORED)
    place = min(max(math.log10(stored), low), high)
    return LEFT + (place - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(acc: float) -> float:
    low, high = map(math.log10, ERRORS)
    error = math.log10(min(max(1 - acc, ERRORS[0]), ERRORS[1]))
    return TOP + (error - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def frontier(points: Sequence[Point], title: str, summary: str) -> str:
    """The figure of `points` as SVG; `summary` says in words what it shows."""
    marks = sorted(points, key=lambda point: point.kind == "ours")  # which lie on top
    parts = [*_axes(), *_labels(points), *map(_mark, marks)]
    body = "\n".join(parts)
    return (
        f'<svg class="frontier" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="frontier-title frontier-summary">\n'
        f'<title id="frontier-title">{escape(title)}</title>\n'
        f'<desc id="frontier-summary">{escape(summary)}</desc>\n{body}\n</svg>'
    )


def _axes() -> Iterable[str]:
    base = HEIGHT - BOTTOM
    for percent in ACCURACIES:
        y = _y(percent / 100)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 8, y + 4, str(percent), anchor="end")
    for size in SIZES:
        x = _x(float(size[:-1]) * UNITS[size[-1]])
        yield f'<path class="grid" d="M{x:.1f} {TOP}V{base}"/>'
        yield _text(x, base + 18, size, anchor="middle")
    yield f'<path class="axis" d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}"/>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield _text(middle, HEIGHT - 10, "parameters stored for all 100 tasks", anchor="middle")
    turned = f'transform="translate(14 {(TOP + base) / 2:.0f}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">final average accuracy (%)</text>'


def _mark(point: Point) -> str:
    x, y = point.place
    note = f"{point.name}: {100 * point.acc:.2f} %, {point.stored:,.0f} parameters. {point.note}"
    shape = {
        "ours": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>',
        "other": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>',
        "at-once": f'<path d="M{x:.1f} {y - 6:.1f}l6 11h-12z"/>',
        "published": f'<path d="M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>',
    }[point.kind]
    return f'<g class="{point.kind}"><title>{escape(note.strip())}</title>{shape}</g>'


def _labels(points: Sequence[Point]) -> Iterable[str]:
    """A label beside each named point: at the first of six places that hides the least."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in (point.place for point in points)]
    for point in points:
        if point.label:
            boxes = [_box(point, side, lower) for lower in (0, -13, 13) for side in (1, -1)]
            best = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
            taken.append(best)
            left = best[0] < point.place[0]
            x, anchor = (best[2], "end") if left else (best[0], "start")
            yield _text(x, best[3] - 3, point.label, anchor=anchor, name=point.kind)


def _box(point: Point, side: int, lower: int) -> Box:
    """Where a label would be: left (-1) or right (1) of its mark, and so much lower."""
    (x, y), width = point.place, 7.2 * len(point.label)
    left = x + 9 if side > 0 else x - 9 - width
    return left, y - 7 + lower, left + width, y + 7 + lower


def _overlap(a: Box, b: Box) -> float:
    """The area that two boxes share; what is over the figure's border counts as shared."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    outside = max(0.0, a[2] - WIDTH) + max(0.0, LEFT - a[0])
    return 100 * outside + max(0.0, wide) * max(0.0, high)


def _text(x: float, y: float, text: str, *, anchor: str = "start", name: str = "") -> str:
    named = f' class="{name}"' if name else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
