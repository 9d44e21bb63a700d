import numpy as np
import pytest
import torch

from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
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
