"""One TensorBoard event file, written record by record.

PyTorch's SummaryWriter names its file after host, process and time, and needs a second file for
hyper-parameters. Here the name is always the same and nothing of the machine is in the bytes, so
that a log can be committed, and can be written again in its place while TensorBoard reads it.
"""

import time
from collections.abc import Mapping
from pathlib import Path

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


class EventFile:
    """The event file at `path`. All events get `wall_time`, or else the time they are written."""

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


def as_text(value: object) -> str:
    """A setting as it is read: lists without brackets."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
