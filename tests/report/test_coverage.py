"""Coverage against a count by hand and against distributions that are known."""

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.report.coverage import LEVELS, coverage, coverage_figure
from ocd_core.tasks.regression import covered


def test_it_counts_what_lies_between_the_quantiles() -> None:
    draws, target = torch.randn(30, 12, 2), torch.randn(12, 2)
    for level in (0.2, 0.5, 0.9):
        ends = np.quantile(draws.double().numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0)
        inside = (target.numpy() >= ends[0]) & (target.numpy() <= ends[1])
        assert float(coverage(draws, target, torch.tensor([level]).double())) == pytest.approx(inside.mean())
    whole = coverage(draws, target, torch.tensor([0.9]).double())
    assert 100 * float(whole) == pytest.approx(float(covered(draws.double(), target.double()).mean()))


def test_draws_of_the_right_distribution_lie_on_the_diagonal_and_narrow_ones_below() -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(2000, 1, generator=generator)
    target = centre + torch.randn(2000, 1, generator=generator)
    spread = torch.randn(400, 2000, 1, generator=generator)
    figure = coverage_figure({"right": centre + spread, "narrow": centre + 0.3 * spread}, target)
    _, right, narrow = figure.axes[0].lines
    np.testing.assert_allclose(right.get_ydata(), LEVELS, atol=0.035)
    assert all(inside < level - 0.03 for level, inside in zip(LEVELS[1:-1], narrow.get_ydata()[1:-1], strict=True))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["right", "narrow"]


def test_what_cannot_be_compared_is_refused() -> None:
    levels = torch.tensor([0.5])
    with pytest.raises(UserError, match="at least two draws"):
        coverage(torch.zeros(1, 3, 1), torch.zeros(3, 1), levels)
    with pytest.raises(UserError, match=r"shape \(2, 3, 1\) and targets of shape \(3,\) differ"):
        coverage(torch.zeros(2, 3, 1), torch.zeros(3), levels)
