"""What counts as the same network, loss or data."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from ocd_core.calls.identity import function_digest, network_digest, tensor_digest
from tests.calls.support import perceptron


def scaled(by):
    return lambda o, t: by * F.cross_entropy(o, t, reduction="none")


def test_networks() -> None:
    assert network_digest(perceptron()) == network_digest(perceptron())
    others = [perceptron(seed=1), perceptron(outputs=3), nn.Sequential(*perceptron()[:1], nn.Tanh(), perceptron()[2])]
    assert len({network_digest(m) for m in [perceptron(), *others]}) == 4


def test_functions_count_by_their_code_and_what_they_close_over() -> None:
    assert function_digest(scaled(2)) == function_digest(scaled(2))
    different = [
        scaled(2), scaled(3), F.mse_loss, functools.partial(F.mse_loss, reduction="none"), nn.MSELoss(reduction="none"),
        nn.MSELoss(), lambda o, t: (o - t).square().mean(1), lambda o, t: (o - t).abs().mean(1),
    ]  # fmt: skip
    assert len({function_digest(f) for f in different}) == len(different)


def test_tensors() -> None:
    x = torch.arange(6.0)
    assert tensor_digest(x) == tensor_digest(x.clone())
    assert len({tensor_digest(t) for t in (x, x.reshape(2, 3), x.double(), x + 1, torch.zeros(0))}) == 5
