"""The documentation as a site: every link leads somewhere there, too, and the API page shows what is exported."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mkdocs_hooks import site_text
from tests.support.repository import REPO
from tests.test_api import documented


class Targets(HTMLParser):
    """What a page refers to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values["id"] or ""} if "id" in values else set()
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if tag in ("img", "script", "link") and (values.get("src") or values.get("href")):
            self.sources.append(values.get("src") or values.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_links_and_pictures_lead_somewhere_inside_the_site(site: Path) -> None:
    pages = {page: Targets(page.read_text("utf-8")) for page in site.glob("*.html") if page.name != "404.html"}
    assert len(pages) > 15
    for page, found in pages.items():
        assert all(not source.startswith(("http", "//")) for source in found.sources), page  # nothing from elsewhere
        for target in (*found.links, *found.sources):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = page if not path else (page.parent / path).resolve()
            assert there.exists(), f"{page.name}: {target}"
            assert not anchor or there not in pages or anchor in pages[there].anchors, f"{page.name}: {target}"
    assert any("tinynerf_demo_views.png" in source for source in pages[site / "index.html"].sources)
    assert "security.html" in "".join(pages[site / "reliability.html"].links)


def test_the_api_page_shows_everything_that_it_names(site: Path) -> None:
    shown = Targets((site / "api.html").read_text("utf-8")).anchors
    assert {name for name in documented() if name != "ocd_core"} <= shown


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("[a](docs/x.md#b) ![p](docs/images/p.png)", "", "[a](x.md#b) ![p](images/p.png)"),
        ("[a\nb](SECURITY.md), [c](README.md#d)", "", "[a\nb](security.md), [c](index.md#d)"),
        ("[a](../SECURITY.md#b), [c](x.md), [d](#e)", "docs", "[a](security.md#b), [c](x.md), [d](#e)"),
        ("[code](../ocd_core/rng.py), [far](https://example.org)", "docs", "code (`ocd_core/rng.py`), [far](https://example.org)"),
        ("```\n[a](docs/x.md)\n```", "", "```\n[a](docs/x.md)\n```"),
    ],
)  # fmt: skip
def test_links_of_the_repository_become_those_of_the_site(text: str, folder: str, expected: str) -> None:
    assert site_text(text, folder) == expected
