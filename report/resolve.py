"""`python -m report.resolve PROFILE DATASET`: what a whole report runs on, decided once.

Prints the name of the data set on stdout, for `make report` to pass to every notebook, and what
that data is on stderr. Wrong names and unusable data end with one line and status 1.
"""

import argparse
import sys

from hnetlib.experiment.config import defaults, resolve_dataset
from hnetlib.experiment.data import DataError, load_data


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m report.resolve", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("dataset", help="auto, mnist or mnist5k")
    asked = parser.parse_args(arguments)
    try:
        defaults(asked.profile, asked.dataset)  # stops at unknown names
        name = resolve_dataset(asked.profile, asked.dataset)
        data = load_data(name)
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"profile {asked.profile}, data set {data.describe()}", file=sys.stderr)
    print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
