"""TensorBoard: one log directory a run, written as it trains and rewritten when it resumes.

logs/hnet/laptop-s0-1a2b3c4d/events.out.tfevents     a run of this machine
logs/reference/hnet/laptop-s0/events.out.tfevents    a committed run

Tags: `train/...` count optimiser steps, `tasks/...` learned tasks; `final/...` are the metrics of
the finished run, `config` its settings, `R` the accuracy matrix.
"""

import datetime
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hnetlib.events import EventFile, as_text
from hnetlib.runs import Run

Scalar = tuple[str, float, int]  # tag, value, step

FILE_NAME = "events.out.tfevents"  # TensorBoard knows a log by "tfevents" in its name
DPI = 160  # of the picture of R: 6 pixels a task with 100 tasks


class Tracker:
    """The log of one run as it trains.

    It is always what `history` says: resuming from a checkpoint starts the log anew and replays
    the history, so that nothing appears twice after a run was killed.
    """

    def __init__(self, run: Run, history: list[Scalar] | None = None) -> None:
        for file in run.log_dir.glob("*tfevents*"):
            if file.name != FILE_NAME:  # begun by a version that put host and time in the name
                file.unlink()
        self.history: list[Scalar] = []
        self.events = EventFile(run.log_dir / FILE_NAME)
        _begin(self.events, run.method, run.config.as_dict())
        for scalar in history or []:
            self.add(*scalar)

    def add(self, tag: str, value: float, step: int) -> None:
        """One point of one curve."""
        self.history.append((tag, float(value), int(step)))
        self.events.scalar(*self.history[-1])

    def finish(self, metrics: dict[str, float], R: np.ndarray) -> None:
        """The final metrics and R as an image; closes the log."""
        _end(self.events, metrics, R)


def write_log(
    directory: Path,
    method: str,
    config: Mapping[str, object],
    results: Mapping[str, object],
    date: str,
    history: Iterable[Scalar] | None = None,
) -> None:
    """The whole log of a finished run, from what is written down of it.

    `results` are the contents of its metrics.json. Without a history, the curves over tasks are
    computed from R, and there are none over optimiser steps.
    """
    R = np.array(results["R"], dtype=np.float64)
    numbers = {name: value for name, value in results.items() if isinstance(value, (int, float))}
    # Every event bears the day of the training: the same record gives the same bytes, so that
    # writing a committed log again is no change. The times of single steps are not recorded.
    day = datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC)
    side = directory / "log.part"  # in place in one step: a log that is there is whole
    events = EventFile(side, wall_time=day.timestamp())
    _begin(events, method, config)
    for scalar in curves_of(R) if history is None else history:
        events.scalar(*scalar)
    _end(events, numbers, R)
    os.replace(side, directory / FILE_NAME)


def curves_of(R: np.ndarray) -> list[Scalar]:
    """The curves over learned tasks that follow from R, as the training loop logs them."""
    return [point for task, row in enumerate(R) for point in curves_at(row, task)]


def curves_at(row: np.ndarray, task: int) -> list[Scalar]:
    """Their points after learning `task`, from that row of R; none where it is NaN."""
    learned = row[: task + 1]
    points = [
        ("tasks/accuracy", float(learned.mean()), task + 1),
        ("tasks/learning_accuracy", float(row[task]), task + 1),
        ("tasks/first_task_accuracy", float(row[0]), task + 1),
    ]
    return [point for point in points if not np.isnan(point[1])]


def picture(R: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """R as PNG, white where a task was not learned yet; and its width and height."""
    import matplotlib.pyplot as plt  # slow to load, and needed at the end of a run only

    from hnetlib import plots

    figure = plots.accuracy_matrix(R)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(figure)  # or a notebook would show it
    width, height = figure.get_size_inches() * DPI
    return file.getvalue(), (round(width), round(height))


def _begin(events: EventFile, method: str, config: Mapping[str, object]) -> None:
    settings = {**config, "method": method}
    lines = [f"| {name} | {as_text(value)} |" for name, value in settings.items()]
    events.text("config", "\n".join(["| setting | value |", "|---|---|", *lines]))
    events.start_session(settings)


def _end(events: EventFile, metrics: Mapping[str, float], R: np.ndarray) -> None:
    for name, value in metrics.items():
        events.scalar(f"final/{name}", value, len(R))
    png, size = picture(R)
    events.image("R", png, size, len(R))
    events.end_session()
    events.close()
