"""Progress goes to standard error, so that what a command prints can be piped."""

import pytest

from ocd_core.progress import no_progress, part_of, progress_bar


def test_a_bar_says_what_is_done_on_standard_error(capsys) -> None:
    with progress_bar("decode train", 40) as progress:
        progress(13, "first")
        progress(25, "loss 0.5")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.strip()]
    assert line.startswith("decode train")
    assert "25/40" in line
    assert "loss 0.5" in line
    assert "first" not in line


def test_names_are_text_and_nothing_else(capsys) -> None:
    """A layer's name may hold what rich takes for a style, and what a terminal obeys."""
    with progress_bar("[/x]", 2) as progress:
        progress(1, "[red]b[/red]\x1b[2J\u202e")
    shown = capsys.readouterr().err
    assert "[/x]" in shown
    assert "[red]b[/red]\\x1b[2J\\u202e" in shown


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_of_80_columns_cuts_the_note_and_nothing_else(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with progress_bar("train the diffusion", 12345) as progress:
        progress(12001, "stopped early, best val loss 0.12345, and more that there is to say")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("train the diffusion ")
    assert "12001/12345 0:00:0" in line
    assert ("more that there is to say" in line) == (width == 160)
    assert len(line) <= width


def test_a_bar_is_closed_when_the_block_fails(capsys) -> None:
    for _ in range(2):  # rich refuses a second live bar while one is open
        try:
            with progress_bar("decode", 2) as progress:
                progress(1, "")
                raise KeyError
        except KeyError:
            pass
    assert capsys.readouterr().err.count("1/2") == 2


def test_a_notebook_without_widgets_shows_lines_and_no_complaint(capsys, monkeypatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("ocd_core.progress.find_spec", lambda name: None)
    with progress_bar("decode", 2) as progress:
        progress(2, "")
    shown = capsys.readouterr()
    assert "2/2" in shown.err
    assert "ipywidgets" not in shown.err + shown.out


def test_no_bar_shows_nothing(capsys) -> None:
    no_progress(3, "note")
    assert capsys.readouterr() == ("", "")


def test_a_part_counts_on_from_those_before_it() -> None:
    seen = []
    part = part_of(lambda done, note: seen.append((done, note)), 7, "second")
    part(0, "")
    part(3, "ignored")
    assert seen == [(7, "second"), (10, "second")]
