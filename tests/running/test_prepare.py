"""The module `ocd_core.running.prepare`."""

from ocd_core.artifacts import Artifacts, read_json


def test_the_summary_counts_what_splits_share(plane_run: Artifacts) -> None:
    summary = read_json(plane_run.prepared / "summary.json")
    assert summary["licence"] == "CC0-1.0"
    assert summary["shared_rows"] == {"train/val": 0, "train/test": 0, "val/test": 0}
