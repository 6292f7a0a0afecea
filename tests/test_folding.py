"""What the page folds: code without an idea, sections in depth; and that notebooks say which."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hnetlib.experiment import paths
from report import build, folding

NOTEBOOKS = sorted((paths.PACKAGE.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SAID = "notebook.say(f'{1 + 1}')"
IDEA = "weights = hnet(task=0)  # [P]"


def code(source, *tags, printed=""):
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    return new_code_cell(source, execution_count=1, outputs=outputs, metadata={"tags": [*tags]})


def text(source, *tags):
    return new_markdown_cell(source, metadata={"tags": [*tags]})


@pytest.fixture
def make_page(tmp_path):
    """The page of one chapter with these cells."""

    def make(*cells):
        path, out = tmp_path / "01_one.ipynb", tmp_path / "report.html"
        nbformat.write(new_notebook(cells=[text("# 1. One"), *cells]), path)
        build.build([path], out, profile="smoke", dataset="mnist")
        return out.read_text(encoding="utf-8")

    return make


def folded(page):
    """The text inside each folded piece of code."""
    parts = page.split('<details class="code">')[1:]
    return [part.partition("</details>")[0] for part in parts]


@pytest.mark.parametrize(
    ("source", "plumbing"),
    [
        (IDEA, False),
        ("loss.backward()\nprint(f'loss {loss:.2f}')", False),
        ("import torch", True),
        (SAID, True),
        ("def line(x):\n    return plots.curves(x)", True),
        ("config = make_config(profile)\nhnet = build(config)", True),
        ("\n".join(f"a{n} = f({n})" for n in range(folding.OPEN_LINES)), False),
        ("\n".join(f"a{n} = f({n})" for n in range(folding.OPEN_LINES + 1)), True),
        ("a = 1\n\n# why\n" * folding.OPEN_LINES, False),  # blank lines and comments are free
        ("my.notebook.show(1)", False),  # of another's
    ],
)
def test_rule(source, plumbing):
    assert folding.is_plumbing(source) == plumbing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_that_carry_no_idea_are_tagged_and_open_ones_short(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    plain = [c for c in cells if folding.HIDDEN not in folding.tags_of(c)]
    ideas = [c.source for c in plain if folding.PARAMETERS not in folding.tags_of(c)]
    assert not [source for source in ideas if folding.is_plumbing(source)], "tag them hide-input"
    assert ideas, "a chapter shows at least one idea as code"
    lines = sum(len(folding.code_lines(source)) for source in ideas)
    assert lines <= 60, "more than a reader will read"
    assert len(plain) == len(ideas) + 1  # the parameters cell is found, and edited, unfolded


def test_tagged_code_is_folded_with_what_it_printed_and_ideas_stay_open(make_page):
    page = make_page(code(SAID, "hide-input", printed="said"), code(IDEA, printed="shown"))
    (part,) = folded(page)
    assert "say" in part
    assert "said" in part
    assert "Code, 1 line<" in part
    assert "shown" in page
    assert "shown" not in part


def test_parameters_are_folded_both_the_notebooks_and_those_set(make_page):
    cells = code("steps = 1", "parameters"), code("steps = 2", "injected-parameters"), code(IDEA)
    parts = folded(make_page(*cells))
    assert [part.partition(",")[0] for part in parts] == [
        "<summary>Parameters",
        "<summary>Parameters set for this run",
    ]


def test_a_notebook_without_tags_is_folded_by_the_rule_one_with_tags_is_not(make_page):
    assert len(folded(make_page(code(SAID), code(IDEA), code("%time 1")))) == 2
    assert len(folded(make_page(code(SAID), code("import json", "hide-input")))) == 1


def test_a_figure_of_folded_code_stays(make_page):
    table = {"text/html": "<table><tbody><tr><td>7</td></tr></tbody></table>"}
    cell = code("notebook.table(rows)", "hide-input", printed="beside")
    cell.outputs.append(new_output("display_data", data=table))
    page = make_page(cell)
    assert "<td>7</td>" in page
    assert all("<td>7</td>" not in part and "beside" not in part for part in folded(page))


def test_sections_in_depth_end_where_the_next_begins(make_page):
    page = make_page(
        text("Before.\n\n## First\n\nOne.", "in-depth"),
        text("More.\n\n## Second\n\nTwo.\n\n## Third\n\nThree."),
        text("## Fourth\n\n### Deeper\n\nFour.", "in-depth"),
        text("Last."),
    )
    body = page[page.index('<h2 id="chapter-1">') : page.index('<h2 id="glossary">')]
    before, first, fourth = body.split('<details class="section">')
    inside_first, _, after_first = first.partition("</details>")
    inside_fourth = fourth.partition("</details>")[0]
    assert "Before." in before
    assert all(word in inside_first for word in ('id="chapter-1-first"', "One.", "More."))
    assert all(word in after_first for word in ("Second", "Two.", "Third", "Three."))
    assert all(word in inside_fourth for word in ("Deeper", "Four.", "Last."))
    assert page.index('href="#chapter-1-first"') < page.index('id="chapter-1-first"')


def test_one_switch_without_script_and_print_shows_ideas_alone(make_page):
    page = make_page(code(IDEA))
    assert page.count('name="shown"') == 3
    assert re.findall(r'<input checked="" id="(\w+)"', page) == ["story"]
    css = " ".join(page.split())
    assert "body:has(#unfold:checked) main details::details-content" in css
    paper = css[css.index("@media print") :]
    assert "details.code { display: none; }" in paper
    assert "details::details-content { content-visibility: visible;" in paper
