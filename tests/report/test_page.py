"""Pages of blocks: escaped, with labelled cells, the same text as the Markdown."""

import base64
from pathlib import Path

import pytest

from ocd_core.report.page import Code, Details, Links, Markdown, Picture, Section, Table, file_picture, html_page
from tests.report.test_store_page import Page

BAD = "<script>alert(1)</script>"


def page(*blocks, contents: bool = False) -> tuple[str, Page]:
    text = html_page("A title", "what `it` is", [Section("Some part", blocks)], contents=contents)
    return text, Page(text)


def test_every_block_is_escaped() -> None:
    text, found = page(
        Table((BAD, "b"), [(BAD, BAD)], numbers=1),
        Picture("data:image/png;base64,AAAA", BAD, BAD),
        Markdown(f"{BAD}\n\n| a | b |\n| --- | --- |\n| {BAD} | [x](javascript:alert(1)) |"),
        Code(BAD),
        Links([(BAD, 'x"onclick="y')]),
        Details(BAD, [Markdown(BAD)]),
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 9
    assert not [attrs for _, attrs in found.found if "onclick" in attrs]
    assert "javascript:" not in [attrs.get("href", "")[:11] for _, attrs in found.found]


def test_cells_know_their_column() -> None:
    """For the cards of narrow screens; the same from a table and from Markdown."""
    heads, row = ("method", "loss ↓", "p", "share"), ("base", "0.1", "", "5 %")
    as_markdown = f"| {' | '.join(heads)} |\n| --- | ---: | ---: | ---: |\n| {' | '.join(row)} |"
    for block in (Table(heads, [row], numbers=3), Markdown(as_markdown)):
        _, found = page(block)
        cells = [attrs for tag, attrs in found.found if tag == "td"]
        assert [cell.get("data-label") for cell in cells] == list(heads)
        assert [cell.get("class") for cell in cells] == [None, "n", "n", "n"]
        (table,) = (attrs for tag, attrs in found.found if tag == "table")
        assert table.get("class") == "wide"
    _, found = page(Table(("", ""), [("rows", "3")]))
    assert [attrs for tag, attrs in found.found if tag == "table"] == [{}]
    assert "th" not in {tag for tag, _ in found.found}


def test_code_between_backticks_and_star_of_markdown() -> None:
    text, _ = page(Table(("a", "b"), [("`x<y`", "one ` alone")]), Markdown("0.5\\* and `z`"))
    assert "<code>x&lt;y</code>" in text
    assert "one ` alone" in text
    assert "0.5* and <code>z</code>" in text
    assert "what <code>it</code> is" in text


def test_contents_lead_to_the_sections() -> None:
    _, found = page(Code("x"), contents=True)
    (link,) = (attrs["href"] for tag, attrs in found.found if tag == "a")
    assert link == "#some-part"
    assert "some-part" in [attrs.get("id") for tag, attrs in found.found if tag == "section"]
    assert "nav" not in {tag for tag, _ in page(Code("x"))[1].found}


def test_titles_below_the_pages_own() -> None:
    text, _ = page(Markdown("# Big\n\n## Small"))
    assert text.count("<h1") == 1
    assert "<h3>Big</h3>" in text


@pytest.mark.parametrize(("name", "kind"), [("a.png", "image/png"), ("b.GIF", "image/gif"), ("c.jpg", "image/jpeg")])
def test_image_files_are_embedded(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"picture")
    picture = file_picture(name, (tmp_path / name).read_bytes(), "text")
    assert picture is not None
    assert picture.source == f"data:{kind};base64,{base64.b64encode(b'picture').decode()}"


def test_other_files_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    assert file_picture("a.npy", b"", "") is None
