import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.codes.condition import ConditionEncoder, Standardise, TimeEncoder, positional_encoding
from ocd_core.errors import UserError
from ocd_core.samples import Condition


def make(count: int, sizes: tuple[int, ...], seed: int = 0) -> Condition:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(3.0 * k, 1.0 + k, (count, d)).astype(np.float32) for k, d in enumerate(sizes)]
    return Condition(*map(torch.from_numpy, parts))


@settings(max_examples=20)
@given(st.integers(2, 30), st.tuples(*[st.integers(0, 6)] * 3).filter(any), st.integers(1, 9))
def test_e_is_the_sum_of_one_affine_map_of_each_standardised_component(count, sizes, dim):
    cond = make(count, sizes)
    encoder = ConditionEncoder.from_condition(cond, dim)
    expected = np.zeros((count, dim))
    for name, part in zip(("layer_input", "layer_activation", "base_output"), cond.parts(), strict=True):
        x = part.double().numpy()
        if x.shape[1]:
            weights = encoder.encoders[name]
            z = (x - x.mean(0)) / x.std(0)
            expected += z @ weights.weight.detach().double().numpy().T + weights.bias.detach().double().numpy()
    e = encoder(cond)
    assert e.shape == (count, dim)
    np.testing.assert_allclose(e.detach().numpy(), expected, atol=2e-4)


def test_standardisation_is_of_the_training_data_and_keeps_constant_features_finite():
    x = torch.tensor([[1.0, 5.0, 0.1], [3.0, 5.0, 0.1], [5.0, 5.0, 0.1]])
    scaler = Standardise.from_data(x)
    assert scaler.mean.tolist() == pytest.approx([3.0, 5.0, 0.1])
    assert scaler.std.tolist() == pytest.approx([math.sqrt(8 / 3), 1.0, 1.0])
    new = scaler(torch.tensor([[3.0, 7.0, 0.1]]))
    assert new[0].tolist() == pytest.approx([0.0, 2.0, 0.0], abs=1e-6)


def test_components_of_any_shape_are_flattened_and_others_than_in_training_are_refused():
    cond = Condition(torch.randn(4, 2, 3), torch.randn(4, 5), torch.randn(4, 2))
    encoder = ConditionEncoder.from_condition(cond, 8)
    assert encoder.sizes == (6, 5, 2)
    with pytest.raises(UserError, match=r"layer_activation of I\(x\) has 4 features, .* trained on 5"):
        encoder(Condition(cond.layer_input, torch.randn(4, 4), cond.base_output))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_conditions_that_are_not_finite_are_refused(bad):
    cond = make(5, (3, 2, 1))
    cond.base_output[2, 0] = bad
    with pytest.raises(UserError, match=r"base_output of I\(x\) holds NaN or infinity"):
        ConditionEncoder.from_condition(cond, 4)


def test_no_samples_are_refused():
    with pytest.raises(UserError, match="no training samples"):
        ConditionEncoder.from_condition(make(0, (3, 2, 1)), 4)


def test_positional_encoding_by_hand():
    pe = positional_encoding(torch.tensor([0, 3]), 4)
    assert pe[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    # rates 1 and 10000^(-2/4) = 0.01
    assert pe[1].tolist() == pytest.approx([math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)])
    assert pe.dtype == torch.float32


def test_time_encoder_tells_all_timesteps_apart_and_trains():
    encoder = TimeEncoder(10, 16)
    e = encoder(torch.arange(1, 11))
    assert torch.cdist(e, e).fill_diagonal_(9.0).min() > 0.05
    e.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert set(encoder.state_dict()) == {"layer.weight", "layer.bias"}  # the table is not stored


@pytest.mark.parametrize("sizes", [(6, 5, 2), (0, 0, 4)])
def test_for_drawing_is_the_encoder_with_its_present_weights(sizes):
    cond = make(20, sizes)
    encoder = ConditionEncoder.from_condition(cond, 8)
    encode, wanted = encoder.for_drawing(), encoder(cond).detach()
    found = encode(cond)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert not found.requires_grad
    with pytest.raises(UserError, match=r"base_output of I\(x\) has 3 features"):
        encode(Condition(cond.layer_input, cond.layer_activation, torch.zeros(20, 3)))
