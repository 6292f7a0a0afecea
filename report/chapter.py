"""One executed notebook as one chapter of the page: its HTML, contents, headlines, provenance."""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from hnetlib.notebook import HEADLINE_MIME, PROVENANCE_MIME
from report.cells import CellsExporter, slug
from report.folding import fold

FIRST_APPENDIX = 90  # the number of its notebook
PROGRESS = re.compile(r"\d+%\||\d+it \[|\d(it/s|s/it)")  # a line of a tqdm bar


class PageError(Exception):
    """Why no page can be made, in one line."""


@dataclass
class Chapter:
    """What the page needs of one notebook. `sections` are (anchor, title as HTML)."""

    key: str  # "5": the number in front of the notebook's name, or the name
    source: Path
    title: str = ""
    body: str = ""
    sections: list[tuple[str, str]] = field(default_factory=list)
    headlines: list[dict] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)  # anchor -> HTML
    runs: list[dict] = field(default_factory=list)
    seconds: float | None = None

    @property
    def anchor(self) -> str:
        return f"chapter-{self.key}"

    @property
    def number(self) -> str:
        """What the page calls it: notebooks from 90 on are appendices A, B, ..."""
        letter = self.key.isdigit() and FIRST_APPENDIX <= int(self.key) < FIRST_APPENDIX + 26
        return chr(ord("A") + int(self.key) - FIRST_APPENDIX) if letter else self.key

    @property
    def label(self) -> str:
        return f"Chapter {self.key}" if self.number == self.key else f"Appendix {self.number}"


def read_chapter(path: Path) -> Chapter:
    """The chapter that the executed notebook at `path` holds.

    Raises PageError where the file is missing or no notebook, was never executed to its end, holds
    an error, or shows an image without alt text.
    """
    notebook = _read(path)
    if not isinstance(notebook.metadata.get("papermill", {}), dict):
        raise PageError(f"{path}: expected papermill's metadata, got something else")
    number = re.match(r"0*(\d+)", path.stem)
    chapter = Chapter(key=number[1] if number else slug(path.stem), source=path)
    chapter.seconds = notebook.metadata.get("papermill", {}).get("duration")
    _prepare(notebook, chapter)
    exporter = CellsExporter(chapter.key, path.parent)
    resources = {"chapter_key": chapter.key}
    chapter.body, _ = exporter.from_notebook_node(notebook, resources=resources)
    chapter.body += "</details>" if notebook.metadata["within"] else ""
    chapter.title = _title(exporter.title or html.escape(path.stem), chapter)
    chapter.sections = exporter.sections
    return chapter


def _title(title: str, chapter: Chapter) -> str:
    """The title; of an appendix without that word, which its letter says."""
    if chapter.number == chapter.key:
        return title
    return re.sub(r"^Appendix(?: \w)?:\s*(\w)", lambda m: m[1].upper(), title)


def _read(path: Path) -> nbformat.NotebookNode:
    if not path.is_file():
        raise PageError(f"{path}: expected an executed notebook, found no such file")
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds, all meaning: not a notebook
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PageError(f"{path}: expected a notebook, cannot read it ({reason})") from error
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            _check_cell(cell, f"{path}, cell {index}")
    return notebook


def _check_cell(cell: nbformat.NotebookNode, where: str) -> None:
    for output in cell.outputs:
        if output.output_type == "error":
            raise PageError(f"{where}: ended in {output.ename}: {_first_line(output.evalue)}")
        images = [mime for mime in output.get("data", {}) if mime.startswith("image/")]
        if images and not output.metadata.get("image/png", {}).get("alt"):
            raise PageError(f"{where}: image without alt text; use hnetlib.notebook.show")
    if cell.execution_count is None:
        raise PageError(f"{where}: expected an executed notebook, this cell never ran")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def _prepare(notebook: nbformat.NotebookNode, chapter: Chapter) -> None:
    """Fold, number figures and tables, collect headlines and runs, drop progress bars; in place."""
    counts = {"Figure": 0, "Table": 0}
    fold(notebook)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{chapter.key}-{index}"  # the notebook's own ids may repeat over the page
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in _joined(cell.outputs) if _is_shown(output)]
        if cell.metadata["folded"] and all(o.get("name") == "stdout" for o in cell.outputs):
            cell.metadata["printed"] = "\n".join(output.text for output in cell.outputs)
            cell.outputs = []
        for output in cell.outputs:
            _collect(output, chapter, counts)


def _collect(output: nbformat.NotebookNode, chapter: Chapter, counts: dict[str, int]) -> None:
    """Give one output its anchor and label, and the chapter what the page's end needs of it."""
    data, ours = output.get("data", {}), _details(output)
    if HEADLINE_MIME in data:
        ours["anchor"] = f"headline-{chapter.key}-{len(chapter.headlines) + 1}"
        chapter.headlines.append(dict(data[HEADLINE_MIME]) | {"own": ours["anchor"]})
    if PROVENANCE_MIME in data:
        ours["first"] = not chapter.runs
        chapter.runs.append(dict(data[PROVENANCE_MIME]))
    if ours.get("caption"):
        kind = "Figure" if "image/png" in data else "Table"
        counts[kind] += 1
        ours["label"] = f"{kind} {chapter.number}.{counts[kind]}"
        ours["anchor"] = f"{kind.lower()}-{chapter.key}-{counts[kind]}"
        if "text/html" in data:
            chapter.tables[ours["anchor"]] = data["text/html"]


def _details(output: nbformat.NotebookNode) -> dict:
    """What concerns the page alone of an output, to be read and written."""
    return output.get("metadata", {}).setdefault("hnetlib", nbformat.NotebookNode())


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs with the pieces of each stream joined up to the next figure or table."""
    joined: list[nbformat.NotebookNode] = []
    streams: dict[str, nbformat.NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            streams = {}
        elif output.name in streams:
            streams[output.name].text += output.text
            continue
        else:
            streams[output.name] = output
        joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = _as_on_terminal(output.text, drop_progress=output.name == "stderr")
    return joined


def _as_on_terminal(text: str, *, drop_progress: bool) -> str:
    """`text` with what a carriage return overwrites left out."""
    lines = [line.rstrip("\r").split("\r")[-1] for line in text.split("\n")]
    if drop_progress:
        lines = [line for line in lines if not PROGRESS.search(line)]
    return "\n".join(lines).strip("\n")


def _is_shown(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return bool(output.text.strip())
    return output.get("metadata", {}).get("hnetlib", {}).get("role") != "caption"
