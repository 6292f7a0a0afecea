"""The first screen and the table of claims: numbers are those committed, links lead somewhere."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hnetlib.experiment import paths
from hnetlib.notebook import HEADLINE_MIME, PROVENANCE_MIME
from report import build, claims, figure, opening

ROOT = paths.PACKAGE.parent
REFERENCE = Path(paths.reference_dir(""))
COMMITTED = sorted((REFERENCE / "laptop" / "notebooks").glob("*.ipynb"))


def rows_of(profile):
    return json.loads((REFERENCE / profile / "summary.json").read_text())


def row_of(profile, method):
    rows = rows_of(profile.removesuffix("-plain"))
    (row,) = [r for r in rows if (r["profile"], r["method"]) == (profile, method)]
    return row


def num_words(text):
    """Words alone: no numbers, no signs."""
    return len(re.findall(r"[A-Za-z'-]+", text))


def html_table(*cells):
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    head = "<caption>A table.</caption><thead><tr><th>5</th></tr></thead>"
    return f"<table>{head}<tbody><tr>{body}</tr></tbody></table>"


def output(data, **ours):
    return new_output("display_data", data=data, metadata={"hnetlib": ours})


def headline(value):
    return output(
        {HEADLINE_MIME: {"label": "l", "value": value, "note": "n"}, "text/markdown": "x"}
    )


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """An executed appendix with two tables, two headlines and a run."""
    cell = new_code_cell("x", execution_count=1)
    cell.outputs = [
        output({"text/html": html_table("96.90", "-0.16")}, caption="A table."),
        output({"text/html": html_table("11.1")}, caption="Another."),
        *map(headline, ("96.9% / -0.16 points", "44.4%")),
        output({PROVENANCE_MIME: {"run": "reference: hnet, seed 0"}, "text/markdown": "x"}),
    ]
    path = tmp_path_factory.mktemp("executed") / "90_more.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Appendix A: more"), cell]), path)
    return path


def build_page(out, *notebooks):
    build.build(notebooks, out, profile="laptop", dataset="mnist")
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def page(notebook, tmp_path_factory):
    """Its page, outside the repository."""
    return build_page(tmp_path_factory.mktemp("page") / "report.html", notebook)


def test_abstract_says_what_is_committed_in_about_120_words():
    abstract = opening.read_opening(REFERENCE).abstract
    assert 100 <= num_words(abstract) <= 130
    for key in (opening.OURS, opening.ADAM, opening.FREE, opening.SEPARATE, opening.SMALL):
        row = row_of(*key)
        assert f"{100 * row['acc_mean']:.2f} ± {100 * row['acc_std']:.2f}" in abstract
    typed = re.sub(r"\{[^}]*\}", "", (ROOT / "report" / "opening.py").read_text())
    body = typed[typed.index("def _abstract") : typed.index("def _figure")]
    assert not re.search(r"\d\.\d+(?!f)", body), "numbers are read, never typed"


def test_tokens_that_carry_the_task_are_named_once_they_are_committed():
    keys = (opening.OURS, opening.ADAM, opening.FREE, opening.SEPARATE, opening.SMALL)
    rows = {key: row_of(*key) for key in keys}
    tokens = {"profile": "tokens", "method": "hnet", "stored_eval": 158602, "n_seeds": 3}
    tokens |= {"acc_mean": 0.9645, "acc_std": 0.0012}
    assert "frozen generator" not in opening._abstract(rows)
    with_tokens = opening._abstract(rows | {("tokens", "hnet"): tokens})
    assert "96.45 ± 0.12 % in 158,602 parameters and forgets nothing." in with_tokens
    assert num_words(with_tokens) <= 140
    assert opening._point(tokens).label == "tokens"


def test_three_numbers_have_n_spread_and_size():
    numbers = opening.read_opening(REFERENCE).numbers
    assert len(numbers) == 3
    shown = (("tokens", "hnet"), ("tokens-small", "hnet"), opening.OURS)
    for number, key in zip(numbers, shown, strict=True):
        row = row_of(*key)
        assert re.fullmatch(r"\d\d\.\d\d ± \d\.\d\d %", number["value"])
        assert f"n = {row['n_seeds']}, {row['stored_eval']:,} parameters" in number["note"]


def test_figure_has_every_whole_run_of_a_hundred_tasks_and_the_published_ones():
    svg = BeautifulSoup(opening.read_opening(REFERENCE).figure, "html.parser")
    notes = [title.text for title in svg.select("g > title")]
    rows = [
        row for path in REFERENCE.glob("*/summary.json") for row in json.loads(path.read_text())
    ]
    whole = [r for r in rows if r["num_tasks"] == 100 and r["steps_per_task"] >= 400]
    assert len(notes) == len(whole) + len(opening.PUBLISHED)
    for row in whole:
        shown = f"{100 * row['acc_mean']:.2f} %, {row['stored_eval']:,} parameters"
        assert any(note.startswith(row["method"]) and shown in note for note in notes)
    assert all(point.note for point in opening.PUBLISHED), "each names its source"
    assert svg.find("title").text
    assert svg.find("desc").text
    assert "#" not in re.sub(r'(url\(#|id="|by=")[^")]*', "", str(svg)), "colours are the page's"


def test_more_accurate_is_higher_and_more_stored_is_further_right():
    small, large = figure.Point("a", 1e5, 0.9, "ours"), figure.Point("b", 1e6, 0.95, "ours")
    assert small.place[0] < large.place[0]
    assert small.place[1] > large.place[1]
    for extreme in (figure.Point("c", 1, 1.0, "ours"), figure.Point("d", 1e12, 0.0, "ours")):
        x, y = extreme.place
        assert figure.LEFT <= x <= figure.WIDTH
        assert 0 <= y <= figure.HEIGHT


def test_labels_keep_off_each_other():
    points = [figure.Point(str(n), 1e6, 0.9, "ours", label="label") for n in range(4)]
    boxes = re.findall(r'x="([\d.]+)" y="([\d.]+)"', "".join(figure._labels(points)))
    assert len(set(boxes)) == 4


@pytest.mark.parametrize(
    ("value", "anchor"),
    [
        ("96.9%", "b"),  # the last one that has it
        ("96.90 ± 0.06 %", "a"),  # all of its numbers
        ("97%", "b"),
        ("96.8%", None),
        ("5", None),  # a header's
        ("1,234 bytes", "b"),
        ("none", None),
    ],
)
def test_table_of_a_number(value, anchor):
    tables = {"a": html_table("96.90 ± 0.06"), "b": html_table("96.9", "1234")}
    assert claims.table_with(value, tables) == anchor


def test_each_headline_links_to_its_table_or_to_where_it_is_said(page):
    rows = page.select(".claims tbody tr")
    links = [row.select_one("td:nth-child(2) a")["href"] for row in rows]
    assert links == ["#table-90-1", "#headline-90-2"]
    assert all(page.find(id=link[1:]) for link in links)
    assert not page.select(".cards")


def test_commits_and_runs_link_to_files_where_the_page_is_in_the_repository(notebook):
    folder = ROOT / "report" / "build" / "links"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "report.html"
    try:
        page = build_page(out, notebook)
    finally:
        out.unlink(missing_ok=True)
        folder.rmdir()
    files = [a["href"] for a in page.select("a[href]") if re.match(r"[./]", a["href"])]
    assert len(files) == len(page.select(".results tbody tr td.commit")) + 2  # a run for each claim
    assert all((folder / href).resolve().is_file() for href in files)
    (run, *_) = page.select(".claims tbody td:nth-child(4) a")
    assert run["href"].endswith("report/reference/laptop/runs/hnet-s0.json")


def test_elsewhere_the_page_links_to_no_file(page):
    links = [a["href"] for a in page.select("a[href]")]
    assert all(link.startswith(("#", "https://")) for link in links)


def test_appendices_have_letters(page):
    assert page.select_one("#chapter-90").text.split() == ["A", "More"]
    assert "Table A.1" in page.text
    assert "Provenance" in page.text
    assert "Appendix A: More" in page.text


def test_the_schematic_and_the_figure_have_text_for_who_cannot_see_them(page):
    for drawing in page.select("svg"):
        assert drawing["role"] == "img"
        title, text = (drawing.find(id=key) for key in drawing["aria-labelledby"].split())
        assert title.text
        assert len(text.text) > 80


def test_glossary_has_the_symbols_and_references_can_be_followed(page):
    terms = " ".join(term.text for term in page.select(".glossary dt"))
    assert {"T", "P", "C", "H", "R", "D", "M", "β"} <= set(re.findall(r"\w", terms))
    assert len(page.select(".references li")) == len(page.select(".references li:has(a[href])"))


def test_what_the_committed_notebooks_show_is_known():
    for path in COMMITTED:
        types = set(re.findall(r"application/vnd\.hnetlib[^\"]*", path.read_text(encoding="utf-8")))
        assert types <= {HEADLINE_MIME, PROVENANCE_MIME}


@pytest.mark.slow
def test_the_committed_notebooks_still_make_a_page(tmp_path, capsys):
    page = build_page(tmp_path / "report.html", *COMMITTED)
    assert "warning" not in capsys.readouterr().err
    assert (tmp_path / "report.html").stat().st_size < 6_000_000
    assert len(page.select("main > section.chapter h2 > .number")) == len(COMMITTED)
    assert page.select('.claims a[href="#provenance-5"]'), "its run is known"
    assert len(page.select("details.code")) > 80
