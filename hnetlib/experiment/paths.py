"""Where data sets, runs and logs live on disk.

Each place has a default inside the project and an environment variable that moves it:
`HNETLIB_DATA`, `HNETLIB_RUNS`, `HNETLIB_LOGS`; ValueError for one that names no place.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent  # hnetlib/


def project_root() -> Path:
    """The checkout this package is imported from, or the working directory if it was installed."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def data_dir() -> Path:
    """Root for torchvision: MNIST's four files are in `<data_dir>/MNIST/raw`."""
    return _place("HNETLIB_DATA", "data")


def runs_dir() -> Path:
    """One directory per training run: its config, metrics, accuracy matrix and checkpoint."""
    return _place("HNETLIB_RUNS", "runs")


def logs_dir() -> Path:
    """TensorBoard logs."""
    return _place("HNETLIB_LOGS", "logs")


def reference_dir(profile: str) -> Path:
    """Committed results of a profile's finished runs, in a checkout."""
    return project_root() / "report" / "reference" / profile


def reference_logs_dir() -> Path:
    """TensorBoard logs of the committed results, in a checkout; HNETLIB_LOGS does not move them."""
    return project_root() / "logs" / "reference"


def _place(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    if not chosen:
        return project_root() / default
    try:
        return Path(chosen).expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:  # no such user, a loop of links
        raise ValueError(f"{variable}: expected a directory, got {chosen!r}: {error}") from error
