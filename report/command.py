"""What goes wrong in a script of this folder is said in one line, and its exit status is 1."""

import sys
from collections.abc import Callable
from functools import wraps

from hnetlib.experiment.files import RunError
from hnetlib.experiment.loop import DivergedError
from hnetlib.experiment.mnist_files import DataError
from hnetlib.experiment.workers import SweepError
from hnetlib.order import NotLearnedError

OURS = (DataError, RunError, SweepError, DivergedError, NotLearnedError)
SAID = (*OURS, OSError, ValueError)  # each is one line


def in_one_line(main: Callable[..., int]) -> Callable[..., int]:
    """The same command, where wrong settings, missing data and full disks end in a line."""

    @wraps(main)
    def command(*arguments) -> int:
        try:
            return main(*arguments)
        except SAID as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return command
