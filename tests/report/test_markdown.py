"""Markdown tables, read back cell by cell."""

from markdown_it import MarkdownIt

from ocd_core.report.markdown import as_text, markdown_table


def cells(line: str) -> list[str]:
    assert line.startswith("| ")
    assert line.endswith(" |")
    return line[2:-2].split(" | ")


def test_text_is_to_the_left_and_numbers_to_the_right() -> None:
    rows = [["OCD", "20", "0.40 ↓"], ["", "–", "± 1"]]
    head, rule, *body = map(cells, markdown_table(["method", "n", "loss"], rows).splitlines())
    assert head == ["method", "n", "loss"]
    assert rule == ["---", "---:", "---:"]
    assert body == rows
    rules = markdown_table(["a", "b", "c"], [], text_columns=2).splitlines()[1:]
    assert list(map(cells, rules)) == [["---", "---", "---:"]]


def test_names_are_shown_as_they_are() -> None:
    """A parser of Markdown finds one paragraph of text."""
    name = "<b>|名 前*_x_*`\"'[red](a) &amp; #1 ~~$a$~~ c\\d"
    _, inline, _ = MarkdownIt("gfm-like", {"linkify": False}).parse(f"layer {as_text(name)} (rank 1)")
    assert inline.children is not None
    assert {token.type for token in inline.children} <= {"text", "text_special"}
    assert "".join(token.content for token in inline.children) == f"layer {name} (rank 1)"
    assert as_text("\x1b[2J\u202e") == r"\\x1b\[2J\\u202e"
    assert as_text("tinynerf_demo") == "tinynerf_demo"
