"""Execute one notebook with papermill, with the Python that runs this file.

    python -m report.execute notebooks/05_many.ipynb out/05_many.ipynb -p num_tasks 20 -p beta 0.05

What papermill leaves open is settled here: a parameter that the notebook does not have is an
error, values keep their types, the output is only there when every cell ran, and the cells' own
prints are seen as they happen.
"""

import argparse
import ast
import difflib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from hnetlib.experiment.values import literal, say_in_any_locale

ROOT = Path(__file__).resolve().parent.parent
KERNEL = "python3"


class NotebookError(Exception):
    """What is wrong with the request or the notebook, in one line."""


def known_parameters(source: Path) -> list[str]:
    """Names assigned in the cell of notebook `source` that is tagged `parameters`.

    Raises NotebookError where `source` is no notebook, or that cell no plain Python.
    """
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        sources = ["".join(cell["source"]) for cell in tagged]
        if not isinstance(cells, list):
            raise TypeError("no list of cells")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{source}: expected a notebook, got {_one_line(error)}") from None
    names: list[str] = []
    for text in sources:
        try:
            statements = ast.parse(text).body
        except SyntaxError as error:
            raise NotebookError(f"{source}: parameters cell: {_one_line(error)}") from None
        for statement in statements:
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def check_parameters(source: Path, parameters: dict[str, object]) -> None:
    """Raise NotebookError for a parameter that `source` does not have, naming the nearest."""
    known = known_parameters(source)
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            names = ", ".join(known) or "none"
            raise NotebookError(f"{source.name} has no parameter {name}{hint} (known: {names})")


class NamedLines:
    """A text stream that puts `name` in front of each line, for notebooks that run side by side."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name, self.begun = stream, name, ""

    def write(self, text: str) -> None:
        """Passes on whole lines, at once, so that those of two notebooks never mix."""
        *lines, self.begun = (self.begun + text).split("\n")
        self.stream.write("".join(f"{self.name}{line}\n" for line in lines))

    def flush(self) -> None:
        """Passes the flush on."""
        self.stream.flush()

    def finish(self) -> None:
        """Ends the line that was begun, if there is one."""
        if self.begun:
            self.write("\n")


def execute(
    source: Path,
    output: Path,
    parameters: dict[str, object],
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> float:
    """Execute `source` with `parameters` into `output`; return the seconds it took.

    `output` appears, by a rename, only when every cell ran. Otherwise NotebookError holds the
    exception in one line, what ran is kept as `<stem>.failed.ipynb`, and an older `output` goes.
    """
    check_parameters(source, parameters)
    if output.is_dir() or (output.exists() and output.samefile(source)):
        raise NotebookError(f"output: expected a file that is not the source, got {output}")
    running, failed = (output.with_suffix(f".{state}.ipynb") for state in ("running", "failed"))
    output.parent.mkdir(parents=True, exist_ok=True)
    start, clock = time.time(), time.monotonic()
    try:
        _run(source, running, parameters, out, err)
    except Exception as error:
        output.unlink(missing_ok=True)
        kept = ""
        with suppress(OSError, ValueError, KeyError):  # a full disk leaves half a notebook
            _finish(running, failed, source)
            kept = f" (kept for reading: {failed})"
        running.unlink(missing_ok=True)
        raise NotebookError(f"{source.name}{_reason(error)}{kept}") from error
    except BaseException:  # interrupted
        running.unlink(missing_ok=True)
        raise
    _finish(running, output, source)
    # as old as what it was made from: a source saved meanwhile is newer, so make runs it again
    os.utime(output, (start, start))
    failed.unlink(missing_ok=True)
    return time.monotonic() - clock


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 1 after a one-line error."""
    say_in_any_locale()
    signal.signal(signal.SIGTERM, _stop)  # so that the kernel is shut down too
    try:
        options, parameters = _parse(sys.argv[1:] if arguments is None else arguments)
        check_parameters(options.source, parameters)
        if options.check:
            return 0
        given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        print(f"{options.source.stem}: running ({given or 'its own parameters'})", flush=True)
        streams = [sys.stdout, sys.stderr]
        if options.named:
            label = options.source.stem.split("_")[0]
            streams = [NamedLines(stream, f"{label} | ") for stream in streams]
        seconds = execute(options.source, options.output, parameters, *streams)
        for stream in streams if options.named else ():
            stream.finish()
    except (NotebookError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    from report.estimate import left

    more = left(options.output.parent)
    done = f"{options.source.stem}: done in {_duration(seconds)}, {options.output}"
    print(f"{done}; {more}" if more else done, flush=True)
    return 0


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, object]]:
    """Options and parameters. By hand for -p: argparse takes a value such as -1e-3 for an option"""
    parameters, rest, queue = {}, [], list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument not in ("-p", "--parameter"):
            rest.append(argument)
        elif len(queue) < 2:
            raise NotebookError(f"{' '.join([argument, *queue])}: expected -p NAME VALUE")
        else:
            name, text = queue.pop(0), queue.pop(0)
            parameters[name] = literal(text)
    parser = argparse.ArgumentParser(
        description="Execute one notebook.",
        epilog="-p NAME VALUE sets a parameter; it can be repeated, and the last one wins.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="notebook to execute")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="executed notebook")
    parser.add_argument(
        "--named", action="store_true", help="each line of output begins with the notebook's number"
    )
    parser.add_argument("--check", action="store_true", help="check the parameters' names only")
    return parser.parse_args(rest), parameters


def _run(
    source: Path, running: Path, parameters: dict[str, object], out: TextIO, err: TextIO
) -> None:
    import papermill  # here, as it takes a second and --check does without

    with _own_kernel():
        papermill.execute_notebook(
            _literal(source.resolve()),
            _literal(running.resolve()),
            parameters,
            kernel_name=KERNEL,
            language="python",
            cwd=source.resolve().parent,
            progress_bar=False,
            stdout_file=out,
            stderr_file=err,
            start_timeout=300,  # a busy machine may take longer than the minute that is usual
            iopub_timeout=60,
        )


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Make the kernel `python3` this very interpreter, whatever other kernels are registered."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as folder:
        # the kernel's own log is noise: that its port is not encrypted, that it was interrupted
        quiet = ["--log-level=CRITICAL"]
        write_kernel_spec(Path(folder) / "kernels" / KERNEL, extra_arguments=quiet)
        paths = [folder, *filter(None, [os.environ.get("JUPYTER_PATH")])]
        os.environ["JUPYTER_PATH"] = os.pathsep.join(paths)  # comes before every other place
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # no debugger warning in the output
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH")
            os.environ.update({"JUPYTER_PATH": paths[1]} if len(paths) > 1 else {})


def _finish(running: Path, target: Path, source: Path) -> None:
    """Move a finished run to `target`, without this machine's paths in its metadata."""
    notebook = json.loads(running.read_text(encoding="utf-8"))
    papermill = notebook["metadata"].get("papermill", {})
    for key, path in (("input_path", source), ("output_path", target)):
        whole = path.resolve()
        inside = whole.is_relative_to(ROOT)
        papermill[key] = whole.relative_to(ROOT).as_posix() if inside else path.name
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    running.write_text(text, encoding="utf-8")
    os.replace(running, target)


def _reason(error: Exception) -> str:
    """Where and why a run stopped, in one line."""
    ename = getattr(error, "ename", None)
    if ename is None:  # not the notebook's own doing: the kernel died or never started
        return f": {type(error).__name__}: {_one_line(error)}"
    return f", cell [{error.exec_count}]: {ename}: {_one_line(error.evalue)}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _literal(path: Path) -> str:
    """`path` for papermill, which takes braces for the names of parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
