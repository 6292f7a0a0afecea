"""`python -m hnetlib.train`: the full pipeline from a shell.

Learns the tasks of a profile one after the other, evaluates after each, and leaves a run
directory and a TensorBoard log. The same command again resumes a stopped run, or shows a
finished one.
"""

import argparse
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from hnetlib.experiment.config import Config, defaults, resolve_dataset
from hnetlib.experiment.data import DataError
from hnetlib.experiment.files import RunError
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.loop import DivergedError
from hnetlib.experiment.paths import project_root
from hnetlib.experiment.profiles import PROFILES
from hnetlib.experiment.runs import Run
from hnetlib.experiment.stops import stopped_by_sigterm
from hnetlib.experiment.values import say_in_any_locale
from hnetlib.order import NotLearnedError

OURS = (DataError, RunError, DivergedError, NotLearnedError)
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")  # in PyTorch's RuntimeError
NO_BETTER = "that is no better than guessing; is lr too large, or too small?"
GUESSING = 0.15  # accuracy below which ten classes were hardly told apart


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status. Wrong settings end with one line and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    say_in_any_locale()
    try:
        config = parse(arguments)
    except (ValueError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it looked for data
        print("stopped: nothing was begun", file=sys.stderr)
        return 130
    try:
        with stopped_by_sigterm():
            _report(train_or_load(config))
    except (*OURS, OSError, ValueError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        print("error: the settings need more memory than there is", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("stopped: the same command goes on from the last checkpoint", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    return 0


def _report(run: Run) -> None:
    config, results = run.config, run.results
    print(f"{config.num_tasks} tasks of {config.dataset}, {config.split} images: {_said(results)}")
    print(
        f"trained in {results['train_seconds'] / 60:.1f} min, "
        f"evaluated in {results['eval_seconds'] / 60:.1f} min"
    )
    if results["acc"] < GUESSING:
        print(f"warning: {NO_BETTER}", file=sys.stderr)
    for label, place in (("run", run.directory), ("log", run.log_dir)):
        print(f"{label}: {_short(place)}")


def _said(results: dict) -> str:
    """The metrics of a run; those at once have no order, so accuracy alone."""
    parts = [f"ACC {results['acc']:.2%}"]
    if results["bwt"] is not None:
        parts.append(f"learning accuracy {results['learning_acc']:.2%}")
        parts.append(f"BWT {100 * results['bwt']:+.2f} points")
        parts.append(f"forgetting {100 * results['forgetting']:.2f} points")
    return ", ".join(parts)


def parse(arguments: list[str]) -> Config:
    """The config that these arguments ask for; ValueError or DataError if there is none."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--profile", default="laptop")
    first.add_argument("--dataset", default="auto")
    first.add_argument("--method", default="hnet")
    chosen, rest = first.parse_known_args(arguments)
    Config(**_read(rest, defaults(chosen.profile, chosen.dataset, chosen.method)))
    # only when everything else is sound: it may take a download
    dataset = resolve_dataset(chosen.profile, chosen.dataset)
    return Config(**_read(rest, defaults(chosen.profile, dataset, chosen.method)))


@dataclass(frozen=True)
class _Settings(Config):
    """A `Config` that is not validated yet, so that its errors stay ours to print."""

    def __post_init__(self) -> None:
        pass


def _read(arguments: list[str], start: dict) -> dict:
    """Settings by name: `start` with the arguments in its place."""
    settings, unknown = tyro.cli(
        _Settings,
        prog="python -m hnetlib.train",
        description=_DESCRIPTION,
        args=arguments,
        default=_Settings(**start),
        return_unknown_args=True,
        use_underscores=True,
    )
    if unknown:
        switch = "; a switch takes no value: --look_ahead, --no_look_ahead"
        hint = switch if unknown[0].lower() in ("true", "false") else ""
        raise ValueError(f"settings: expected those that --help lists, got {unknown[0]}{hint}")
    return vars(settings)


_DESCRIPTION = (
    "Learns the tasks of a profile one after the other, evaluates after each, and leaves a run "
    "directory and a TensorBoard log. The same command again resumes a stopped run, or shows a "
    f"finished one.\n\n--profile ({', '.join(PROFILES)}) and --method are read first: the defaults "
    "below are theirs. --dataset may also be auto, the default: MNIST if it can be had, else "
    "mnist5k."
)


def _short(place: Path) -> str:
    root = project_root()
    return str(place.relative_to(root) if place.is_relative_to(root) else place)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # a reader that has seen enough, as in `--help | head`
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
