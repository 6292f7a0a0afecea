"""Which code a run's numbers depend on, and a hash of it.

That is `learner.py`, the module of the method's class, and what these import of this package, and
so on; but for modules that only keep or show what others compute. So an edit of a baseline, or a
new one, leaves the runs of all other methods as they are.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hnetlib.experiment import paths
from hnetlib.experiment.profiles import learner_name

TRAINS = "hnetlib.experiment.learner"
# What numbers can't depend on, though what computes imports it.
NOT_NUMERIC = {
    "hnetlib",
    "hnetlib.experiment",
    "hnetlib.hollow",  # raises, or is as if it were not there
    "hnetlib.order",  # refuses orders of calls and changes nothing
    "hnetlib.plots",
    "hnetlib.states",  # refuses a state, or puts back what was there
    "hnetlib.experiment.files",
    "hnetlib.experiment.identity",
    "hnetlib.experiment.paths",
    "hnetlib.experiment.profiles",  # what it says is in the config
    "hnetlib.experiment.provenance",
    "hnetlib.experiment.runs",
    "hnetlib.experiment.rules",  # refuse settings and change none
    "hnetlib.experiment.tracking",
    "hnetlib.experiment.values",  # reads settings as they are typed
}


def code_hash(method: str) -> str:
    """Hash of what a method's modules say, without comments, docstrings and blank lines.

    It is one of text and not of syntax trees, which differ between versions of Python.
    """
    return _hash_of(modules_of(method).values())


def package_hash() -> str:
    """The same of the whole package: whether two machines have the same."""
    return _hash_of(sorted(paths.PACKAGE.rglob("*.py")))


def modules_of(method: str) -> dict[str, Path]:
    """The modules, by name, that a method's numbers depend on.

    A class that is not of this package has its own module, and what that imports of this package.
    """
    reached: dict[str, Path] = {}
    waiting = [TRAINS, learner_name(method).rpartition(".")[0]]
    while waiting:
        name = waiting.pop()
        if name not in reached and name not in NOT_NUMERIC:
            reached[name] = _file_of(name)
            waiting += _imported(reached[name].read_text(encoding="utf-8"))
    return dict(sorted(reached.items()))


def _file_of(module: str) -> Path:
    inside, _, rest = module.partition(".")
    if inside == paths.PACKAGE.name:
        return _of_package(rest)
    found = find_spec(module)
    if not found or not found.origin:
        raise ValueError(f"learner: expected the name of a class, with its module, got {module!r}")
    return Path(found.origin)


def _of_package(rest: str) -> Path:
    path = paths.PACKAGE.joinpath(*rest.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache  # a sweep asks for every run
def _imported(source: str) -> set[str]:
    """The modules of this package that a source imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] == paths.PACKAGE.name}
    return {name for name in ours if _of_package(name.partition(".")[2]).is_file()}


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(_code_of(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


@cache
def _code_of(source: str) -> str:
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:  # which reaches to the end of its line
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for row in range(node.lineno, node.end_lineno + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
