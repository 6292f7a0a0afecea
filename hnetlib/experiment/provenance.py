"""Where numbers come from: commit, versions, hardware, date."""

import datetime
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from hnetlib.experiment.paths import PACKAGE, project_root

CODE = ("hnetlib", "notebooks", "report", "requirements.lock", ":!report/reference")


def provenance(device: str = "cpu") -> dict:
    """Where and with what numbers are being made now."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware(device),
    }


def hardware(device: str = "cpu") -> str:
    """The GPU, where that is the device, or else the processor and its number of cores."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), model)
    return f"{model}, {os.cpu_count()} cores"


def commit() -> str:
    """The checkout's commit, "-dirty" where its code differs from it; else "unknown"."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", project_root(), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    if not (PACKAGE.parent / "pyproject.toml").is_file():
        return "unknown"  # installed: where one works may be a checkout of something else
    try:
        # results that are not committed yet do not change the code they came from
        changed = git("status", "--porcelain", "--", *CODE)
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
