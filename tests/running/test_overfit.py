"""The module `ocd_core.running.overfit`."""

from ocd_core.artifacts import Artifacts
from ocd_core.provenance import Lineage
from ocd_core.running import overfit
from ocd_core.store import OverfitStore


def test_each_split_has_a_store_that_says_what_it_was_made_from(plane_run: Artifacts) -> None:
    for split in ("train", "val", "test"):
        store = OverfitStore(plane_run.overfit(split))
        assert len(store) == 40
        assert (store.attributes["split"], store.attributes["made"]["stage"]) == (split, "overfit")


def test_the_bar_of_a_store_that_was_complete_says_so(plane_run: Artifacts, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in plane_run.overfit("val").rglob("*")}
    overfit.run(Lineage.of("plane", root=plane_run.root), ["val"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("overfit val")
    assert "40/40" in line
    assert line.endswith("was complete")
    assert {path: path.stat().st_mtime_ns for path in plane_run.overfit("val").rglob("*")} == before
