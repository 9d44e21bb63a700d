"""Markdown tables, read back cell by cell."""

from ocd_core.report.markdown import markdown_table


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
