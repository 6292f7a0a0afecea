"""Make `.venv` from `requirements.lock`; `make` runs this with the machine's own Python.

    python3 report/bootstrap.py [--quiet]     make or update .venv, at once when it is up to date
    python  report/bootstrap.py --active      check that the running Python can be used instead

Standard library only, and syntax an old Python can parse: it has to live long enough to say that
it is too old. A file in `.venv`, named by the hash of the lock and written last, says what is
installed, so an install that was cut off is done again.
"""

import argparse
import collections
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons for which the pinned torch has wheels
ON_DISK_GB = 6
NEW_GB = 10  # at the peak: the environment and the wheels it is unpacked from
UPDATE_GB = 4
FOUND = ("Collecting ", "Processing ")  # how a line of pip begins at each package
ROOT = Path(__file__).resolve().parent.parent


class SetupError(Exception):
    """What is wrong and the fix, in one line."""


def check_python(version: "tuple" = tuple(sys.version_info)) -> None:
    """Raise SetupError unless `version` is one that the pinned packages exist for."""
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        span = " to ".join(f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
        raise SetupError(
            f"Python {span} needed, this one ({sys.executable}) is {version[0]}.{version[1]}; "
            "name another, as in: make setup PYTHON=python3.12"
        )


def check_venv(modules: "tuple" = ("venv", "ensurepip")) -> None:
    """Raise SetupError unless Python's own `modules` for making environments are there."""
    missing = [name for name in modules if util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"this Python ({sys.executable}) lacks the module {' and '.join(missing)}; "
            "on Debian and Ubuntu the fix is: sudo apt install python3-venv"
        )


def check_disk(folder: "str | Path", needed_gb: float) -> None:
    """Raise SetupError unless the disk of `folder` has `needed_gb` GB free."""
    free_gb = shutil.disk_usage(str(folder)).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"{needed_gb:.0f} GB of free disk needed to install the environment, {free_gb:.1f} GB "
            f"found at {folder}; free some or move the project"
        )


def stamp_name(lock: "str | Path") -> str:
    """Name of the file that says that this content of `lock` is installed."""
    return "installed-" + hashlib.sha256(Path(lock).read_bytes()).hexdigest()[:16]


def is_current(root: Path = ROOT) -> bool:
    """Whether `.venv` holds what the lock asks for and this checkout, not one moved elsewhere."""
    stamp = root / ".venv" / stamp_name(root / "requirements.lock")
    python = root / ".venv" / "bin" / "python"
    return python.exists() and stamp.is_file() and stamp.read_text() == str(root)


def setup(root: Path = ROOT) -> None:
    """Make or update `root/.venv` from the lock. SetupError says what is in the way."""
    check_python()
    new = not _usable(root)
    if new:
        check_venv()
    check_disk(root, NEW_GB if new else UPDATE_GB)
    size = f"about {ON_DISK_GB} GB on disk, a few minutes, most of them downloads"
    what = f"making .venv from requirements.lock: {size}" if new else "updating .venv to the lock"
    print(f"setup: {what}", flush=True)
    start = time.monotonic()
    if new:
        shutil.rmtree(str(root / ".venv"), ignore_errors=True)  # none, or one that can't start
        _run(root, sys.executable, "-m", "venv", ".venv")
    for old in (root / ".venv").glob("installed-*"):
        old.unlink()
    # the lock is complete, so nothing that it does not name may slip in
    _pip(root, "--no-deps", "-r", "requirements.lock")
    _pip(root, "--no-deps", "--no-build-isolation", "-e", ".")
    _write_stamp(root)
    print(f"setup: .venv is ready ({time.monotonic() - start:.0f} s)", flush=True)


def check_active(root: Path = ROOT) -> None:
    """Raise SetupError unless the running Python has every package that pyproject.toml names."""
    check_python()
    import tomllib  # since 3.11, so after the check
    from importlib import metadata

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]["report"]
    wanted = project["project"]["dependencies"] + extras + project["dependency-groups"]["test"]
    installed = {_plain(found.metadata["Name"] or "") for found in metadata.distributions()}
    names = [re.split(r"[^\w.-]", line)[0] for line in wanted]
    missing = [name for name in names if _plain(name) not in installed]
    if missing:
        raise SetupError(
            f"ENV=active: the active Python ({sys.executable}) lacks {', '.join(missing)}; "
            "the fix is: pip install -r requirements.lock"
        )


def main() -> int:
    """Run as the docstring of this module says; 1 after a one-line error."""
    parser = argparse.ArgumentParser(description="make .venv from requirements.lock")
    parser.add_argument("--quiet", action="store_true", help="no word when there is nothing to do")
    parser.add_argument("--active", action="store_true", help="check the running Python instead")
    options = parser.parse_args()
    try:
        if options.active:
            check_active()
        elif not is_current():
            with _alone():
                if not is_current():  # another make may have done it while this one waited
                    setup()
        elif not options.quiet:
            print("setup: .venv is up to date")
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: setup interrupted; the same command starts it again", file=sys.stderr)
        return 130
    return 0


def _alone():
    """Wait for the lock of a setup that is running in another process; the system frees it."""
    import fcntl  # here, as Windows lacks it

    handle = (ROOT / "requirements.lock").open()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("setup: waiting for another setup of this project to end", flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # some network disks have no locks; then nobody is waited for
    return handle


def _usable(root: Path) -> bool:
    """Whether `.venv` has a Python that starts, has pip, and is of a version the lock is for."""
    python = root / ".venv" / "bin" / "python"
    code = f"import sys, pip; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return python.exists() and subprocess.call([str(python), "-c", code], **quiet) == 0


def _pip(root: Path, *arguments: str) -> None:
    scratch = root / ".venv" / "tmp"  # on the disk that was checked; /tmp may be small
    scratch.mkdir(exist_ok=True)
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")
    _run(root, ".venv/bin/python", *pip, *arguments, TMPDIR=str(scratch))
    shutil.rmtree(str(scratch), ignore_errors=True)


def _run(root: Path, *command: str, **environment: str) -> None:
    """Run `command` with its output boiled down to a line now and then; raise if it fails."""
    tail = collections.deque(maxlen=200)
    with subprocess.Popen(
        command,
        cwd=str(root),
        env=dict(os.environ, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        packages = 0
        for line in process.stdout:
            tail.append(line.strip())
            packages += line.startswith(FOUND)
            _progress(line, packages)
    if process.returncode:
        errors = [line for line in tail if line.lower().startswith("error")] or list(tail)[-1:]
        raise SetupError(f"{' '.join(command[:5])} failed: {' '.join(errors[:2])}")


def _progress(line: str, packages: int) -> None:
    big = re.search(r"Downloading (\S+).*\(([0-9.]+ GB|[0-9]{3,}[0-9.]* MB)\)", line)
    if big:
        name = big.group(1).split("/")[-1].split("-")[0]
        print(f"setup:   downloading {name} ({big.group(2)})", flush=True)
    elif line.startswith(FOUND) and packages % 25 == 0:
        print(f"setup:   {packages} packages found", flush=True)
    elif line.startswith("Installing collected packages") and packages > 1:
        print(f"setup:   unpacking {packages} packages, a minute or two", flush=True)


def _write_stamp(root: Path) -> None:
    stamp = root / ".venv" / stamp_name(root / "requirements.lock")
    side = stamp.with_suffix(".tmp")
    side.write_text(str(root))
    os.replace(str(side), str(stamp))


def _plain(name: str) -> str:
    """A package's name the way indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules must never stand in for the standard library's
    sys.exit(main())
