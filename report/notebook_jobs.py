"""One notebook with many settings: jobs for `hnetlib.experiment.sweep`."""

import io
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hnetlib.experiment import paths, table
from hnetlib.experiment.files import read_json
from hnetlib.notebook import HEADLINE_MIME
from report.execute import check_parameters, execute, known_parameters

NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")
UNSAFE = re.compile(r"[^\w.=,+-]+")  # in the name of a file


@dataclass(frozen=True)
class Job:
    """A notebook, the parameters it is executed with, and where the outcome goes."""

    source: Path
    output: Path
    parameters: dict


def check(source: Path, combined: list[dict]) -> None:
    """NotebookError where the notebook lacks a parameter."""
    for settings in combined:
        check_parameters(source, settings)


def jobs_of(source: Path, combined: list[dict], out: Path) -> list[Job]:
    """A job for each combination of settings; those that the notebook has not are left out."""
    known, named = known_parameters(source), table.differing(combined)

    def job(settings: dict) -> Job:
        words = [source.stem, *(f"{name}={settings.get(name)}" for name in named)]
        parameters = {name: value for name, value in settings.items() if name in known}
        return Job(source, out / f"{UNSAFE.sub('_', '-'.join(words))}.ipynb", parameters)

    return [job(settings) for settings in combined]


def run(job: Job) -> Path:
    """Executes the notebook; what it prints is in the outcome alone."""
    execute(job.source, job.output, job.parameters, io.StringIO(), io.StringIO())
    return job.output


def finished(job: Job) -> Path | None:
    """The outcome, if it is there with these parameters and newer than all it was made from."""
    metadata = read_json(job.output).get("metadata", {}).get("papermill", {})
    same = metadata.get("parameters") == json.loads(json.dumps(job.parameters))
    newest = max(job.source.stat().st_mtime, _library_changed())
    return job.output if same and job.output.stat().st_mtime >= newest else None


def headlines(output: Path) -> dict[str, float]:
    """The numbers that an executed notebook is about, by their labels, in the units shown."""
    cells = read_json(output).get("cells", [])
    outputs = (one.get("data", {}) for cell in cells for one in cell.get("outputs", ()))
    shown = [data[HEADLINE_MIME] for data in outputs if HEADLINE_MIME in data]
    numbers = {one["label"]: NUMBER.search(one["value"]) for one in shown}
    return {label: float(n[0].replace(",", "")) for label, n in numbers.items() if n}


@cache
def _library_changed() -> float:
    return max(path.stat().st_mtime for path in paths.PACKAGE.rglob("*.py"))
