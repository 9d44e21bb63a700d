"""docs/four-calls.md: its code, from the first line to the last, with fewer updates."""

import re
from pathlib import Path
from typing import Any

import pytest

from ocd_core import OCD
from tests.calls.support import QUICK
from tests.support.repository import REPO

PAGE = (REPO / "docs" / "four-calls.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^ocd (?!=)(.*)$", PAGE, re.MULTILINE)


def test_the_page_runs_from_top_to_bottom(ocd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    plain = OCD.__init__

    def quick(self: OCD, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **{**QUICK, **kwargs})

    monkeypatch.setattr(OCD, "__init__", quick)
    names: dict[str, Any] = {}
    for block in CODE:
        exec(compile(block, "four-calls.md", "exec"), names)
    assert names["answer"].draws.shape == (5, 5, 10)
    assert {"base", "ocd", "bound"} <= set(names["frame"].index)
    assert names["frame"].loc["base", "accuracy"] > 50
    assert "(not fitted)" not in repr(names["short"])
    images, digit, others = (names[name] for name in ("images", "digit", "others"))
    right = names["trained"].predict(images[others]).base_output.argmax(1) == digit[others]
    assert right.float().mean() > 0.85  # the weights were loaded, not made
    assert (tmp_path / "runs/digits/reports/digits/index.html").is_file()
    for command in COMMANDS:
        monkeypatch.chdir(tmp_path)
        done = ocd(*command.split())
        assert done.status == 0, done.err
