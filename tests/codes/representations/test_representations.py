"""What all representations keep, each by its name."""

import pytest
import torch

from ocd_core.codes.encode import fit_representation
from ocd_core.codes.representations import REPRESENTATIONS, representation_class
from ocd_core.errors import UserError
from tests.codes.representations.common import outer
from tests.support.params import representation_params as params


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


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"^unknown representation 'none'; known are .*factored"):
        representation_class("none")
