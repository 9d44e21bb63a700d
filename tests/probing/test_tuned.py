"""The network that learns on from the loss: its losses against plain ones, and a training that diverges."""

import pytest
import torch
from torch import nn

from ocd_core.codes.encode import fit_representation
from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
from ocd_core.evaluation.delta_networks import Hypernetwork
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass
from ocd_core.probing import tuned
from ocd_core.probing.tuned import TUNING, tuned_losses
from ocd_core.samples import Samples
from tests.probing.test_probe import linear, splits
from tests.support.arrays import ArrayTask

UPDATES = 300
VAL_ROWS = torch.tensor([3, 17, 18, 40])


def start() -> tuple[Hypernetwork, DeltaSpace, CutModel, Samples, Samples]:
    """A network whose answers are not 0, all training samples, and some validation samples."""
    torch.manual_seed(0)
    model = CutModel(linear(), "0")
    train, val = splits(linear(), 1.0, 0.1)
    pca = fit_representation(
        RepresentationParams(name="pca", components=6, metric="euclidean"), torch.randn(50, 3, 4), None,
        unit_variance=False,
    )  # fmt: skip
    assert isinstance(pca, Pca)
    rows = torch.arange(len(train))
    known = Samples(train, base_pass(ArrayTask(), model, train.batch(rows)).condition)
    judged = Samples(val, base_pass(ArrayTask(), model, val.batch(VAL_ROWS)).condition, VAL_ROWS)
    network = Hypernetwork.fresh(known.condition, 8, 6, 0.1, seed=0)
    nn.init.normal_(network.last.bias)
    return network, DeltaSpace(pca), model, known, judged


def plain(network: Hypernetwork, space: DeltaSpace, judged: Samples) -> torch.Tensor:
    base, losses = linear(), []
    with torch.no_grad():
        delta_MOI = space.representation.decode(network(judged.condition), None)
        for row, delta_OI in zip(VAL_ROWS, delta_MOI, strict=True):
            answer = base(judged.split.x[row]) + delta_OI @ judged.split.x[row]
            losses.append((answer - judged.split.y[row]).square().mean())
    return torch.stack(losses).double()


def test_losses_at_the_start_and_along_the_training() -> None:
    network, space, model, known, judged = start()
    before = plain(network, space, judged)
    found_CM, flops = tuned_losses(network, space, ArrayTask(), model, known, judged, UPDATES, seed=0)
    assert found_CM.shape == (1 + UPDATES // TUNING.validate_every, 4)
    again = tuned_losses(*start()[:2], ArrayTask(), *start()[2:], 2 * UPDATES, seed=0)[1]
    assert again == 2 * flops > 0
    torch.testing.assert_close(found_CM[0], before, rtol=1e-4, atol=1e-6)
    assert found_CM[-1].mean() < 0.8 * found_CM[0].mean()
    best = plain(network, space, judged)  # the network keeps its best weights
    torch.testing.assert_close(found_CM[found_CM.mean(1).argmin()], best, rtol=1e-4, atol=1e-6)


def test_what_came_before_a_training_diverged_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "TUNING", TUNING.model_copy(update={"lrs": [1e30]}))
    network, space, model, known, judged = start()
    before = plain(network, space, judged)
    found_CM, _ = tuned_losses(network, space, ArrayTask(), model, known, judged, UPDATES, seed=0)
    assert found_CM.shape == (1, 4)
    torch.testing.assert_close(found_CM[0], before, rtol=1e-4, atol=1e-6)


def test_losses_that_are_never_finite_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network, space, model, known, judged = start()
    judged.split.y[:] = torch.inf
    with pytest.raises(UserError, match=r"layer .* a validation loss is never finite"):
        tuned_losses(network, space, ArrayTask(), model, known, judged, UPDATES, seed=0)
