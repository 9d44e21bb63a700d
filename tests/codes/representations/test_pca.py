import numpy as np
import pytest
import torch

from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
from ocd_core.network.covariances import LayerCovariances
from tests.codes.representations.common import deltas
from tests.support.params import representation_params as params


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


def test_pca_refuses_more_components_than_there_are():
    delta = deltas(4, 3, 4)
    with pytest.raises(UserError, match=r"at most 3 components; lower representation.components from 5"):
        Pca.fit(delta, None, params("pca", 5), True)
    flat = torch.stack([delta[0] * c for c in (1.0, 2.0, 5.0, 9.0, 3.0)])
    with pytest.raises(UserError, match="span only 1 directions"):
        Pca.fit(flat, None, params("pca", 2), True)


def covariances(o: int, i: int) -> LayerCovariances:
    """Of uneven sizes, with directions that are all but unused."""
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randn(n, n, generator=g).double() * 10.0 ** torch.linspace(0, -2, n) for n in (i, o))
    return LayerCovariances(a @ a.T, b @ b.T)


def weighted_norm(delta: torch.Tensor, found: LayerCovariances) -> torch.Tensor:
    left, right, _, _ = found.roots()
    return (left @ delta.double() @ right).flatten(1).norm(dim=1)


def test_weighted_components_are_those_of_weighted_deltas_and_lose_least_there():
    delta, found = deltas(40, 3, 4, seed=2), covariances(3, 4)
    left, right, _, _ = found.roots()
    x = (left @ delta.double() @ right).flatten(1).numpy()
    rep = Pca.fit_weighted(delta, params("pca", 3, "kfac"), found)
    code = rep.encode(delta)
    centred = x - x.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    coefficients = centred @ vt[:3].T
    scale = np.sqrt((coefficients**2).mean())
    np.testing.assert_allclose(code.abs().numpy(), np.abs(coefficients / scale), rtol=1e-3, atol=1e-4)
    assert rep.summary()["explained_variance"] == pytest.approx((s[:3] ** 2).sum() / (s**2).sum(), rel=1e-5)
    lost = weighted_norm(rep.decode(code, None) - delta, found).square().sum()
    plain = Pca.fit(delta, None, params("pca", 3), True)
    assert lost < weighted_norm(plain.decode(plain.encode(delta), None) - delta, found).square().sum()
    assert float(lost) == pytest.approx(float((s[3:] ** 2).sum()), rel=1e-3)


def test_weighted_codes_are_decoded_exactly_and_travel_with_their_maps():
    delta, found = deltas(20, 2, 3, seed=3), covariances(2, 3)
    rep = Pca.fit_weighted(iter(delta.split(6)), params("pca", 6, "kfac"), found)
    code = rep.encode(delta)
    torch.testing.assert_close(rep.decode(code, None), delta, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(rep.encode(rep.decode(code[:, :], None)), code, rtol=1e-3, atol=1e-4)
    again = Pca(**rep.config())
    again.load_state_dict(rep.state_dict())
    torch.testing.assert_close(again.encode(delta), code)
    assert "weighted" not in Pca(2, 3, 2).config()
    assert set(Pca(2, 3, 2).state_dict()) == {"mean", "basis", "scale", "explained"}
    with pytest.raises(UserError, match="no training Δ"):
        Pca.fit_weighted(delta[:0], params("pca", 2, "kfac"), found)
