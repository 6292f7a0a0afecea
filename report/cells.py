"""The cells of one notebook as HTML that can share a page with other notebooks' cells."""

import base64
import html
import io
import re
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from report.equations import mathml, with_math
from report.folding import code_lines

HERE = Path(__file__).resolve().parent
PROGRESS = re.compile(r"\S+ +\d+/\d+ tasks ")  # a line of hnetlib.experiment.continual
# A formula and the sign behind it, which a line must not divide.
HELD = re.compile(r'(<math [^>]*display="inline">(?:(?!</math>).)*</math>[,.;:)]+)', re.DOTALL)
LONG = 25  # lines of text output beyond which it is folded
PAPER = 0.6  # share of white pixels from which on a figure is lines on paper, no picture
# Of a phone's 390 pixels a table can have 352; a letter takes about 7.2, a column's padding 19.
PHONE, LETTER, PADDING = 352, 7.2, 19


class CellsExporter(HTMLExporter):
    """nbconvert's HTML of the cells, with our outputs, MathML, and headings fit for one page."""

    def __init__(self, key: str, folder: Path) -> None:
        self.key, self.folder = key, folder
        self.anchor = f"chapter-{key}"
        self.title = ""
        self.sections: list[tuple[str, str]] = []
        self.anchors = {self.anchor}
        super().__init__(template_name="basic", exclude_input_prompt=True, embed_images=True)
        self.raw_template = (HERE / "cells.html.j2").read_text(encoding="utf-8")

    @property
    def default_config(self):
        config = super().default_config
        config.NbConvertBase.display_data_priority = [
            "text/html",
            "image/png",
            "text/markdown",
            "text/latex",
            "text/plain",
        ]
        return config

    def default_filters(self):
        yield from super().default_filters()
        yield "caption", self.caption
        yield "with_math", with_math
        yield "is_long", is_long
        yield "is_line_art", is_line_art
        yield "is_wide", is_wide
        yield "num_lines", num_lines

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        """HTML of `source`, as nbconvert makes it but for what PageRenderer changes."""
        cell = context.get("cell", {})
        renderer = PageRenderer(
            self, path=str(self.folder), embed_images=True, attachments=cell.get("attachments", {})
        )
        whole = MarkdownWithMath(renderer=renderer).render(source)
        return HELD.sub(r'<span class="held">\1</span>', whole)

    @jinja2.pass_context
    def caption(self, context, source: str) -> str:
        """HTML of one paragraph of Markdown, without the paragraph."""
        return re.sub(r"^<p>|</p>$", "", self.markdown2html(context, source).strip())


class PageRenderer(IPythonRenderer):
    """Markdown for the page: headings one level down and named once, MathML, links that hold."""

    def __init__(self, exporter: CellsExporter, **options) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, **options)
        self.exporter = exporter

    def heading(self, text: str, level: int, **attrs) -> str:
        exporter = self.exporter
        if level == 1 and not exporter.title:
            exporter.title = _without_number(text, exporter.key)
            return ""  # the page's template sets it above the chapter
        anchor = self._new_anchor(text)
        level = max(2, level)
        if level == 2:
            exporter.sections.append((anchor, re.sub(r"</?a\b[^>]*>", "", text)))
        return f'<h{min(6, level + 1)} id="{anchor}">{text}</h{min(6, level + 1)}>\n'

    def _new_anchor(self, text: str) -> str:
        base = f"{self.exporter.anchor}-{slug(_plain(text))}"
        anchor, count = base, 1
        while anchor in self.exporter.anchors:
            count += 1
            anchor = f"{base}-{count}"
        self.exporter.anchors.add(anchor)
        return anchor

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link, if it holds: to the web, to a section, or to another notebook's chapter."""
        if re.match(r"[a-z]+:", url):
            return super().link(text, url, title)
        target, _, section = url.partition("#")
        number = re.match(r"0*(\d+).*\.ipynb$", Path(target).name)
        if target and not number:
            return text  # a file beside the notebook; the page stands alone
        anchor = f"chapter-{number[1]}" if number else self.exporter.anchor
        return super().link(text, f"#{anchor}" + (f"-{slug(section)}" if section else ""), title)

    def inline_math(self, body: str) -> str:
        return mathml(body, display="inline")

    def block_math(self, body: str) -> str:
        return f'<span class="equation" tabindex="0">{mathml(body, display="block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def _without_number(title: str, key: str) -> str:
    """`title` less the chapter's number in front of it, which the page sets itself."""
    number = rf"^(?:(?:chapter|notebook)\s+)?(?:0*{key}\s*[.:)·\u2013\u2014-]+\s*|0+{key}\s+)"
    return re.sub(number, "", title, flags=re.IGNORECASE)


def _plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def slug(text: str) -> str:
    """`text` as the end of an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


def is_long(text: str) -> bool:
    """Whether printed text is folded: where it is many lines, or only how far a run has come."""
    lines = text.strip().splitlines()
    is_progress = bool(lines) and all(PROGRESS.match(line) for line in lines)
    return is_progress or text.count("\n") >= LONG


def num_lines(source: str) -> str:
    """How many lines of code a cell has, in words."""
    count = len(code_lines(source))
    return "1 line" if count == 1 else f"{count} lines"


def is_line_art(png: str) -> bool:
    """Whether a figure is lines on white paper, so that its colours can be turned for the dark."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        shades = image.convert("L").histogram()
    return sum(shades[250:]) >= PAPER * sum(shades)


def is_wide(table: str) -> bool:
    """Whether a table must scroll on a phone: its columns can't be narrower than their words."""
    rows = [row.find_all(["th", "td"]) for row in BeautifulSoup(table, "html.parser")("tr")]
    columns = zip(*(row for row in rows if row), strict=False)
    return sum(PADDING + LETTER * max(map(_longest_word, column)) for column in columns) > PHONE


def _longest_word(cell) -> int:
    text = cell.get_text()
    whole = cell.name == "td" and "right" in cell.get("style", "")  # "96.90 ± 0.06" is not broken
    return len(text) if whole else max(map(len, text.split()), default=0)
