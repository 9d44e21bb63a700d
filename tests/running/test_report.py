"""The module `ocd_core.running.report`."""

from ocd_core.artifacts import Artifacts


def test_the_page_lies_below_the_root_of_the_run(plane_run: Artifacts) -> None:
    assert "<html" in (plane_run.root / "reports/plane/index.html").read_text()
