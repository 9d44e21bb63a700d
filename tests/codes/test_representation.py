import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representation import REPRESENTATIONS, Dense, Factored, Pca, fit_representation
from ocd_core.errors import UserError

shapes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))


def params(name: str, components: int = 2) -> RepresentationParams:
    return RepresentationParams(name=name, components=components)


def deltas(n: int, o: int, i: int, seed: int = 0) -> torch.Tensor:
    """Δ whose norms span six decades."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, o, i)) * 10.0 ** rng.uniform(-6, 0, (n, 1, 1))
    return torch.from_numpy(x.astype(np.float32))


def outer(n: int, o: int, i: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    u, x = rng.normal(size=(n, o)) * 10.0 ** rng.uniform(-6, 0, (n, 1)), rng.normal(size=(n, i))
    delta = np.stack([np.outer(a, b) for a, b in zip(u, x, strict=True)])
    return torch.from_numpy(delta.astype(np.float32)), torch.from_numpy(x.astype(np.float32))


@settings(deadline=None, max_examples=25)
@given(shapes, st.booleans())
def test_dense_is_delta_over_its_norm_and_comes_back(shape, unit_variance):
    delta = deltas(*shape)
    rep = fit_representation(params("dense"), delta, None, unit_variance)
    code = rep.encode(delta)
    d = shape[1] * shape[2]
    expected = np.stack([m / np.linalg.norm(m) for m in delta.double().numpy()]) * (d**0.5 if unit_variance else 1.0)
    np.testing.assert_allclose(code.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert code.shape == (shape[0], *rep.shape)
    assert code.dtype == torch.float32
    rho = torch.from_numpy(np.array([np.linalg.norm(m) for m in delta.double().numpy()]))
    torch.testing.assert_close(rep.decode(code, rho), delta, rtol=1e-5, atol=0)


@settings(deadline=None, max_examples=25)
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


@pytest.mark.parametrize("x", [None, torch.randn(6, 2, 4), torch.randn(6, 3)])
def test_factored_refuses_layers_of_several_positions(x):
    with pytest.raises(UserError, match="exact only for a linear layer that sees one position"):
        Factored.fit(outer(6, 3, 4)[0], x, params("factored"), True)


def test_zero_deltas_give_zero_codes_not_nan():
    delta, x = outer(3, 2, 4)
    delta[1] = 0
    x[2] = 0
    delta[2] = 0
    assert Dense(2, 4, True).encode(delta)[1].abs().max() == 0
    rep = Factored.fit(delta, x, params("factored"), True)
    code = rep.encode(delta, x)
    assert torch.isfinite(code).all()
    assert code[1:].abs().max() == 0
    assert rep.decode(code, torch.ones(3), x)[1:].abs().max() == 0


def test_drawn_codes_are_brought_to_the_norm_of_encoded_ones():
    code = torch.randn(5, 3, 4) * 7
    normalised = Dense(3, 4, True).normalise(code)
    np.testing.assert_allclose(normalised.flatten(1).norm(dim=1), 12**0.5, rtol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(code.flatten(1), normalised.flatten(1))
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-6)
    free = Pca(3, 4, 2)
    assert not free.uses_scale
    assert free.normalise(code) is code


@pytest.mark.parametrize(("n", "o", "i"), [(30, 3, 4), (9, 6, 5)])  # fewer entries than samples, and more
def test_pca_against_numpy(n, o, i):
    x = deltas(n, o, i).flatten(1).double().numpy()
    k = 4
    rep = Pca.fit(torch.from_numpy(x).float().view(n, o, i), None, params("pca", k), True)
    centred = x - x.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    code = rep.encode(torch.from_numpy(x).float().view(n, o, i))
    coefficients = centred @ vt[:k].T
    scale = np.sqrt((coefficients**2).mean())
    np.testing.assert_allclose(code.abs().numpy(), np.abs(coefficients / scale), rtol=1e-3, atol=1e-4)
    assert float((code**2).mean()) == pytest.approx(1.0, rel=1e-4)
    assert rep.summary()["explained_variance"] == pytest.approx((s[:k] ** 2).sum() / (s**2).sum(), rel=1e-5)
    decoded = rep.decode(code, None).flatten(1)
    np.testing.assert_allclose(decoded, x.mean(0) + coefficients @ vt[:k], atol=1e-6)


def test_pca_keeps_the_metric_and_is_exact_without_truncation():
    delta = deltas(20, 2, 3, seed=3)
    rep = Pca.fit(delta, None, params("pca", 6), True)
    code = rep.encode(delta)
    torch.testing.assert_close(rep.decode(code, None), delta, rtol=1e-4, atol=1e-6)
    ratio = torch.pdist(code) / torch.pdist(delta.flatten(1))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)  # one common scale


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_chunks_give_the_same_as_one_tensor(name):
    delta, x = outer(20, 3, 4)
    whole = fit_representation(params(name), delta, x, True)
    chunked = fit_representation(params(name), iter(delta.split(7)), x, True)
    torch.testing.assert_close(whole.encode(delta, x), chunked.encode(delta, x))


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_state_and_config_rebuild_it(name):
    delta, x = outer(20, 3, 4)
    rep = fit_representation(params(name), delta, x, True)
    again = REPRESENTATIONS[name](**rep.config())
    again.load_state_dict(rep.state_dict())
    assert torch.equal(rep.encode(delta, x), again.encode(delta, x))
    assert again.shape == rep.shape


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_no_deltas_are_refused(name):
    with pytest.raises(UserError, match="no training Δ"):
        fit_representation(params(name), torch.empty(0, 3, 4), torch.empty(0, 4), True)


def test_pca_refuses_more_components_than_there_are():
    delta = deltas(4, 3, 4)
    with pytest.raises(UserError, match=r"at most 3 components; lower representation.components from 5"):
        Pca.fit(delta, None, params("pca", 5), True)
    flat = torch.stack([delta[0] * c for c in (1.0, 2.0, 5.0, 9.0, 3.0)])
    with pytest.raises(UserError, match="span only 1 directions"):
        Pca.fit(flat, None, params("pca", 2), True)
