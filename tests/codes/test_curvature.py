"""Metrics of rows: the loss's own second derivatives, in units of their mean."""

import pytest
import torch

from ocd_core.codes import curvature
from ocd_core.codes.curvature import as_metrics, mean_diagonal, metrics_of_codes, row_curvatures
from ocd_core.codes.representations.factored import Factored
from ocd_core.errors import UserError
from ocd_core.network.gauss_newton import quadratic
from tests.support.arrays import MODEL, ArrayTask, Noisy, Rows

K, SPLIT = 3, Rows(10)
BASIS = torch.randn(K, *MODEL.weight_OI.shape, generator=torch.Generator().manual_seed(0))
CODE = torch.randn(8, K, generator=torch.Generator().manual_seed(1))


def decode(code: torch.Tensor, layer_input: torch.Tensor | None) -> torch.Tensor:
    return torch.einsum("nk,koi->noi", code, BASIS.to(code.dtype))


@pytest.mark.parametrize("task", [ArrayTask(), Noisy()])
def test_each_row_has_the_curvature_of_its_own_inputs(task) -> None:
    ids, replica = torch.tensor([0, 0, 1, 1, 5, 5, 9, 9]), torch.tensor([0, 1] * 4)
    found = row_curvatures(task, MODEL, SPLIT, ids, replica, CODE, decode, 0)
    for row, (i, r) in enumerate(zip(ids, replica, strict=True)):
        x = SPLIT.x[i] + (0.1 * r if isinstance(task, Noisy) else 0.0)
        cut = MODEL.prefix((x[None],))
        one = quadratic(
            MODEL, cut, SPLIT.y[i][None], task.loss, CODE[row : row + 1].double(), lambda c: decode(c, None)
        )
        torch.testing.assert_close(found[row], one.curvature_Nkk[0].float(), rtol=1e-3, atol=1e-5)


def test_they_are_positive_and_one_on_average() -> None:
    torch.manual_seed(0)
    half = torch.randn(50, K, 2)
    raw = 7 * half @ half.transpose(1, 2)  # one direction of each is flat
    found = as_metrics(raw, mean_diagonal(raw))
    assert mean_diagonal(found) == pytest.approx(1.0, rel=1e-5)
    assert torch.linalg.eigvalsh(found).min() >= 0.0099
    assert torch.equal(as_metrics(0 * raw, 0.0), torch.eye(K).expand(50, K, K))


def test_what_cannot_be_is_refused(monkeypatch) -> None:
    with pytest.raises(UserError, match="metric gauss_newton needs whole Δ, but representation factored"):
        metrics_of_codes(ArrayTask(), MODEL, Factored(200, 40, True), [], 0)
    monkeypatch.setattr(curvature, "_LARGEST", 8 * K * K - 1)
    with pytest.raises(UserError, match="keeps a 3 x 3 matrix for each of 8 rows"):
        row_curvatures(ArrayTask(), MODEL, SPLIT, torch.zeros(8).long(), torch.zeros(8).long(), CODE, decode, 0)


def test_a_curvature_that_is_not_finite_names_the_sample() -> None:
    class Steep(ArrayTask):
        def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return super().loss(1e200 * output, target)

    with pytest.raises(UserError, match="curvature of the loss of sample 2 at its Δ is not finite"):
        row_curvatures(Steep(), MODEL, SPLIT, torch.arange(2, 10), torch.zeros(8).long(), CODE, decode, 0)
