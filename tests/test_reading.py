"""How a reader gets about: contents that follow, figures that enlarge, tables that scroll."""

import base64
import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report import build, cells


def png(draw):
    """A figure as a notebook holds it."""
    fig, axis = plt.subplots(figsize=(3, 2))
    draw(axis)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    plt.close(fig)
    return base64.b64encode(buffer.getvalue()).decode()


def shown(**data):
    """A cell that shows something with a caption."""
    details = {"hnetlib": {"caption": "What."}, "image/png": {"alt": "A picture.", "width": 288}}
    data = {name.replace("_", "/"): value for name, value in data.items()}
    return new_code_cell(
        "notebook.show(x)",
        execution_count=1,
        outputs=[new_output("display_data", data=data, metadata=details)],
    )


def table(*columns):
    rows = zip(*columns, strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<table><tbody>{body}</tbody></table>"


LINES = png(lambda axis: axis.plot([1, 2, 3]))
MATRIX = png(lambda axis: axis.imshow(np.eye(5)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    wide = table(*[["many letters in a row", "unbreakable_word"]] * 4)
    chapters = {
        "01_one": [new_markdown_cell("# 1. One\n\n## First\n\n## Second")],
        "02_two": [new_markdown_cell("# 2. Two\n\n## Third"), shown(image_png=LINES)],
        "03_three": [
            new_markdown_cell("# 3. Three"),
            shown(image_png=MATRIX),
            shown(text_html=wide),
            shown(text_html=table(["a"], ["b"])),
        ],
    }
    for name, some in chapters.items():
        nbformat.write(new_notebook(cells=some), folder / f"{name}.ipynb")
    out = folder / "report.html"
    build.build(sorted(folder.glob("*.ipynb")), out, profile="laptop", dataset="mnist")
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


def test_contents_have_chapters_and_each_chapter_its_own_sections(page):
    chapters = [a["href"] for a in page.select("#contents a")]
    assert chapters[:3] == ["#chapter-1", "#chapter-2", "#chapter-3"]
    for chapter, sections in (("1", ["first", "second"]), ("2", ["third"]), ("3", [])):
        (part,) = page.select(f'section[aria-labelledby="chapter-{chapter}"]')
        links = [a["href"] for a in part.select(".sections a")]
        assert links == [f"#chapter-{chapter}-{name}" for name in sections]
    css = page.find("style").string
    assert css.count("position: sticky") >= 2  # chapters, and sections of the one that is read


def test_a_click_on_a_figure_enlarges_it_and_another_closes_it(page):
    for number in ("2-1", "3-1"):
        (figure,) = page.select(f"#figure-{number}")
        zoom, close = figure.select_one("a.zoom"), figure.select_one("a.close")
        assert zoom["href"] == f"#{zoom['id']}"
        assert close["href"] == f"#figure-{number}"
        assert close["aria-label"]
        assert zoom.img["alt"] == "A picture."
    assert ".zoom:target {" in page.find("style").string


def test_lines_follow_the_dark_and_pictures_keep_their_colours(page):
    assert page.select_one("#figure-2-1 img").get("class") == ["line-art"]
    assert page.select_one("#figure-3-1 img").get("class") is None


def test_a_table_that_must_scroll_on_a_phone_says_so(page):
    wide, narrow = page.select("#table-3-1, #table-3-2")
    assert "scrolls" in wide.select_one(".hint").text
    assert not narrow.select(".hint")
    for box in page.select(".scroll"):
        assert (box.get("role"), box.get("tabindex")) == ("region", "0")
        assert box.get("aria-label")


@pytest.mark.parametrize(
    ("columns", "is_wide"),
    [
        ([["few", "words"]] * 3, False),
        ([["words that may be broken at spaces" * 5]], False),
        ([["x" * 60]], True),
        ([["1,234"]] * 6, False),
        ([["1,234,567"]] * 6, True),
    ],
)
def test_width_is_that_of_the_longest_words(columns, is_wide):
    assert cells.is_wide(table(*columns)) == is_wide


@pytest.mark.parametrize(
    ("text", "is_folded"),
    [
        (
            "hnet-laptop-s0-02804d85    4/10 tasks   mean accuracy 94.82%   0.5 min   0 min left",
            1,
        ),
        ("ewc-smoke-s0-1   1/3 tasks   0.1 min   0.2 min left\nlearned all", 0),
        ("loss 2.29", 0),
        ("", 0),
        ("\n".join("one" for _ in range(26)), 1),
    ],
)
def test_printed_progress_and_long_text_are_folded(text, is_folded):
    assert cells.is_long(text + "\n") == bool(is_folded)
