"""Only the weight of the moved layer trains."""

import torch

from ocd_core.artifacts import Artifacts
from tests.support.runs import fit_row


def test_everything_but_the_moved_weight_is_the_bases(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "layer_further", epochs=3, lrs=[1e-3, 1e-2])
    model = fitting.predictor.model
    moved = f"{model.layer_name}.weight"
    assert fit.metrics["best_epoch"] > 0
    for name, value in model.network.state_dict().items():
        assert torch.equal(row.network.state_dict()[name].float(), value.float()) == (name != moved), name
    # the original task still builds a network that trains as a whole
    assert all(p.requires_grad for p in fitting.task.build_model().parameters())
