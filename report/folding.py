"""Which parts of a chapter are folded on the page: code that carries no idea, sections in depth.

A code cell that only sets up, plots, tabulates or prints has the tag `hide-input` (the convention
of Jupyter Book), a section that the story can do without has `in-depth` on the cell of its heading.
"""

import ast
import re

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

HIDDEN, PARAMETERS, IN_DEPTH = "hide-input", "parameters", "in-depth"
OPEN_LINES = 12  # a cell with more lines of code than this is no idea but a program
# What calls of these do is show, or set up: settings, data, files.
SHOWS = {"notebook", "plots"}
SETS_UP = {"json", "load_data", "make_config", "prepare_torch"}
SECTION = re.compile(r"^## .*", re.M)


def code_lines(source: str) -> list[str]:
    """The lines of a cell that are neither blank nor comments."""
    return [line for line in source.splitlines() if line.strip() and line.strip()[0] != "#"]


def is_plumbing(source: str) -> bool:
    """The rule: a cell that imports, calls what shows or sets up, or is long, has to be folded."""
    if len(code_lines(source)) > OPEN_LINES:
        return True
    nodes = list(ast.walk(ast.parse(source)))
    imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
    return imports or any(_called(node) in SHOWS | SETS_UP for node in nodes)


def _called(node: ast.AST) -> str:
    """The first name of what a call calls: notebook for notebook.show(...); else ""."""
    function = node.func if isinstance(node, ast.Call) else None
    while isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""


def tags_of(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def fold(notebook: NotebookNode) -> None:
    """Mark in each cell's metadata, in place, how the page folds it.

    `folded`: the code is folded. `opens`: a folded section begins here, its heading in a cell of
    its own; `closes`: it ended before. A notebook without a tag is folded by the rule.
    """
    tagged = any(HIDDEN in tags_of(cell) for cell in notebook.cells)
    notebook.cells = [part for cell in notebook.cells for part in _split(cell)]
    within = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["folded"] = _is_folded(cell, by_rule=not tagged)
        elif SECTION.match(cell.source):
            cell.metadata["closes"], within = within, IN_DEPTH in tags_of(cell)
            cell.metadata["opens"] = within
    notebook.metadata["within"] = within


def _is_folded(cell: NotebookNode, *, by_rule: bool) -> bool:
    tags = tags_of(cell)
    if HIDDEN in tags or any(PARAMETERS in tag for tag in tags):
        return True
    try:
        return by_rule and is_plumbing(cell.source)
    except SyntaxError:  # %magic, !shell: no idea of ours
        return True


def _split(cell: NotebookNode) -> list[NotebookNode]:
    """The cell; one of text with a section's heading in it as text, heading, text."""
    heading = SECTION.search(cell.source) if cell.cell_type == "markdown" else None
    if not heading:
        return [cell]
    before, after = cell.source[: heading.start()].strip(), cell.source[heading.end() :].strip()
    parts = [new_markdown_cell(before), new_markdown_cell(heading[0])]
    parts[1].metadata.update(cell.metadata)
    rest = new_markdown_cell(after)
    rest.attachments = parts[0].attachments = cell.get("attachments", {})
    return [part for part in (*parts, *_split(rest)) if part.source]
