import pytest
import torch

from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.scale.network import ScaleNetwork, save_unused
from ocd_core.scale.training import train_scale
from ocd_core.weights import BaseId, read_tensors, refuse_another_base
from tests.scale.common import data
from tests.support.params import scale_params as params


def test_output_is_positive_and_a_function_of_the_condition():
    cond, rho = data(50)
    network = train_scale(cond, rho, cond, rho, params(updates=20), seed=0).network
    estimate = network.estimate(cond, batch=7)
    assert estimate.shape == (50,)
    assert (estimate > 0).all()
    torch.testing.assert_close(estimate, network(cond).detach())
    assert not network.training


def test_save_and_load(tmp_path):
    cond, rho = data(40)
    found = train_scale(cond, rho, cond, rho, params(updates=10), seed=0)
    found.network.save(tmp_path, params(updates=10))
    again = ScaleNetwork.load(tmp_path)
    assert torch.equal(again.estimate(cond), found.network.estimate(cond))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="truncated or replaced"):
        ScaleNetwork.load(tmp_path)


def test_files_without_a_network_say_why_and_for_which_base(tmp_path):
    save_unused(tmp_path, "it is a test", BaseId("abc", "head"))
    assert read_json(tmp_path / "config.json")["unused"] == "it is a test"
    assert read_tensors(tmp_path / "model.safetensors") == {}
    assert ScaleNetwork.load(tmp_path) is None
    refuse_another_base(tmp_path, BaseId("abc", "head"))
    with pytest.raises(UserError, match="trained for another base network"):
        refuse_another_base(tmp_path, BaseId("abc", "embed"))


def test_for_drawing_is_the_same_function():
    cond, rho = data(40)
    network = train_scale(cond, rho, cond, rho, params(updates=10), seed=0).network
    torch.testing.assert_close(network.for_drawing()(cond), network(cond).detach(), rtol=1e-5, atol=0)
