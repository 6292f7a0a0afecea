"""LaTeX formulas as MathML, which browsers show without loading anything."""

import html
import re
import sys

from latex2mathml.converter import convert as latex_to_mathml

# A bar that opens and one that closes look alike, so a browser guesses: it stretches one of them.
BARS = re.compile("<mo>(&#x02016;|&#x0007C;)</mo>")


def mathml(source: str, *, display: str) -> str:
    """The formula `source` as MathML; where it can't be read, its source, and a warning."""
    # The converter knows only the starred form, and gives the others numbers of their own.
    latex = re.sub(
        r"\\(begin|end)\{(align|aligned|split|gather|gathered)\}", r"\\\1{align*}", source
    )
    latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex).replace(r"\|", r"\Vert ")
    try:
        formula = latex_to_mathml(latex.strip(), display=display)
        formula = BARS.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', formula)
        left = re.search(r">(\\[A-Za-z|]+|&)<", formula)
        if left:
            raise ValueError(f"unknown {left[1]}")
    except Exception as error:  # any formula, however broken, leaves the rest of the page whole
        reason = str(error).split("\n")[0] or type(error).__name__
        print(f"warning: equation kept as source ({reason}): {source.strip()}", file=sys.stderr)
        return f"<code>{html.escape(source.strip())}</code>"
    return formula


def with_math(table: str) -> str:
    """The HTML of one of our tables with each $...$ as MathML, without its own caption."""
    table = re.sub(r"<caption>.*?</caption>\n?", "", table, flags=re.S)
    return re.sub(
        r"\$([^$<>\n]+)\$", lambda m: mathml(html.unescape(m[1]), display="inline"), table
    )
