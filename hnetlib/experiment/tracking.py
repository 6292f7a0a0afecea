"""TensorBoard: one log directory per run, written as it trains and rewritten when it resumes.

logs/hnet/laptop-s0-1a2b3c4d5e6f/events.out.tfevents    a run of this machine
logs/reference/hnet/laptop-s0/events.out.tfevents       a committed run

Tags: `train/...` count optimiser steps, `tasks/...` learned tasks; `final/...` are the metrics of
the finished run, `config` its settings, `R` the accuracy matrix.
"""

import datetime
import io
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from hnetlib.experiment.runs import Run

Scalar = tuple[str, float, int]  # tag, value, step

FILE_NAME = "events.out.tfevents"  # TensorBoard knows a log by "tfevents" in its name
DPI = 160  # of the picture of R: 6 pixels a task with 100 tasks


class EventFile:
    """The event file at `path`, written record by record.

    PyTorch's SummaryWriter names its file after host, process and time, and needs a second file
    for hyper-parameters. Here the name is always the same and nothing of the machine is in the
    bytes, so that a log can be committed, and written again while TensorBoard reads it. All events
    get `wall_time`, or else the time they are written.
    """

    def __init__(self, path: Path, wall_time: float | None = None) -> None:
        self.path, self.wall_time = path, wall_time
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: each event is one write, so a reader sees it at once and never half of it.
        # Emptied and not replaced: a TensorBoard that has the file open goes on reading it.
        self.records = RecordWriter(open(path, "wb", buffering=0))  # noqa: SIM115
        self._event(file_version="brain.Event:2")

    def text(self, tag: str, markdown: str) -> None:
        """A page of the TEXT tab."""
        self._event(summary=text_pb(tag, markdown))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One point of one curve."""
        self._value(step, tag=tag, simple_value=value)

    def image(self, tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
        """A picture of this width and height, in red, green, blue and alpha."""
        width, height = size
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self._value(step, tag=tag, image=image)

    def start_session(self, settings: Mapping[str, object]) -> None:
        """The row of the HPARAMS tab, in this run itself; its metrics are the run's scalars.

        Says nothing of which settings there are in all (`Experiment`): TensorBoard would take the
        first run's list for every other, and hide what only another method has.
        """
        start = SessionStartInfo(start_time_secs=self._now())
        for name, value in settings.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, (int, float)):
                start.hparams[name].number_value = value
            elif value is not None:
                start.hparams[name].string_value = as_text(value)
        self._session(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    def end_session(self) -> None:
        """Marks the row of the HPARAMS tab as finished."""
        end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=self._now())
        self._session(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    def close(self) -> None:
        """No event comes after this."""
        self.records.close()

    def _session(self, tag: str, **content: object) -> None:
        data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
        about = metadata.create_summary_metadata(data)
        # a map is written in another order by each process unless told otherwise
        about.plugin_data.content = data.SerializeToString(deterministic=True)
        self._value(0, tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)

    def _value(self, step: int, **content: object) -> None:
        self._event(step=step, summary=Summary(value=[Summary.Value(**content)]))

    def _event(self, **content: object) -> None:
        event = Event(wall_time=self._now(), **content)
        try:
            self.records.write(event.SerializeToString(deterministic=True))
        except OSError as error:  # which does not name the file
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _now(self) -> float:
        return time.time() if self.wall_time is None else self.wall_time


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


def as_text(value: object) -> str:
    """A setting as it is read: lists without brackets."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
