import numpy as np
import pytest
import torch

from ocd_core.codes.encode import fit_representation
from ocd_core.codes.representations import REPRESENTATIONS, representation_class
from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
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


@pytest.mark.parametrize("name", REPRESENTATIONS.own())
def test_chunks_give_the_same_as_one_tensor(name):
    delta, x = outer(20, 3, 4)
    whole = fit_representation(params(name), delta, x, True)
    chunked = fit_representation(params(name), iter(delta.split(7)), x, True)
    torch.testing.assert_close(whole.encode(delta, x), chunked.encode(delta, x))


@pytest.mark.parametrize("name", REPRESENTATIONS.own())
def test_state_and_config_rebuild_it(name):
    delta, x = outer(20, 3, 4)
    rep = fit_representation(params(name), delta, x, True)
    again = representation_class(name)(**rep.config())
    again.load_state_dict(rep.state_dict())
    assert torch.equal(rep.encode(delta, x), again.encode(delta, x))
    assert again.shape == rep.shape


@pytest.mark.parametrize("name", REPRESENTATIONS.own())
def test_no_deltas_are_refused(name):
    with pytest.raises(UserError, match="no training Δ"):
        fit_representation(params(name), torch.empty(0, 3, 4), torch.empty(0, 4), True)


def test_the_names_and_what_they_are():
    assert REPRESENTATIONS.own() == ["dense", "factored", "pca"]
    for name in REPRESENTATIONS.own():
        assert representation_class(name).name == name
