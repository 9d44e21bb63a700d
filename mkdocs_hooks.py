"""The repository's own pages as a site: README.md and SECURITY.md become pages, and links between pages stay links.

Pages are written for a reader of the repository, whose links are relative to it. In the site, a link to another page
leads there, and one to a file that is no page (code) becomes the file's name.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

REPO = Path(__file__).resolve().parent
PAGES = {"README.md": "index.md", "SECURITY.md": "security.md"}  # pages of the repository outside docs/
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")
_PICTURE = re.compile(r"(!\[[^\]]*\]\()docs/")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=site_text((REPO / source).read_text("utf-8"), "")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page of docs/."""
    return markdown if page.file.src_uri in PAGES.values() else site_text(markdown, "docs")


def site_text(text: str, folder: str) -> str:
    """A page's Markdown with the links of the site; code is left as it is.

    Args:
        folder: of the page, in the repository.
    """

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = _normal(PurePosixPath(folder, target))
        if path in PAGES:
            return f"[{words}]({PAGES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"[{words}]({path.removeprefix('docs/')}{anchor})"
        return f"{words} (`{path}`)"

    parts = _CODE.split(text)
    return "".join(part if part.startswith("```") else _PICTURE.sub(r"\1", _LINK.sub(link, part)) for part in parts)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
