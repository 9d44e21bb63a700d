"""A and G against a loop over samples and positions with autograd, and their roots."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.network import covariances
from ocd_core.network.covariances import LayerCovariances, layer_covariances
from ocd_core.network.cut import CutModel
from ocd_core.rng import permutation
from ocd_core.samples import Batch
from ocd_core.tasks.draws_inputs import DrawsInputs
from tests.support.arrays import ArraySplit, ArrayTask

N = 9


class Net(nn.Module):
    """`conv` sees three positions, `head` one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 2), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x)).flatten(1))


class Halves(DrawsInputs, ArrayTask):
    """The first step shifts a sample's inputs, and gives them in two equal parts."""

    def overfit_batch(self, split, sample_id, replica, step, seed) -> Batch:
        batch = split.batch(sample_id)
        return Batch((batch.inputs[0] + 1 + step,), batch.target, sample_id)

    def parts(self, batch):
        return [(batch, 0.25), (batch, 0.75)]


def setting() -> tuple[Net, ArraySplit]:
    torch.manual_seed(0)
    return Net(), ArraySplit(torch.randn(N, 2, 4), torch.randn(N, 3))


def by_loop(net: Net, layer: str, split: ArraySplit, ids: Tensor, shift: float) -> LayerCovariances:
    """Hooks on the layer, a sample at a time, in float64."""
    net = net.double()
    module = net.get_submodule(layer)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        out.retain_grad()
        kept.extend([args[0], out])

    a, g = [], []
    handle = module.register_forward_hook(keep)
    for row in ids.tolist():
        kept.clear()
        loss = ArrayTask().loss(net(split.x[row : row + 1].double() + shift), split.y[row : row + 1].double())
        loss.sum().backward()
        x, u = kept[0].detach(), kept[1].grad
        assert u is not None
        if layer == "conv":
            x = nn.functional.unfold(x[:, :, None], (1, 2)).transpose(1, 2)[0]
            u = u.transpose(1, 2)[0]
        a.append(x.T @ x)
        g.append(u.T @ u)
    handle.remove()
    return LayerCovariances(torch.stack(a).mean(0), torch.stack(g).mean(0))


@pytest.mark.parametrize("layer", ["conv", "head"])
@pytest.mark.parametrize("task", [ArrayTask(), Halves()])
def test_against_a_loop(task, layer) -> None:
    net, split = setting()
    found = layer_covariances(task, CutModel(net, layer), split, 0)
    wanted = by_loop(net, layer, split, torch.arange(N), 1.0 if isinstance(task, Halves) else 0.0)
    torch.testing.assert_close(found.input_II, wanted.input_II, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.output_OO, wanted.output_OO, rtol=1e-5, atol=1e-7)


def test_of_a_large_split_a_seeded_part_counts(monkeypatch) -> None:
    monkeypatch.setattr(covariances, "MOST_SAMPLES", 4)
    net, split = setting()
    found = layer_covariances(ArrayTask(), CutModel(net, "head"), split, 3)
    wanted = by_loop(net, "head", split, permutation(N, 3, "covariances")[:4], 0.0)
    torch.testing.assert_close(found.output_OO, wanted.output_OO, rtol=1e-5, atol=1e-7)


def test_roots_are_of_the_damped_matrices() -> None:
    torch.manual_seed(0)
    half = torch.randn(5, 2).double()
    matrix = half @ half.T  # of rank 2
    left, right, left_inverse, right_inverse = LayerCovariances(matrix, torch.zeros(3, 3).double()).roots()
    torch.testing.assert_close(right @ right, matrix + 1e-3 * matrix.trace() / 5 * torch.eye(5).double())
    torch.testing.assert_close(right @ right_inverse, torch.eye(5).double())
    torch.testing.assert_close(left, torch.eye(3).double())  # without any gradient, all directions count alike
    torch.testing.assert_close(left_inverse, torch.eye(3).double())
