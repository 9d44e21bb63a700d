"""The domain of what is given in Python."""

import pytest
import torch
from torch import nn

from ocd_core.calls.data import Source
from ocd_core.calls.task import DOMAIN, TEST, Given, GivenData, GivenTask, keep_test
from ocd_core.errors import UserError
from ocd_core.samples import Batch
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


def test_neighbours_of_inputs_without_features_are_found_by_their_number() -> None:
    kept = Given("a fourth", perceptron(), cross_entropy).keep()
    task = GivenTask(data(given=kept.key), DOMAIN, {})
    batch = Batch((torch.tensor([4, 7]), torch.ones(2, 3)), torch.zeros(2), torch.arange(2))
    assert torch.equal(task.neighbour_features(batch), torch.tensor([[4.0], [7.0]]))


def test_a_loss_with_weights_follows_the_precision_of_the_output() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), reduction="none")
    given = Given("another key", perceptron(), loss).keep()
    x, y = points(6)
    found = given.loss_of(given.network(x).double(), y)
    assert found.dtype == torch.float64
    assert loss.weight.dtype == torch.float32
    squares = Given("a third", perceptron(), lambda o, t: (o - t).square().mean(1))
    assert squares.loss_of(torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3)).tolist() == [1, 1]


def test_test_rows_are_checked_when_they_are_read(tmp_path) -> None:
    task = kept(tmp_path)
    prepared = tmp_path / "prepared"
    before = task.identity(prepared, "test")
    ids = torch.arange(6)
    assert torch.equal(task.open(prepared, "test").batch(ids).inputs[0], points(6)[0])
    for path in sorted((tmp_path / TEST).rglob("*")):
        if path.is_file():
            whole = path.read_bytes()
            half = len(whole) // 2
            for damaged in (whole[:half], whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]):
                path.write_bytes(damaged)
                with pytest.raises(UserError, match=rf"{path.name} .*(call evaluate|dvc repro)"):
                    task.open(prepared, "test")
                kept(tmp_path)
                assert path.read_bytes() == whole
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert kept(tmp_path).identity(prepared, "test") == before
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == stamps
    assert kept(tmp_path, seed=1).identity(prepared, "test") != before


def kept(root, seed: int = 0) -> GivenTask:
    given = Given("a fourth", perceptron(), cross_entropy).keep()
    keep_test(Source.of(points(6, seed), "test"), root / TEST, 2)
    found = GivenTask(data(given="a fourth"), DOMAIN, {})
    found.given = given
    return found
