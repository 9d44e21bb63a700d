"""Pages that open offline: one HTML file without scripts, its styles and pictures embedded.

A page is sections of blocks; one template (templates/page.html) draws all of them. On a narrow screen, the rows of wide
tables become cards.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_core.drawing import png

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

# characters that no page needs and that change how text is shown: control characters, and the direction of text
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_KINDS = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True)
class Table:
    """A table of texts; numbers: how many of the last columns are numbers. In texts, `code` is between backticks."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 0
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """An embedded picture; source: a data URI. text: what it shows, for those who do not see it."""

    source: str
    text: str
    caption: str = ""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Markdown:
    """Text with its tables, as in the Markdown files of a report."""

    text: str
    kind: ClassVar[str] = "markdown"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Links:
    """A list of (text, path beside the page)."""

    targets: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "links"


@dataclass(frozen=True)
class Details:
    """Blocks that a reader opens."""

    title: str
    blocks: Sequence["Block"]
    kind: ClassVar[str] = "details"


Block = Table | Picture | Markdown | Code | Links | Details


@dataclass(frozen=True)
class Section:
    """A part of a page with a title."""

    title: str
    blocks: Sequence[Block]

    @property
    def name(self) -> str:
        """For links within the page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def html_page(title: str, lead: str, sections: Sequence[Section], *, contents: bool = False) -> str:
    """The page as HTML; the same arguments give the same text.

    Args:
        lead: what stands below the title.
        contents: list the sections at the top.
    """
    values = {"title": title, "lead": lead, "sections": sections, "contents": contents}
    return _CONTROL.sub("", _environment().get_template("page.html").render(**values)) + "\n"


def figure_picture(figure: "Figure", text: str, caption: str = "") -> Picture:
    """A matplotlib figure, embedded."""
    return Picture(_data_uri(png(figure), "image/png"), text, caption)


def file_picture(name: str, data: bytes, text: str, caption: str = "") -> Picture | None:
    """An image file, embedded; None if browsers do not show files of that name."""
    kind = _KINDS.get(Path(name).suffix.lower())
    return None if kind is None else Picture(_data_uri(data, kind), text, caption)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("ocd_core.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= {"inline": _inline, "markdown": _markdown}
    return made


def _inline(text: str) -> "Markup":
    """Text in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # an odd backtick is a character
        return escape(text)
    marked = (Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts))
    return Markup().join(marked)


def _markdown(text: str) -> "Markup":
    """CommonMark with tables, whose cells know the title of their column; HTML in the text is shown, not used.

    Pictures in the text are links: a page loads nothing from elsewhere.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(text)
    heads: list[str] = []
    column = 0
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            heads = []
        elif token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            style = token.attrs.pop("style", "")
            if "right" in str(style):
                token.attrSet("class", "n")
            if token.type == "th_open":
                heads.append(tokens[i + 1].content)
            elif heads[column]:
                token.attrSet("data-label", heads[column])
            column += 1
        elif token.type in ("heading_open", "heading_close"):  # the page's title is the only h1, its sections are h2
            token.tag = "h3"
    for i, token in enumerate(tokens):
        if token.type == "table_open" and _columns(tokens, i) > 3:
            token.attrSet("class", "wide")
    html = str(parser.renderer.render(tokens, parser.options, {}))
    html = html.replace("<table", '<div class="scroll"><table').replace("</table>", "</table></div>")
    return Markup(html)  # the parser has escaped the text


def _columns(tokens: Sequence[Any], start: int) -> int:
    """How many columns the table has that begins at a token."""
    end = next(i for i in range(start, len(tokens)) if tokens[i].type == "tr_close")
    return sum(token.type == "th_open" for token in tokens[start:end])
