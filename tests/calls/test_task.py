"""The domain of what is given in Python."""

import pytest
import torch
from torch import nn

from ocd_core.calls.task import DOMAIN, Given, GivenData, GivenTask
from ocd_core.errors import UserError
from tests.calls.support import cross_entropy, perceptron, points


def data(outputs: str = "classes", given: str = "a key") -> GivenData:
    return GivenData.model_validate({
        "given": given, "train": "", "val": "", "inputs": ["x0"], "by_name": False, "taken": "all", "outputs": outputs,
    })  # fmt: skip


def test_a_process_without_the_objects_is_told_what_to_do() -> None:
    with pytest.raises(UserError, match=r"make the same OCD\(model, loss, out=...\) again"):
        GivenTask(data(), DOMAIN, {})


def test_outputs_of_each_kind() -> None:
    given = Given("a key", perceptron(), cross_entropy).keep()
    x, y = points(6)
    logits = given.network(x)
    task = GivenTask(data(), DOMAIN, {})
    assert [m.name for m in task.metrics][:2] == ["loss", "accuracy"]
    torch.testing.assert_close(task.combine(logits[None]).softmax(-1), logits.softmax(-1))
    torch.testing.assert_close(task.tempered(logits, 2.0).exp(), (logits / 2).softmax(-1))
    assert torch.equal(task.predicted_class(logits), logits.argmax(1))
    torch.testing.assert_close(task.loss(logits, y), cross_entropy(logits, y))
    other = GivenTask(data("other"), DOMAIN, {})
    assert [m.name for m in other.metrics] == ["loss"]
    assert other.predicted_class(logits) is other.log_probabilities(logits) is None
    assert "crps" in [m.name for m in GivenTask(data("numbers"), DOMAIN, {}).metrics]
    assert task.build_model() is not given.network


def test_a_loss_with_weights_follows_the_precision_of_the_output() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), reduction="none")
    given = Given("another key", perceptron(), loss).keep()
    x, y = points(6)
    found = given.loss_of(given.network(x).double(), y)
    assert found.dtype == torch.float64
    assert loss.weight.dtype == torch.float32
    squares = Given("a third", perceptron(), lambda o, t: (o - t).square().mean(1))
    assert squares.loss_of(torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3)).tolist() == [1, 1]
