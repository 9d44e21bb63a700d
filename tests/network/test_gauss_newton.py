"""J and JᵀHJ against torch.func on one sample at a time, for several losses and shapes of the output."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import hessian, jacrev

from ocd_core.network import gauss_newton
from ocd_core.network.cut import CutModel
from ocd_core.network.gauss_newton import Quadratic, losses, quadratic, slopes
from ocd_core.network.layers import find_layers

N, K = 4, 3


class Pictures(nn.Module):
    """A convolution that moves, then a non-linear tail with many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 3, 2), nn.Linear(27, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.conv(x)).flatten(1)).view(-1, 4, 3)


class Scores(Pictures):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(27, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.conv(x)).flatten(1))


class Pair(Pictures):
    """Two outputs of different shapes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = super().forward(x)
        return out[:, 0, 0], out[:, 1:]


class Elements(nn.Module):
    """Five elements of a sample, three positions each, that do not depend on one another."""

    independent_elements = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.last(torch.tanh(self.conv(x.view(-1, 5, 3, 2)))).prod(2))[..., None]


class PairOfElements(Elements):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = super().forward(x)
        return out[:, :, 0, 0].exp(), out


def squares(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).mean(1)


def entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def pair(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    return (output[0] - target).pow(4) + squares(output[1], target[:, None, None])


def first_of_pair(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """The other output has no part in it."""
    return (output[0] - target).pow(4)


def pair_of_elements(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    return (output[0] - target[:, None]).pow(4).sum(1) + squares(output[1], target[:, None, None, None])


def bumpy(output: Tensor, target: Tensor) -> Tensor:
    """Not convex in the output."""
    return torch.cos(output - target).flatten(1).sum(1)


def absolute(output: Tensor, target: Tensor) -> Tensor:
    """Its Hessian is zero."""
    return output.flatten(1).sum(1)


DRAWN = torch.Generator().manual_seed(0)
CASES = {
    "squares": (Pictures, squares, torch.randn(N, 4, 3, dtype=torch.float64, generator=DRAWN)),
    "entropy": (Scores, entropy, torch.tensor([0, 1, 1, 0])),
    "pair": (Pair, pair, torch.randn(N, dtype=torch.float64, generator=DRAWN)),
    "first of pair": (Pair, first_of_pair, torch.randn(N, dtype=torch.float64, generator=DRAWN)),
    "elements": (Elements, squares, torch.randn(N, 5, 2, 1, dtype=torch.float64, generator=DRAWN)),
    "pair of elements": (PairOfElements, pair_of_elements, torch.randn(N, dtype=torch.float64, generator=DRAWN)),
    "bumpy": (Pictures, bumpy, torch.randn(N, 4, 3, dtype=torch.float64, generator=DRAWN)),
    "linear": (Pictures, absolute, torch.randn(N, generator=DRAWN)),
}


@pytest.mark.parametrize("at_once", [1, 2**24])  # bytes of derivatives by Δ of elements
@pytest.mark.parametrize("name", CASES)
def test_against_torch_func_sample_by_sample(name, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, loss, target = CASES[name]
    torch.manual_seed(0)
    monkeypatch.setattr(gauss_newton, "_BY_DELTA_BYTES", at_once)
    model = CutModel(network(), "conv")
    x, basis = (
        torch.randn(N, *((30,) if "elements" in name else (1, 4, 4))),
        0.3 * torch.randn(K, *model.weight_OI.shape, dtype=torch.float64),
    )
    code = torch.randn(N, K, dtype=torch.float64)
    cut = model.prefix((x,))
    moves = lambda code_Nk: torch.einsum("nk,koi->noi", code_Nk, basis)  # noqa: E731
    found = quadratic(model, cut, target, loss, code, moves)
    assert model.divides is ("elements" in name)

    whole = network().double()
    whole.load_state_dict(model.network.state_dict())
    weight = find_layers(whole, "conv")[0].weight.detach().clone()

    def output(one_k: Tensor, row: int):
        moved = weight + torch.einsum("k,koi->oi", one_k, basis).view_as(weight)
        return torch.func.functional_call(whole, {"conv.weight": moved}, (x[row : row + 1].double(),))

    for row in range(N):
        label = target[row : row + 1]
        flat = lambda one, row=row: torch.cat([o.flatten() for o in parts(output(one, row))])  # noqa: E731

        def of_flat(values: Tensor, row: int = row, label: Tensor = label) -> Tensor:
            shaped = parts(output(code[row], row))
            cuts = values.split([o.numel() for o in shaped])
            again = tuple(v.view_as(o) for v, o in zip(cuts, shaped, strict=True))
            return loss(again if len(again) > 1 else again[0], label)[0]

        j = jacrev(flat)(code[row])
        h = hessian(of_flat)(flat(code[row]))
        torch.testing.assert_close(found.curvature_Nkk[row], j.T @ h @ j, rtol=1e-7, atol=1e-10)
        wanted = jacrev(lambda one, row=row, label=label: loss(output(one, row), label)[0])(code[row])
        torch.testing.assert_close(found.slope_Nk[row], wanted, rtol=1e-7, atol=1e-10)
    again, slope = slopes(model, cut, target, loss, code, moves)
    torch.testing.assert_close(slope, found.slope_Nk)
    for values in (again, losses(model, cut, target, loss, code, moves)):
        torch.testing.assert_close(values, found.loss_N)


def parts(output) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else output


def test_a_change_of_the_layers_output_is_a_move_too() -> None:
    """The form (N, O), for a layer that sees one position."""
    torch.manual_seed(0)
    model = CutModel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6)), "0")
    cut, target = model.prefix((torch.randn(N, 5),)), torch.randn(N, 6, dtype=torch.float64)
    code = torch.randn(N, 4, dtype=torch.float64)
    outer = quadratic(model, cut, target, squares, code, lambda c: c[:, :, None] * cut.x_NPI)
    length = cut.x_NPI[:, 0].double().square().sum(1, keepdim=True)
    short = quadratic(model, cut, target, squares, code, lambda c: c * length)
    torch.testing.assert_close(outer.curvature_Nkk, short.curvature_Nkk)
    torch.testing.assert_close(outer.slope_Nk, short.slope_Nk)


def test_the_step_solves_the_damped_equations_and_takes_negative_curvature_as_flat() -> None:
    torch.manual_seed(0)
    half = torch.randn(N, K, K, dtype=torch.float64)
    matrix, slope = half @ half.transpose(1, 2), torch.randn(N, K, dtype=torch.float64)
    step = Quadratic(torch.zeros(N), slope, matrix).step(0.1)
    for row in range(N):
        wanted = torch.linalg.solve(matrix[row] + 0.1 * torch.eye(K, dtype=torch.float64), -slope[row])
        torch.testing.assert_close(step[row], wanted)
    saddle = torch.diag(torch.tensor([2.0, -5.0])).double()[None]
    step = Quadratic(torch.zeros(1), torch.tensor([[1.0, 1.0]]).double(), saddle).step(0.5)
    torch.testing.assert_close(step, torch.tensor([[-1 / 2.5, -1 / 0.5]]).double())


def test_one_step_on_a_linear_output_and_squares_is_the_exact_minimiser() -> None:
    """Compared with least squares of each sample's outputs on its coordinates."""
    torch.manual_seed(0)
    model = CutModel(nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten()), "0")
    basis = torch.randn(K, *model.weight_OI.shape, dtype=torch.float64)
    x, target = torch.randn(N, 2, 5), torch.randn(N, 12, dtype=torch.float64)
    cut, code = model.prefix((x,)), torch.randn(N, K, dtype=torch.float64)
    moves = lambda code_Nk: torch.einsum("nk,koi->noi", code_Nk, basis)  # noqa: E731
    found = code + quadratic(model, cut, target, squares, code, moves).step(1e-12)
    at_zero = model.forward(cut)[1]
    for row in range(N):
        columns = [model.forward(cut.select(slice(row, row + 1)), b[None])[1][0] - at_zero[row] for b in basis]
        wanted = torch.linalg.lstsq(torch.stack(columns, 1), (target - at_zero)[row][:, None]).solution[:, 0]
        torch.testing.assert_close(found[row], wanted, rtol=1e-6, atol=1e-8)
    left = losses(model, cut, target, squares, found, moves)
    assert (left < losses(model, cut, target, squares, torch.zeros_like(code), moves)).all()
    assert math.isfinite(float(left.sum()))
