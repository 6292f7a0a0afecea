"""The committed results of runs on MNIST, as the page shows them beside its own.

`report/reference/<profile>/summary.json` has a row for each method. What a row does not know is
None there and "-" here.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from hnetlib.experiment.frontier import called
from report.chapter import PageError
from report.claims import reference_file

TEXT = ("method", "profile", "commit", "date")  # the other columns are numbers


@dataclass(frozen=True)
class Results:
    """One profile's rows that were made on one machine, each a mapping from column to text."""

    profile: str
    hardware: str
    targets: str  # the kinds of network that the rows are about
    rows: list[dict[str, str]]
    files: list[str | None]  # of each row's first run, in a checkout

    @property
    def place(self) -> str:
        """Where the files are, in a checkout."""
        return f"report/reference/{self.profile}/"


def read_results(folder: Path, first: str) -> list[Results]:
    """The results of each profile that has some in `folder`, those of the profile `first` first.

    Raises PageError where a summary can't be read.
    """
    paths = sorted(folder.glob("*/summary.json"), key=lambda p: (p.parent.name != first, p))
    return [results for path in paths for results in _read(path)]


def read_rows(path: Path) -> list[dict]:
    """The rows of one summary that are of MNIST; PageError where they can't be read."""
    try:
        return [row for row in json.loads(path.read_text()) if row["dataset"] == "mnist"]
    except (ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> list[Results]:
    """The rows of one summary: most tasks first, among equals the best first."""
    rows = read_rows(path)
    try:
        rows.sort(key=lambda row: (-row["num_tasks"], -row["acc_mean"]))
        machines = dict.fromkeys(row.get("hardware") for row in rows)
        return [
            _results(path.parent.name, machine, [r for r in rows if r.get("hardware") == machine])
            for machine in machines
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> PageError:
    reason = f"{type(error).__name__}: {error}"
    return PageError(f"{path}: expected rows of results, cannot read them ({reason})")


def _results(profile: str, hardware: str | None, rows: list[dict]) -> Results:
    targets = dict.fromkeys(row["target"] for row in rows if row.get("target"))
    columns = [_columns(row) for row in rows]
    files = [reference_file(profile, _run(row)) for row in rows]
    return Results(profile, hardware or "unknown hardware", ", ".join(targets), columns, files)


def _run(row: dict) -> str:
    """How the files of a row's runs begin."""
    return row.get("recorded_as", row["method"])


def _columns(row: dict) -> dict[str, str]:
    return {
        "method": called(row),
        "profile": row["profile"],
        "tasks": f"{row['num_tasks']:,}",
        "ACC": _percent(row["acc_mean"]) + _known(row.get("acc_std"), " ± {:.2f}", 100, ""),
        "learned": _percent(row.get("learning_acc_mean")),
        "BWT": _known(row.get("bwt_mean"), "{:+.2f}", 100),
        "stored": _known(row.get("stored_eval"), "{:,}"),
        "minutes": _known(row.get("train_seconds_mean"), "{:,.1f}", 1 / 60),
        "n": f"{row['n_seeds']}",
        "commit": row.get("commit") or "-",
        "date": row.get("date") or "-",
    }


def _percent(fraction: float | None) -> str:
    return _known(fraction, "{:.2f}", 100)


def _known(value: float | None, form: str, factor: float = 1, unknown: str = "-") -> str:
    return unknown if value is None else form.format(factor * value)
