import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.codes.encode import fit_representation
from tests.codes.representations.common import deltas
from tests.support.params import representation_params as params

shapes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))


@settings(max_examples=25)
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
