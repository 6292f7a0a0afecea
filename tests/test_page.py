"""The page: executed notebooks in, one HTML file out that needs nothing else."""

import io
import os
import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hnetlib import notebook as shown
from report import build

ROOT = Path(__file__).resolve().parent.parent

FIRST = [
    new_markdown_cell("# 01. One task\n\nHow? See [the end](#Summary), [next](05_many.ipynb)."),
    new_code_cell('profile = "laptop"', metadata={"tags": ["parameters"]}),
    new_code_cell('profile = "smoke"', metadata={"tags": ["injected-parameters"]}),
    new_markdown_cell(
        "## Summary\n\n$\\beta < 1$ and\n\n$$\\|x\\|^2$$\n\n"
        "\\begin{align}\na &= b \\\\\n&= c\n\\end{align}\n\nBroken: $\\frac{$"
    ),
    new_code_cell(
        "import matplotlib.pyplot as plt\n"
        "from hnetlib import notebook\n"
        "for name in ('first', 'second'):\n"
        "    fig, ax = plt.subplots(figsize=(3, 2))\n"
        "    notebook.show(fig, alt=f'The {name} \"alt\"', caption=f'The {name} caption.')",
        metadata={"tags": ["large"]},
    ),
    new_code_cell("notebook.say('Said: $\\\\gamma = 2$.')"),
    new_code_cell("notebook.table([{'name': '<script>', 'n': 1234}], caption='A table.')"),
    new_code_cell("notebook.headline('Accuracy', '97.8%', 'one <seed>')"),
    new_code_cell("notebook.provenance({'run': 'r1', 'seed': 1000, 'hardware': 'two cores'})"),
    new_code_cell(
        "import sys\nfor i in range(30): print('line', i)\nprint('loud', file=sys.stderr)"
    ),
    new_code_cell("print(' 50%|#####     | 5/10 [00:01<00:01]', file=sys.stderr)"),
]
SECOND = [
    new_markdown_cell("# 05. Many tasks\n\n## Summary\n\nBack to [one](01_one.ipynb#Summary)."),
    new_markdown_cell("## Summary\n\nAgain. [Nowhere](#nowhere)"),
]


