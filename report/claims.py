"""Where a headline's numbers stand: in a table of its chapter, and in a file of the repository."""

import os
import re
from pathlib import Path

from bs4 import BeautifulSoup

from hnetlib.experiment.paths import project_root

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
REFERENCE_RUN = re.compile(r"reference: ([\w-]+), seed (\d+)")  # as chapter 6 names it


def table_with(value: str, tables: dict[str, str]) -> str | None:
    """The anchor of the last of a chapter's `tables` that holds all numbers of `value`.

    A cell holds a number if it rounds to it: 96.90 holds 96.9.
    """
    wanted = NUMBER.findall(value)
    for anchor, html in reversed(tables.items()):
        held = NUMBER.findall(BeautifulSoup(html, "html.parser").find("tbody").get_text(" "))
        if wanted and all(any(_rounds_to(cell, number) for cell in held) for number in wanted):
            return anchor
    return None


def _rounds_to(cell: str, number: str) -> bool:
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    return abs(_value(cell) - _value(number)) <= half * (1 - 1e-9)


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def way_to_repository(out: Path) -> str | None:
    """The way from the page `out` to the checkout it is in, for links; None: it is in none."""
    folder, root = out.resolve().parent, project_root().resolve()
    return os.path.relpath(root, folder) if folder.is_relative_to(root) else None


def reference_file(profile: str, method: str, seed: int | str = 0) -> str | None:
    """Where in the repository one committed run is written down; None: it is not."""
    path = Path("report") / "reference" / profile / "runs" / f"{method}-s{seed}.json"
    return path.as_posix() if (project_root() / path).is_file() else None


def file_of_run(name: str) -> str | None:
    """The file of a run that a notebook calls "reference: hnet, seed 0"."""
    known = REFERENCE_RUN.fullmatch(name)
    return reference_file("laptop", known[1], known[2]) if known else None
