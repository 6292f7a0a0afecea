"""What goes wrong in a script of this folder is said in one line, and its exit status is 1."""

import sys
from collections.abc import Callable
from functools import wraps

from hnetlib.experiment.files import RunError
from hnetlib.experiment.mnist_files import DataError
from hnetlib.experiment.workers import SweepError

SAID = (DataError, RunError, SweepError, OSError)  # each is one line


def in_one_line(main: Callable[..., int]) -> Callable[..., int]:
    """The same command, for which missing data, runs that fail and full disks are no traceback."""

    @wraps(main)
    def command(*arguments) -> int:
        try:
            return main(*arguments)
        except SAID as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return command
