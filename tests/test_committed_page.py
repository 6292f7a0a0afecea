"""The committed chapters are those of the notebooks as they stand."""

import nbformat
import pytest

from hnetlib.experiment import paths

NOTEBOOKS = sorted((paths.project_root() / "notebooks").glob("*.ipynb"))
COMMITTED = paths.reference_dir("laptop") / "notebooks"


def code_of(path):
    """Sources of its code cells, but for the parameters that papermill put in."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    return [c.source for c in code if "injected-parameters" not in c.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_chapters_ran_the_code_that_is_there(path):
    assert code_of(COMMITTED / path.name) == code_of(path)


def test_no_chapter_is_left_that_is_none_any_more():
    assert {path.name for path in COMMITTED.glob("*.ipynb")} == {path.name for path in NOTEBOOKS}
