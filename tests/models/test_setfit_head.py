import pytest
import torch

from ocd_core.models import build_model
from ocd_core.models.setfit_head import SetFitHead


def test_dense_starts_as_the_identity_and_the_head_at_zero() -> None:
    model = build_model("setfit_head", {"features": 5, "classes": 3})
    assert isinstance(model, SetFitHead)
    x = torch.randn(4, 5)
    assert torch.equal(model.dense(x), x)
    assert torch.equal(model(x), torch.zeros(4, 3))
    assert model.dense.bias is None


def test_logits_by_hand() -> None:
    model = SetFitHead(2, 2)
    model.load_state_dict(
        {
            "dense.weight": torch.tensor([[0.0, 2.0], [1.0, 0.0]]),
            "head.weight": torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
            "head.bias": torch.tensor([0.5, 0.0]),
        }
    )
    assert model(torch.tensor([[1.0, 4.0]])).tolist() == [[8.5, 3.0]]


@pytest.mark.parametrize(("features", "classes"), [(0, 2), (3, 1)])
def test_impossible_widths(features: int, classes: int) -> None:
    with pytest.raises(ValueError, match="features must be at least 1 and classes at least 2"):
        SetFitHead(features, classes)
