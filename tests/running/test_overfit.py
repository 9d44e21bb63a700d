"""The module `ocd_core.running.overfit`."""

from ocd_core.artifacts import Artifacts
from ocd_core.store import OverfitStore


def test_each_split_has_a_store_that_says_what_it_was_made_from(plane_run: Artifacts) -> None:
    for split in ("train", "val", "test"):
        store = OverfitStore(plane_run.overfit(split))
        assert len(store) == 40
        assert (store.attributes["split"], store.attributes["made"]["stage"]) == (split, "overfit")
