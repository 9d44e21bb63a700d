import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.store import StoreSchema
from tests.support.stores import make_schema


def test_arrays_of_both_layouts():
    dense, factored = make_schema().arrays(), make_schema("factored").arrays()
    common = {
        "layer_input",
        "layer_activation",
        "base_output",
        "rho",
        "loss_before",
        "loss_after",
        "sample_id",
        "replica",
        "target",
    }
    assert set(dense) == common | {"delta"}
    assert set(factored) == common | {"grad_u"}
    assert dense["delta"].dims == ("sample", "out_features", "in_features")
    assert factored["grad_u"].dims == ("sample", "step", "out_features")
    assert factored["grad_u"].shape == (10, 3, 5)
    assert list(dense)[-1] == "sample_id"


def test_dims_mean_one_length_each():
    schema = make_schema(layer_input=(3, 4), layer_activation=(7,), base_output=(), target_shape=(2, 2))
    lengths: dict[str, int] = {}
    for spec in schema.arrays().values():
        assert len(spec.dims) == len(spec.shape)
        for dim, length in zip(spec.dims, spec.shape, strict=True):
            assert dim not in ("in", "out")
            assert lengths.setdefault(dim, length) == length


def test_fill_is_no_value():
    arrays = make_schema(target_dtype="uint8").arrays()
    assert math.isnan(arrays["delta"].fill)
    assert arrays["sample_id"].fill == -1
    assert arrays["target"].fill == 255


def test_factored_needs_a_vector():
    with pytest.raises(UserError, match="outer products"):
        make_schema("factored", layer_input=(6, 2))


def test_files_of_a_shard():
    arrays = make_schema().arrays()
    assert arrays["delta"].file(12) == "delta/c.12.0.0"
    assert arrays["rho"].file(0) == "rho/c.0"


@given(st.integers(1, 300), st.integers(1, 300))
def test_shards_cover_all_rows_once(rows, shard_rows):
    schema = make_schema(rows=rows, shard_rows=shard_rows)
    covered = [r for i in range(schema.shard_count) for r in range(rows)[schema.shard_slice(i)]]
    assert covered == list(range(rows))
    for spec in schema.arrays().values():
        assert spec.shard[0] % spec.chunk[0] == 0


@given(rows=st.integers(1, 100_000), side=st.integers(1, 700), mb=st.sampled_from([1, 8, 32]))
@example(rows=16_385, side=2, mb=1)
def test_plan_keeps_shards_near_the_size(rows, side, mb):
    schema = StoreSchema.plan(
        shard_mb=mb,
        layout="dense",
        rows=rows,
        out_features=side,
        in_features=side,
        steps=3,
        layer_input=(side,),
        layer_activation=(side,),
        base_output=(2,),
        target_shape=(),
        target_dtype="int64",
    )
    sizes = [math.prod(s.shape[1:]) * s.dtype.itemsize for s in schema.arrays().values()]
    row = sum(sizes)
    delta = schema.arrays()["delta"]
    rounded = max(1, 2**19 // max(sizes))  # a shard is rounded up to whole chunks of the largest array
    assert schema.shard_rows == 1 or (schema.shard_rows - rounded) * row <= mb * 2**20
    assert math.prod(delta.chunk) * 4 <= 2**19 or delta.chunk[0] == 1
    if schema.shard_count > 1:  # no shard much smaller than the others
        last = schema.shard_slice(schema.shard_count - 1)
        assert (schema.shard_count - 1) * schema.shard_rows < rows
        assert last.stop == rows


def test_json_round_trip():
    schema = make_schema("factored", target_shape=(2,), codec="zstd")
    assert StoreSchema.from_json(schema.to_json()) == schema


def test_chunks_keep_single_reads_small():
    schema = StoreSchema.plan(
        shard_mb=32,
        layout="dense",
        rows=60_000,
        out_features=84,
        in_features=120,
        steps=3,
        layer_input=(120,),
        layer_activation=(84,),
        base_output=(10,),
        target_shape=(),
        target_dtype="int64",
    )
    assert 4 <= schema.arrays()["delta"].chunk[0] <= 16
    assert 70 <= schema.shard_count <= 90
    assert np.prod(schema.arrays()["rho"].chunk) == schema.shard_rows


def test_a_part_of_the_condition_that_is_left_out_has_no_array():
    whole, part = make_schema(), make_schema(layer_activation=(0,), base_output=(0,))
    assert set(whole.arrays()) - set(part.arrays()) == {"layer_activation", "base_output"}
    assert StoreSchema.from_json(part.to_json()) == part
