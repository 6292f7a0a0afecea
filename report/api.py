"""API pages of hnetlib, from its docstrings, by pdoc: `python -m report.api <folder>`."""

import sys
from pathlib import Path

import hnetlib


def main(folder: str) -> int:
    """Writes the pages; 0."""
    import pdoc  # `make docs` installs it

    for name in hnetlib.__all__:  # which are found when asked for; pdoc only looks
        setattr(hnetlib, name, getattr(hnetlib, name))
    pdoc.render.configure(docformat="markdown", math=True, show_source=False)
    # modules one by one, as `__all__` hides them; the command has its --help
    files = sorted(Path(hnetlib.__file__).parent.glob("*.py"))
    names = [f"hnetlib.{file.stem}" for file in files if file.stem not in ("__init__", "train")]
    pdoc.pdoc("hnetlib", *names, "hnetlib.experiment", output_directory=Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
