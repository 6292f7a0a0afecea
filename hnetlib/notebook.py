"""What a notebook shows: figures, tables, headline numbers, sentences and provenance.

Each function emits one output that reads well in Jupyter and carries what the page of
`report/build.py` needs (captions, alt text, numbers). The executed notebook is all the page reads.
"""

import io
import platform
import re
import struct
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata
from numbers import Integral, Real

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

HEADLINE_MIME = "application/vnd.hnetlib.headline+json"
PROVENANCE_MIME = "application/vnd.hnetlib.provenance+json"
NUMBER = re.compile(r"[-+]?\d[\d.,]*( ?%)?( ± \d[\d.,]*( ?%)?)?|-")
DPI = 144  # 1.5 pixels for each of the 96 that make an inch on a screen: sharp, still small


def show(fig: Figure, *, alt: str, caption: str) -> None:
    """Display `fig` as a PNG with its caption, then close it.

    `alt` says what the figure shows to who can't see it, `caption` what it is; both may hold no
    HTML, the caption may hold Markdown. Equal figures give equal bytes. Raises ValueError where
    one of them is empty.
    """
    _require(alt=alt, caption=caption)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(fig)  # an open figure would be shown once more at the end of the cell
    png = buffer.getvalue()
    (pixels,) = struct.unpack(">I", png[16:20])  # a PNG's width: bytes 16-19 of its header
    _emit(
        {"image/png": png, "text/plain": f"Figure: {alt}"},
        {"image/png": {"alt": alt, "width": round(pixels * 96 / DPI)}, "caption": caption},
    )
    _emit({"text/markdown": f"*{caption}*"}, {"role": "caption"})  # the page has its own


def table(rows: Sequence[Mapping[str, object]], *, caption: str) -> None:
    """Display `rows` (one mapping from column to value each, all with the same columns).

    Text stands as given; whole numbers get separators of thousands, others four digits; columns
    of numbers are set to the right. Raises ValueError for no row, for rows whose columns differ,
    and for an empty caption.
    """
    _require(caption=caption)
    if not rows or not rows[0]:
        raise ValueError("rows: expected at least one row with one column, got none")
    columns = list(rows[0])
    for number, row in enumerate(rows, start=1):
        if list(row) != columns:
            raise ValueError(f"rows: expected columns {columns}, got {list(row)} in row {number}")
    cells = [[_format(row[column]) for column in columns] for row in rows]
    right = [all(map(NUMBER.fullmatch, column)) for column in zip(*cells, strict=True)]
    _emit(
        {
            "text/html": _html_table(columns, cells, right, caption),
            "text/markdown": f"{_markdown_table(columns, cells, right)}\n\n*{caption}*",
            "text/plain": f"Table: {caption}",
        },
        {"caption": caption},
    )


def headline(label: str, value: str, note: str = "", source: str = "") -> None:
    """Display one number the report is about: what it is, the number, and how to read it.

    `source`: the file of the repository that it was read from; "": the chapter's own run.

    Raises ValueError where `label` or `value` is empty.
    """
    _require(label=label, value=value)
    text = f"**{label}:** {value}" + (f" ({note})" if note else "")
    _emit(
        {
            HEADLINE_MIME: {"label": label, "value": value, "note": note, "source": source},
            "text/markdown": text,
            "text/plain": text.replace("**", ""),
        },
        {"role": "headline"},
    )


def say(markdown: str) -> None:
    """Display prose whose numbers come from the cell. Raises ValueError where it is empty."""
    _require(markdown=markdown)
    _emit({"text/markdown": markdown, "text/plain": markdown}, {})


def provenance(entries: Mapping[str, str | int | float]) -> None:
    """Display where one run's numbers come from: commit, hardware, seeds, seconds, versions.

    An entry called "run" names the run. Raises ValueError where there is no entry.
    """
    if not entries:
        raise ValueError("entries: expected at least one entry, got none")
    # a seed or a year is a name, so it gets no separators
    formatted = {
        key: str(value) if isinstance(value, Integral) else _format(value)
        for key, value in entries.items()
    }
    rows = [[key, value] for key, value in formatted.items()]
    _emit(
        {
            PROVENANCE_MIME: formatted,
            "text/markdown": _markdown_table(["provenance", ""], rows, [False, False]),
            "text/plain": "; ".join(f"{key}: {value}" for key, value in rows),
        },
        {"role": "provenance"},
    )


def settings(values: Mapping[str, object]) -> None:
    """Print the effective settings, one per line."""
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}}  {value}")


def versions(*packages: str) -> None:
    """Print the versions of Python and of these installed packages."""
    found = [f"{package} {metadata.version(package)}" for package in ("hnetlib", *packages)]
    print(", ".join([f"Python {platform.python_version()}", *found]))


def _emit(bundle: dict, details: dict) -> None:
    """Send one output; what concerns the page alone stands under `hnetlib` in its metadata."""
    by_mime = {key: value for key, value in details.items() if "/" in key}
    ours = {key: value for key, value in details.items() if "/" not in key}
    display(bundle, raw=True, metadata={**by_mime, "hnetlib": ours})


def _require(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}: expected some text, got {text!r}")


def _format(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value)
        return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"
    return str(value)


def _html_table(columns: list[str], cells: list[list[str]], right: list[bool], caption: str) -> str:
    def line(tag: str, texts: list[str]) -> str:
        sides = ["right" if is_right else "left" for is_right in right]
        return "".join(
            f'<{tag} style="text-align: {side}">{escape(text)}</{tag}>'
            for side, text in zip(sides, texts, strict=True)
        )

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in cells)
    return (
        f"<table>\n<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{line('th', columns)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def _markdown_table(columns: list[str], cells: list[list[str]], right: list[bool]) -> str:
    def line(texts: list[str]) -> str:
        safe = [escape(text, quote=False) for text in texts]
        return "| " + " | ".join(t.replace("|", "\\|").replace("\n", " ") for t in safe) + " |"

    rule = "|" + "|".join("---:" if is_right else "---" for is_right in right) + "|"
    return "\n".join([line(columns), rule, *map(line, cells)])
