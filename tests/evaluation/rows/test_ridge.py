"""The row of the kernel ridge regression."""

import numpy as np
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.codes.curvature import row_curvatures
from ocd_core.evaluation.regression import subset
from ocd_core.network.moves import outputs_with_move
from tests.support.runs import assert_same_outputs, fit_row, moved_by_hand, row_of


def test_the_row_moves_the_layer_by_its_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "ridge")
    base = shared.base
    ones = torch.ones(len(shared)) if row.space.representation.uses_scale else None
    deltas = row.space.representation.decode(row.ridge(base.condition), ones, base.cut.layer_input_NI)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))


def test_the_row_takes_the_metric_of_the_training_rows_own_losses(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "ridge", rows=40, metric="gauss_newton", widths=[1.0], penalties=[0.1])
    store, space = fitting.store("train"), fitting.space
    sample_id = torch.from_numpy(store.read("sample_id"))
    rows = subset(sample_id, 40, fitting.seed)
    model, batch = fitting.tail, fitting.split("train").batch(sample_id[rows])
    cut, code = model.prefix(batch.inputs), fitting.coordinates_Nd[rows]

    def losses(c: torch.Tensor) -> torch.Tensor:
        return fitting.task.loss(outputs_with_move(model, cut, space.move(c, cut.layer_input_NI)), batch.target)

    if fitting.predictor.model.layer_name == "head":  # quadratic in Δ, so differences of any size are exact
        split = fitting.split("train")
        found = row_curvatures(fitting.task, model, split, sample_id[rows], 0 * rows, code, space.move, 0)
        for j in range(space.size):
            shift = 3.0 * torch.eye(space.size)[j]
            by_differences = (losses(code + shift) + losses(code - shift) - 2 * losses(code)) / 9
            torch.testing.assert_close(found[:, j, j], by_differences.detach(), rtol=1e-3, atol=1e-4)
    plain = fit_row(run, "ridge", rows=40, widths=[1.0], penalties=[0.1])[2].metrics
    assert fit.metrics["rows"] == plain["rows"]
    assert fit.metrics["cv_mse"] != plain["cv_mse"]
    assert np.isfinite(fit.metrics["cv_r2"])
    assert torch.isfinite(row.ridge(fitting.train_condition)).all()
