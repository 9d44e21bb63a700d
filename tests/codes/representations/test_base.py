import numpy as np
import pytest
import torch

from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
from ocd_core.network.covariances import LayerCovariances
from tests.codes.representations.common import outer
from tests.support.params import representation_params as params


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


def test_a_representation_without_components_has_no_metric():
    with pytest.raises(UserError, match="representation dense has no metric"):
        Dense.fit_weighted(torch.randn(3, 2, 2), params("dense"), LayerCovariances(torch.eye(2), torch.eye(2)))
