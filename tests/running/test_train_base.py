"""The module `ocd_core.running.train_base`."""

from ocd_core.artifacts import Artifacts, read_json, read_table


def test_the_best_epoch_of_the_curve_is_kept(plane_run: Artifacts) -> None:
    losses = [float(row["val_loss"]) for row in read_table(plane_run.base / "curve.tsv")]
    assert read_json(plane_run.base / "metrics.json")["val_loss"] == min(losses)
