"""What is tried before anything runs."""

import pytest
import torch
from torch import nn

from ocd_core.calls.checks import check_given
from ocd_core.calls.task import Given
from ocd_core.errors import UserError
from ocd_core.samples import Batch
from tests.calls.support import cross_entropy, perceptron, points


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Summed(nn.Module):
    def forward(self, x):
        return x.sum(0)


def batch(target=None) -> Batch:
    x, y = points(5)
    return Batch((x,), y if target is None else target, torch.arange(5))


def squared(output, target):
    return (output - target.reshape(output.shape)).square().flatten(1).mean(1)


@pytest.mark.parametrize(
    ("loss", "target", "kind"),
    [
        (cross_entropy, torch.tensor([0, 1, 1, 0, 0]), "classes"),
        (squared, torch.arange(10.0).reshape(5, 2), "numbers"),
        (squared, torch.tensor([[0.0, 1.0]] * 5), "other"),  # zeros and ones: labels, whatever the loss makes of them
        (lambda o, t: (o.sum(1) - t).abs(), torch.arange(5), "other"),
    ],
)
def test_the_kind_of_outputs(loss, target, kind) -> None:
    classes = 2 if kind == "classes" else None
    assert check_given(Given("", perceptron(), loss), batch(target), (target,)) == (kind, classes)


def test_numbers_whose_tried_samples_are_zeros_and_ones() -> None:
    target = torch.zeros(5, 2)
    whole = torch.cat([target, torch.full((1, 2), 7.5)])
    given = Given("", perceptron(), squared)
    assert [check_given(given, batch(target), (seen,))[0] for seen in (target, whole)] == ["other", "numbers"]


@pytest.mark.parametrize(("network", "words"), [(Centred(), "mixes the samples"), (Summed(), "stay in the first axis")])
def test_networks_that_mix_samples(network, words) -> None:
    with pytest.raises(UserError, match=words):
        check_given(Given("", network, lambda o, t: o.sum(1)), batch(), ())


def test_losses_that_mix_samples() -> None:
    """Also where the loss of the first sample is that of the sample alone."""
    network, target = nn.Sequential(perceptron(), nn.Linear(2, 1), nn.Flatten(0)), torch.arange(5.0)[:, None]
    for loss in (lambda o, t: (o - t).square()[:, 0], lambda o, t: (o - t[:, 0]) / o.sum()):
        with pytest.raises(UserError, match="the loss of a sample changes with the other samples of the batch"):
            check_given(Given("", network, loss), batch(target), (target,))
    check_given(Given("", network, lambda o, t: (o - t[:, 0]).square()), batch(target), (target,))


@pytest.mark.parametrize("value", [0.0, 1.0, 3.0])
def test_losses_that_mix_samples_of_equal_targets(value) -> None:
    """Outputs (N, 1) and targets (N,) are broadcast to (N, N), which is right as long as all targets are equal."""
    network, target = nn.Sequential(perceptron(), nn.Linear(2, 1)), torch.full((5,), value)
    with pytest.raises(UserError, match="the loss of a sample changes with the other samples of the batch"):
        check_given(Given("", network, lambda o, t: (o - t).square().mean(1)), batch(target), (target,))
    labels = target.long()

    def weighted(o, t):  # by how often each class is in the batch
        return nn.functional.cross_entropy(o, t, 1 / (1 + t.bincount(minlength=4).to(o.dtype)), reduction="none")

    four = perceptron(outputs=4)
    with pytest.raises(UserError, match="the loss of a sample changes with the other samples of the batch"):
        check_given(Given("", four, weighted), batch(labels), (labels,))
    assert check_given(Given("", four, cross_entropy), batch(labels), (labels,)) == ("classes", 4)


def test_a_loss_that_leaves_out_some_targets() -> None:
    target = torch.ones(5)
    with pytest.raises(UserError, match="the loss of a sample changes with the other samples of the batch"):
        check_given(Given("", perceptron(), lambda o, t: (o[:, 0] - t).square()[t > 0]), batch(target), (target,))


def test_a_loss_that_knows_one_target_alone_is_not_refused() -> None:
    def strict(o, t):
        assert bool((t == 3).all())
        return (o[:, 0] - t).square()

    target = torch.full((5,), 3.0)
    check_given(Given("", perceptron(), strict), batch(target), (target,))
