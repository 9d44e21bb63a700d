import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.codes.encode import fit_representation
from ocd_core.codes.representations.factored import Factored
from ocd_core.errors import UserError
from tests.codes.representations.common import outer
from tests.support.params import representation_params as params

shapes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))


@settings(max_examples=25)
@given(shapes, st.booleans())
def test_factored_comes_back_exactly_and_its_output_change_is_that_of_the_matrix(shape, unit_variance):
    delta, x = outer(*shape)
    rep = fit_representation(params("factored"), delta, x, unit_variance)
    code = rep.encode(delta, x)
    assert code.shape == (shape[0], shape[1])
    norms = np.linalg.norm(code.double().numpy(), axis=1)
    np.testing.assert_allclose(norms, shape[1] ** 0.5 if unit_variance else 1.0, rtol=1e-5)
    rho = delta.double().flatten(1).norm(dim=1)
    decoded = rep.decode(code, rho, x)
    gap = (decoded - delta).double().flatten(1).norm(dim=1) / rho
    assert gap.max() < 1e-5
    change = rep.move(code, rho, x).double().numpy()
    expected = np.stack([m @ v for m, v in zip(delta.double().numpy(), x.double().numpy(), strict=True)])
    np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_sgd_on_a_linear_layer_is_of_the_factored_form():
    """Three SGD steps of a small network, by hand, on each sample."""
    torch.manual_seed(0)
    w, v = torch.randn(4, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(5, 6, dtype=torch.float64)
    found = []
    for n in range(5):
        weight = w.clone().requires_grad_()
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(v @ torch.tanh(weight @ x[n]), torch.tensor(n % 3))
            (grad,) = torch.autograd.grad(loss, weight)
            weight = (weight - 0.1 * grad).detach().requires_grad_()
        found.append((weight - w).detach())
    delta = torch.stack(found)
    rep = Factored.fit(delta.float(), x.float(), params("factored"), True)
    code = rep.encode(delta.float(), x.float())
    torch.testing.assert_close(
        rep.decode(code, delta.flatten(1).norm(dim=1), x.float()), delta.float(), rtol=1e-5, atol=1e-8
    )


def test_factored_refuses_what_is_not_an_outer_product():
    delta, x = outer(6, 3, 4)
    delta[4] += 0.01 * delta[4].norm() * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"training sample 4 is not of that form.*optimizer sgd"):
        Factored.fit([delta[:3], delta[3:]], x, params("factored"), True)


@pytest.mark.parametrize("shape", [None, (6, 2, 4), (6, 3)])
def test_factored_refuses_layers_of_several_positions(shape):
    x = None if shape is None else torch.randn(shape)
    with pytest.raises(UserError, match="exact only for a linear layer that sees one position"):
        Factored.fit(outer(6, 3, 4)[0], x, params("factored"), True)
