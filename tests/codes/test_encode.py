"""From a store to codes: the rows that have one, in chunks of any size."""

import numpy as np
import pytest
import torch

from ocd_core.codes import encode
from ocd_core.codes.encode import encode_store, fit_to_store, read_deltas
from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations import REPRESENTATIONS
from ocd_core.codes.representations.pca import Pca
from ocd_core.network.covariances import LayerCovariances
from ocd_core.store import OverfitStore
from tests.support.params import diffusion_params, representation_params
from tests.support.stores import complete, make_schema, make_values

ROWS, ZEROS = 23, [3, 17]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A factored store of outer products (SGD); two rows have no gradient, so that their Δ is 0."""
    schema = make_schema("factored", rows=ROWS, shard_rows=5)
    values = make_values(schema)
    values["grad_u"][ZEROS] = 0
    dest = tmp_path_factory.mktemp("encode") / "train.zarr"
    complete(dest, schema, values)
    lr = 0.01  # of the store's config
    delta = -lr * np.einsum("nso,ni->noi", values["grad_u"].astype(float), values["layer_input"].astype(float))
    return OverfitStore(dest), values, delta


def params(name):
    return diffusion_params(representation=RepresentationParams(name=name, components=3, metric="euclidean"))


@pytest.fixture(params=[1, 2**26], ids=["a row at a time", "all at once"])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(encode, "_CHUNK_BYTES", request.param)
    return request.param


def test_all_rows_in_order(stored, chunk_bytes):
    store, values, delta = stored
    chunks = list(read_deltas(store))
    assert len(chunks) == (ROWS if chunk_bytes == 1 else 1)
    np.testing.assert_allclose(torch.cat([d for _, d, _ in chunks]), delta, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(torch.cat([i for _, _, i in chunks]), values["layer_input"])
    assert [row for rows, _, _ in chunks for row in range(rows.start, rows.stop)] == list(range(ROWS))


def test_several_positions_have_no_layer_input_of_one_vector(tmp_path):
    schema = make_schema(layer_input=(2, 6))
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    assert all(i is None for _, _, i in read_deltas(OverfitStore(tmp_path / "a.zarr")))


@pytest.mark.parametrize("name", REPRESENTATIONS.own())
def test_codes_come_back_to_the_stored_deltas(stored, name, chunk_bytes):
    store, values, delta = stored
    representation = fit_to_store(store, params(name))
    codes, cond = encode_store(representation, store)
    kept = [n for n in range(ROWS) if n not in ZEROS] if representation.uses_scale else list(range(ROWS))
    assert len(codes) == len(cond) == len(kept)
    np.testing.assert_array_equal(cond.base_output, values["base_output"][kept])
    rho = torch.from_numpy(np.linalg.norm(delta[kept].reshape(len(kept), -1), axis=1))
    decoded = representation.decode(codes, rho, cond.layer_input)
    if name == "pca":  # the best of rank 3, about the mean
        flat = delta.reshape(ROWS, -1)
        u, s, vt = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
        expected = (flat.mean(0) + (u[:, :3] * s[:3]) @ vt[:3]).reshape(delta.shape)
    else:
        expected = delta[kept]
    np.testing.assert_allclose(decoded, expected, rtol=1e-3, atol=1e-5 * np.abs(delta).max())


def test_a_metric_weights_the_components(stored, chunk_bytes):
    store, _, delta = stored
    weights = torch.arange(1.0, 1 + delta.shape[2], dtype=torch.float64)
    covariances = LayerCovariances(torch.diag(weights), torch.eye(delta.shape[1], dtype=torch.float64))
    found = fit_to_store(store, diffusion_params(representation=representation_params("pca", 3, "kfac")), covariances)
    whole = Pca.fit_weighted(torch.from_numpy(delta).float(), representation_params("pca", 3, "kfac"), covariances)
    torch.testing.assert_close(found.dual, whole.dual, rtol=1e-3, atol=1e-4)
    assert found.weighted
    assert not fit_to_store(store, params("pca")).weighted
