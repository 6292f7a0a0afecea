"""Tidy tables of many runs: a row for what differs between them, its means over seeds."""

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from hnetlib.experiment.files import one_line, side_file, write_json

SEEDS = ("seed", "permutation_seed")  # what a mean is taken over
PLACES = ("threads", "device")  # where a run was made, not what it is


def differing(settings: Sequence[Mapping]) -> list[str]:
    """Names of the settings that are not the same in all."""
    names = dict.fromkeys(name for one in settings for name in one if name not in PLACES)
    return [name for name in names if any(s.get(name) != settings[0].get(name) for s in settings)]


def tidy(runs: Sequence[tuple[Mapping, Mapping]]) -> list[dict]:
    """A row for each combination of settings that differ, of pairs of settings and results.

    Of every result that is a number: its mean and sample standard deviation (None of one run).
    """
    names = [n for n in differing([settings for settings, _ in runs]) if n not in SEEDS]
    groups: dict[str, list] = {}
    for settings, results in runs:
        row = {name: settings.get(name) for name in names}
        groups.setdefault(repr(row), [row]).append(results)
    measured = list(dict.fromkeys(name for _, results in runs for name in results))
    return [
        row | {"n": len(same)} | {k: v for name in measured for k, v in _mean(name, same).items()}
        for row, *same in groups.values()
    ]


def write(rows: list[dict], place: Path) -> None:
    """Writes `table.json` and `table.csv`; RunError where they can't be."""
    with one_line(place):
        place.mkdir(parents=True, exist_ok=True)
    write_json(place / "table.json", rows)
    with side_file(place / "table.csv") as side, side.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(place: str | Path) -> list[dict]:
    """The rows that `write` wrote in a directory; RunError where there are none."""
    path = Path(place) / "table.json"
    with one_line(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _mean(name: str, same: Sequence[Mapping]) -> dict:
    values = [results[name] for results in same if results.get(name) is not None]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {f"{name}_mean": statistics.fmean(values) if values else None, f"{name}_std": spread}
