"""Executed notebooks in, one self-contained HTML page out.

    python -m report.build --profile laptop --dataset mnist --out report/build/report.html 01.ipynb

The page loads nothing: figures, styles and equations are inside it. Beside what the notebooks found
it shows the committed results of report/reference/: with MNIST at the end, without it first.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup
from pygments.formatters import HtmlFormatter

from hnetlib.experiment.paths import reference_dir
from hnetlib.experiment.provenance import commit, hardware
from hnetlib.experiment.values import say_in_any_locale
from report.chapter import PageError, read_chapter
from report.claims import file_of_run, table_with, way_to_repository
from report.opening import read_opening
from report.results import TEXT, read_results

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "numpy", "matplotlib", "papermill", "nbconvert")
DATASETS = {
    "mnist": "MNIST (70,000 handwritten digits, 28x28 pixels)",
    "mnist5k": "mnist5k (5,000 handwritten digits of MNIST, 28x28 pixels)",
}


def build(notebooks: Sequence[Path], out: Path, *, profile: str, dataset: str) -> None:
    """Write the page of the executed `notebooks`, in the order given, to `out`.

    Raises PageError, and leaves a page already at `out` as it is, where a notebook is missing,
    unexecuted or failed, committed results can't be read, or the page would not stand alone.
    """
    if not notebooks:
        raise PageError("notebooks: expected at least one executed notebook, got none")
    chapters = [read_chapter(path) for path in notebooks]
    repeated = [key for key, n in Counter(c.key for c in chapters).items() if n > 1]
    if repeated:
        raise PageError(f"notebooks: expected one notebook a chapter, got several of {repeated[0]}")
    page = _template().render(
        chapters=chapters,
        opening=read_opening(reference_dir("")),
        results=read_results(reference_dir(""), first=profile),
        text_columns=TEXT,
        profile=profile,
        dataset=dataset,
        dataset_name=DATASETS.get(dataset, dataset),
        machine=environment(),
        css=_css(),
        duration=_duration,
        table_with=table_with,
        file_of_run=file_of_run,
        repository=way_to_repository(out),
    )
    _replace(out, _standing_alone(page))


def environment() -> dict[str, str]:
    """Where and from what the page is made: date, commit, hardware, package versions."""
    entries = {
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "hardware": hardware(),
        "system": f"{platform.system()} ({platform.machine()})",
        "python": platform.python_version(),
    }
    return entries | {name: importlib.metadata.version(name) for name in PACKAGES}


def _duration(seconds: float | None) -> str:
    """Seconds as a person would say them."""
    if seconds is None:
        return "not recorded"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    settings = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    return jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, **settings
    ).get_template("template.html.j2")


def _css() -> str:
    """Our style sheet, and colours for code in light and in dark."""
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    ours = (HERE / "page.css").read_text(encoding="utf-8")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{ours}"


def _standing_alone(page: str) -> str:
    """The page with links to nowhere made plain text; PageError where it would load anything."""
    soup = BeautifulSoup(page, "html.parser")
    ids = Counter(element["id"] for element in soup.select("[id]"))
    repeated = [name for name, count in ids.items() if count > 1]
    if repeated:
        raise PageError(f'page: expected unique ids, got id="{repeated[0]}" more than once')
    loading = [*soup.select("script, iframe, object, embed, link[href]")]
    loading += [e for e in soup.select("[src]") if not e["src"].startswith("data:")]
    loading += [e for e in soup.select("style, [style]") if _loads(e)]
    if loading:
        shown = str(loading[0])[:100].replace("\n", " ")
        raise PageError(f"page: expected nothing that runs or is loaded, got {shown}")
    for link in soup.select('a[href^="#"]'):
        if link["href"][1:] not in ids:
            print(
                f"warning: link to {link['href']}, which is not there: kept as text",
                file=sys.stderr,
            )
            link.unwrap()
    return str(soup)


def _loads(element) -> bool:
    style = element.get("style", "") + (element.string or "" if element.name == "style" else "")
    return "@import" in style or bool(re.search(r"url\(\s*['\"]?(?!data:)", style))


def _replace(out: Path, text: str) -> None:
    """Write `text` beside `out` first, so that `out` is always a whole page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False
    ) as side:
        try:
            side.write(text)
            side.close()
            os.chmod(side.name, 0o644)  # a temporary file is readable by its owner only
            os.replace(side.name, out)
        except BaseException:
            os.unlink(side.name)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 1 after one line that says why there is no new page."""
    say_in_any_locale()
    parser = argparse.ArgumentParser(description="Merge executed notebooks into one HTML page.")
    parser.add_argument("--profile", required=True, help="profile the notebooks ran with")
    parser.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    parser.add_argument("--out", required=True, type=Path, help="the page to write")
    parser.add_argument("notebooks", nargs="+", type=Path, help="executed notebooks, in order")
    options = parser.parse_args(arguments)
    try:
        build(options.notebooks, options.out, profile=options.profile, dataset=options.dataset)
    except (PageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(options.notebooks)} chapters, {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
