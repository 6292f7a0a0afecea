"""The committed results on the page: where they stand, and that they are what is committed."""

import json
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hnetlib.experiment import paths
from hnetlib.notebook import HEADLINE_MIME
from report import build
from report.chapter import PageError

ROOT = paths.PACKAGE.parent

ROW = {
    "method": "hnet",
    "size": None,
    "profile": "laptop",
    "dataset": "mnist",
    "num_tasks": 100,
    "target": "mlp-100",
    "n_seeds": 3,
    "acc_mean": 0.9689786,
    "acc_std": 0.00056644,
    "learning_acc_mean": 0.970547,
    "bwt_mean": -0.00158417,
    "train_seconds_mean": 715.3,
    "stored_eval": 5745662,
    "hardware": "some <processor>, 2 cores",
    "commit": "0612617b03fd",
    "date": "2026-11-24",
}
UNKNOWN = ("acc_std", "learning_acc_mean", "bwt_mean", "train_seconds_mean")
AT_ONCE = ROW | dict.fromkeys(UNKNOWN) | {"method": "joint-plain", "n_seeds": 1, "acc_mean": 0.5}
ANCHOR = '<h2 id="reference-results">'


class Table(HTMLParser):
    """The rows of the table of results, each a list of texts; a profile's heading is one text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(page[page.index(ANCHOR) :].partition("</table>")[0].partition("<table>")[2])

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


@pytest.fixture
def make_page(tmp_path, monkeypatch):
    """A page of one small chapter beside these summaries, by profile; None: the committed ones."""
    headline = {HEADLINE_MIME: {"label": "l", "value": "v", "note": ""}, "text/plain": "l: v"}
    output = new_output("display_data", data=headline)
    cells = [new_markdown_cell("# 1. One"), new_code_cell("x", execution_count=1, outputs=[output])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_one.ipynb")

    def make(summaries: dict | None, dataset: str = "mnist", profile: str = "laptop") -> str:
        if summaries is not None:
            monkeypatch.setattr(build, "reference_dir", lambda name: tmp_path / "reference" / name)
        for name, rows in (summaries or {}).items():
            (tmp_path / "reference" / name).mkdir(parents=True)
            (tmp_path / "reference" / name / "summary.json").write_text(json.dumps(rows))
        out = tmp_path / "report.html"
        build.build([tmp_path / "01_one.ipynb"], out, profile=profile, dataset=dataset)
        return out.read_text(encoding="utf-8")

    return make


def committed() -> dict[str, list[dict]]:
    places = sorted(Path(paths.reference_dir("")).glob("*/summary.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in places}


def test_every_committed_row_is_on_the_page_and_says_the_same(make_page):
    columns, *rows = Table(make_page(None)).rows
    shown = []
    for row in rows:
        if len(row) == 1:
            heading = row[0]
        else:
            shown.append(dict(zip(columns, row, strict=True)) | {"heading": heading})
    of_mnist = [row for summary in committed().values() for row in summary]
    assert len(shown) == len(of_mnist) > 0

    def close(text: str, value: float | None, scale: float, half: float) -> bool:
        if value is None or text == "-":
            return value is None and text == "-"
        return abs(float(text.replace(",", "")) - scale * value) <= half + 1e-9

    def same(cells: dict, row: dict) -> bool:
        acc, _, std = cells["ACC"].partition(" ± ")
        return (
            cells["method"].startswith(row["method"])
            and f"made on {row['hardware']};" in cells["heading"]
            and all(cells[name] == row[name] for name in ("profile", "commit", "date"))
            and [cells["tasks"], cells["n"], cells["stored"]]
            == [f"{row[k]:,}" for k in ("num_tasks", "n_seeds", "stored_eval")]
            and close(acc, row["acc_mean"], 100, 0.005)
            and close(std or "-", row["acc_std"], 100, 0.005)
            and close(cells["learned"], row["learning_acc_mean"], 100, 0.005)
            and close(cells["BWT"], row["bwt_mean"], 100, 0.005)
            and close(cells["minutes"], row["train_seconds_mean"], 1 / 60, 0.05)
        )

    for row in of_mnist:
        assert sum(same(cells, row) for cells in shown) == 1, row


def test_all_profiles_are_shown_the_pages_own_first_and_their_files_named(make_page):
    summaries = {name: [ROW | {"profile": name}] for name in ("laptop", "original", "standard")}
    page = make_page(summaries, profile="original")
    headings = [row[0] for row in Table(page).rows if len(row) == 1]
    assert [heading.split(",")[0] for heading in headings] == ["original", "laptop", "standard"]
    for name in summaries:
        assert f"<code>report/reference/{name}/</code>" in page


def test_rows_are_under_the_hardware_they_were_made_on(make_page):
    other = {"hardware": "a GPU", "acc_mean": 0.6}
    rows = [AT_ONCE, ROW | other | {"method": "ewc"}, ROW]
    shown = Table(make_page({"laptop": rows})).rows[1:]
    assert [row[0].split(";")[0] for row in shown] == [
        f"laptop, made on {ROW['hardware']}",  # text, not markup
        "hnet",
        "joint-plain",
        "laptop, made on a GPU",
        "ewc",
    ]


def test_with_mnist_the_section_follows_the_chapters(make_page):
    page = make_page({"laptop": [ROW]})
    places = [page.index(f'<h2 id="{anchor}">') for anchor in ("chapter-1", "summary")]
    places += [page.index(ANCHOR), page.index('<h2 id="provenance">')]
    assert places == sorted(places)
    assert "made before, elsewhere, not by this page" in page
    assert page.count('href="#reference-results"') == 2  # contents, and under the title


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_without_mnist_the_section_comes_first_and_says_whose_numbers_these_are(make_page, profile):
    page = make_page({"laptop": [ROW]}, dataset="mnist5k", profile=profile)
    places = [page.index('class="banner"'), page.index(ANCHOR)]
    places += [page.index('<h2 id="chapter-1">')]
    assert places == sorted(places)
    assert "These numbers are of all of MNIST; the page's own, which follow, are of 5,000" in page
    contents = page[page.index("<nav") : page.index("</nav>")]
    assert contents.index("#reference-results") < contents.index("#chapter-1")


def test_what_is_not_known_is_a_dash(make_page):
    rows = Table(make_page({"laptop": [AT_ONCE, ROW]})).rows
    assert [row[0] for row in rows[2:]] == ["hnet", "joint-plain"]  # the better one first
    cells = dict(zip(rows[0], rows[3], strict=True))
    assert cells["ACC"] == "50.00"
    assert [cells[name] for name in ("learned", "BWT", "minutes")] == ["-"] * 3


def test_a_wide_network_is_named(make_page):
    ewc = ROW | {"method": "ewc", "acc_mean": 0.5}
    sizes = [ewc | {"size": "target"}, ewc | {"size": "matched", "acc_mean": 0.4}]
    rows = Table(make_page({"laptop": sizes})).rows
    assert [row[0] for row in rows[2:]] == ["ewc", "ewc, wide"]


@pytest.mark.parametrize(
    "summaries", [{}, {"laptop": []}, {"smoke": [ROW | {"dataset": "mnist5k"}]}]
)
@pytest.mark.parametrize("dataset", ["mnist", "mnist5k"])
def test_no_results_no_section(make_page, summaries, dataset):
    page = make_page(summaries, dataset=dataset)
    assert "reference-results" not in page[page.index("<body>") :]
    assert 'class="abstract"' not in page


@pytest.mark.parametrize("rows", ["{", [{"dataset": "mnist"}], ["hnet"]])
def test_an_unreadable_summary_is_named(make_page, rows, tmp_path):
    with pytest.raises(PageError, match=r"laptop/summary.json: expected rows of results"):
        make_page({"laptop": rows})
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("dataset", ["mnist", "mnist5k"])
def test_the_section_stands_alone(make_page, dataset):
    page = make_page({"laptop": [ROW]}, dataset=dataset)
    section = page[page.index(ANCHOR) :].partition("</section>")[0]
    assert "src=" not in section
    assert 'href="#summary"' in section or dataset == "mnist5k"
    assert section.count("href=") == section.count('href="#')