class Page(HTMLParser):
    """The tags of a page, and the text in it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def write(path: Path, cells: list) -> Path:
    nbformat.write(new_notebook(cells=cells), path)
    return path


def run_build(out: Path, *notebooks: Path, dataset: str = "mnist") -> subprocess.CompletedProcess:
    arguments = ["--profile", "smoke", "--dataset", dataset, "--out", str(out)]
    said = io.StringIO(), io.StringIO()
    with redirect_stdout(said[0]), redirect_stderr(said[1]):
        status = build.main([*arguments, *map(str, notebooks)])
    texts = (stream.getvalue() for stream in said)
    return subprocess.CompletedProcess(arguments, status, *texts)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> list[Path]:
    """Two notebooks, the first really run by a kernel."""
    folder = tmp_path_factory.mktemp("executed")
    notebook = new_notebook(cells=FIRST)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    nbformat.write(notebook, folder / "01_one.ipynb")
    return [folder / "01_one.ipynb", write(folder / "05_many.ipynb", SECOND)]


@pytest.fixture(scope="module")
def built(executed, tmp_path_factory) -> tuple[Page, str]:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    done = run_build(out, *executed)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]  # no side file left
    return Page(out.read_text(encoding="utf-8")), done.stderr


@pytest.fixture(scope="module")
def page(built) -> Page:
    return built[0]


def test_page_loads_nothing(page):
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    sources = page.values("src")
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    styles = [*re.findall(r"<style.*?</style>", page.source, re.S), *page.values("style")]
    assert not any("url(" in style or "@import" in style for style in styles)


def test_ids_are_unique_and_links_resolve(page):
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inside = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
    assert inside <= set(ids)
    # both notebooks' sections, the repeated heading too, and links across notebooks
    assert {"chapter-1-summary", "chapter-5-summary", "chapter-5-summary-2"} <= inside
    assert {"chapter-1", "chapter-5", "provenance", "summary"} <= inside
    assert "ipynb" not in " ".join(link["href"] for link in page.all("a"))


def test_link_to_nowhere_becomes_text_and_is_reported(built):
    page, stderr = built
    assert "Nowhere" in page.text
    assert "warning: link to #chapter-5-nowhere" in stderr


def test_figures_have_numbers_captions_and_alt_text(page):
    assert [image["alt"] for image in page.all("img")] == ['The first "alt"', 'The second "alt"']
    assert [image["width"] for image in page.all("img")] == ["288", "288"]  # 3 inches of 96 pixels
    for number, name in (("1.1", "first"), ("1.2", "second")):
        assert f"Figure {number}: The {name} caption." in page.text
    assert page.source.count('class="large"') == 2  # by the tag of their cell
    assert page.text.count("The first caption.") == 1  # the notebook's own caption is left out
    assert "Table 1.1: A table." in page.text
    assert {"figure-1-1", "figure-1-2", "table-1-1"} <= set(page.values("id"))


def test_table_values_are_text_not_markup(page):
    assert "<td" in page.source
    assert "&lt;script&gt;" in page.source
    assert "1,234" in page.text


def test_equations_are_mathml_in_cells_and_in_outputs(built):
    page, stderr = built
    assert len(page.all("math")) == 4  # inline, display, align, and the one said by a cell
    assert len(page.all("mtable")) == 1
    assert re.search(r'<span class="held"><math[^>]*>.*?</math>\.</span>', page.source)
    for left_over in ("$$", "\\beta", "\\begin", "MathJax"):
        assert left_over not in page.text
    assert "<code>\\frac{</code>" in page.source
    assert "warning: equation kept as source" in stderr
    assert "\\frac{" in stderr


def test_headlines_and_provenance_are_shown(page):
    assert page.text.count("97.8%") == 3  # in its code, in its chapter, in the table of all
    assert "one &lt;seed&gt;" in page.source
    assert "r1" in page.text
    assert "1000" in page.text  # a seed gets no separators
    for name in ("torch", "nbconvert", "commit", "hardware", "python"):
        assert re.search(rf'<th scope="row">{name}</th>\s*<td>[^<]+</td>', page.source), name


def test_both_parameter_cells_are_shown(page):
    assert "Parameters set for this run" in page.text
    for value in ("laptop", "smoke"):
        assert f'"{value}"' in page.text


def test_long_output_is_folded_and_progress_bars_are_dropped(page):
    assert "Printed text: 30 lines" in page.text
    assert "loud" in page.text
    printed = re.sub(r'<div class="[^"]*highlight.*?</pre>', "", page.source, flags=re.S)
    assert "50%|" not in printed


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_mnist5k_is_announced_and_mnist_is_not(page, executed, tmp_path):
    out = tmp_path / "report.html"
    assert run_build(out, *executed, dataset="mnist5k").returncode == 0
    banner = 'class="banner"'
    assert banner in out.read_text()
    assert "do not compare these numbers with numbers on MNIST" in Page(out.read_text()).text
    assert banner not in page.source


def _cell(source: str = "x", count: int | None = 1, outputs: tuple = ()):
    return new_code_cell(source, execution_count=count, outputs=list(outputs))


_ERROR = new_output("error", ename="ValueError", evalue="too many\nlines", traceback=[])
_NO_ALT = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
_SCRIPT = new_output("display_data", data={"text/html": "<script src='https://cdn/x.js'></script>"})
_REMOTE = new_markdown_cell("![a picture](https://example.org/picture.png)")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([_cell(count=None)], "cell 0: expected an executed notebook, this cell never ran"),
        ([_cell(), _cell(outputs=[_ERROR])], "cell 1: ended in ValueError: too many"),
        ([_cell(outputs=[_NO_ALT])], "cell 0: image without alt text"),
        ([_cell(outputs=[_SCRIPT])], "nothing that runs or is loaded"),
        ([_REMOTE], "nothing that runs or is loaded"),
        ([new_markdown_cell('<p id="a">x</p><p id="a">y</p>')], 'id="a" more than once'),
    ],
)
def test_bad_notebook_is_refused_and_the_old_page_kept(tmp_path, cells, reason):
    out = tmp_path / "report.html"
    out.write_text("old page")
    done = run_build(out, write(tmp_path / "02_bad.ipynb", cells))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert out.read_text() == "old page"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["02_bad.ipynb", "report.html"]


def test_missing_or_unreadable_notebook_is_named(tmp_path):
    torn = tmp_path / "03_torn.ipynb"
    torn.write_text('{"cells": [')
    for path in (tmp_path / "02_missing.ipynb", torn):
        done = run_build(tmp_path / "report.html", path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {path}: expected")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_two_notebooks_of_one_chapter_are_refused(executed, tmp_path):
    copy = tmp_path / "01_other.ipynb"
    copy.write_bytes(executed[0].read_bytes())
    done = run_build(tmp_path / "report.html", executed[0], copy)
    assert done.returncode == 1
    assert "expected one notebook a chapter" in done.stderr


def test_a_figure_shown_twice_is_the_same_bytes(executed):
    notebook = nbformat.read(executed[0], as_version=4)
    images = [
        output.data["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 2  # `show` closes the figure, so the kernel shows none of its own
    assert images[0] == images[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shown.show(None, alt=" ", caption="c"), "alt: expected some text"),
        (lambda: shown.show(None, alt="a", caption=""), "caption: expected some text"),
        (lambda: shown.table([], caption="c"), "rows: expected at least one row"),
        (lambda: shown.table([{"a": 1}, {"b": 2}], caption="c"), "in row 2"),
        (lambda: shown.table([{"a": 1}], caption=""), "caption: expected some text"),
        (lambda: shown.headline("", "1"), "label: expected some text"),
        (lambda: shown.headline("a", ""), "value: expected some text"),
        (lambda: shown.say(""), "markdown: expected some text"),
        (lambda: shown.provenance({}), "entries: expected at least one"),
    ],
)
def test_empty_output_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
