"""How many lines a script is: counted, the same for all."""

import ast
import io
import tokenize
from pathlib import Path

COUNTED = (
    "lines that hold code, formatted to 100 columns; without blank lines, comments, docstrings "
    "and imports (`lines_with_imports`: with those)"
)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def count(source: str | Path) -> dict[str, int]:
    """Lines of code of a script, given as text or by its path, and with imports."""
    text = source.read_text() if isinstance(source, Path) else source
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    tree = ast.parse(text)
    code -= lines_of(node for node in map(docstring, ast.walk(tree)) if node)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {"lines": len(code - lines_of(imports)), "lines_with_imports": len(code)}


def lines_of(nodes) -> set[int]:
    """The numbers of all lines that these nodes take."""
    return {number for node in nodes for number in range(node.lineno, node.end_lineno + 1)}


def docstring(node: ast.AST) -> ast.AST | None:
    """The docstring of a module, class or function, if it has one."""
    has_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    return node.body[0] if has_one and ast.get_docstring(node) is not None else None
