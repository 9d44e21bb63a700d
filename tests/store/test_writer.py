"""The files of a shard: keys in the order of writing, bytes that decode to the values."""

import numpy as np
import pytest

from ocd_core.store.shards import decode_shard
from ocd_core.store.writer import encoded_shard
from tests.support.stores import make_schema, make_values, open_writer, shard_of, whole_shard_of

SCHEMA = make_schema()
VALUES = make_values(SCHEMA)


@pytest.mark.parametrize("shard", [0, 2])
def test_files_decode_to_the_values(shard):
    files = {
        key: b"".join(pieces) for key, pieces in encoded_shard(SCHEMA, shard, whole_shard_of(SCHEMA, VALUES, shard))
    }
    assert list(files) == [spec.file(shard) for spec in SCHEMA.arrays().values()]
    assert list(files)[-1].startswith("sample_id/")
    rows = SCHEMA.shard_slice(shard)
    for spec in SCHEMA.arrays().values():
        found, broken = decode_shard(spec, SCHEMA.codec, files[spec.file(shard)], rows.stop - rows.start)
        assert broken == []
        np.testing.assert_array_equal(found, VALUES[spec.name][rows])


def test_numbers_are_brought_to_the_arrays_type():
    values = whole_shard_of(SCHEMA, VALUES, 0)
    wide = {**values, "delta": values["delta"].astype(float), "target": values["target"].astype(np.int32)}
    first, second = ([b"".join(pieces) for _, pieces in encoded_shard(SCHEMA, 0, arrays)] for arrays in (values, wide))
    assert first == second


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: {**v, "delta": v["delta"][:2]}, AssertionError, "delta"),
        (lambda v: {k: x for k, x in v.items() if k != "rho"}, AssertionError, "need"),
        (lambda v: {**v, "rest": v["rho"]}, AssertionError, "need"),
        (lambda v: {**v, "target": v["target"] + 0.5}, TypeError, "Cannot cast"),
    ],
)
def test_other_arrays_are_refused_before_anything_is_written(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        list(encoded_shard(SCHEMA, 0, change(whole_shard_of(SCHEMA, VALUES, 0))))
    with open_writer(tmp_path / "a.zarr", SCHEMA, VALUES) as writer:
        with pytest.raises(error, match=message):
            writer.write(0, change(shard_of(SCHEMA, VALUES, 0)))
        assert writer.missing() == [0, 1, 2]
        assert not list(writer.work.rglob("c.*"))


def test_repeated_samples_are_refused(tmp_path):
    values = {**VALUES, "sample_id": np.zeros(SCHEMA.rows, int), "replica": np.arange(SCHEMA.rows)}
    open_writer(tmp_path / "a.zarr", SCHEMA, values).close()
    values["replica"][1] = 0
    with pytest.raises(AssertionError, match="twice"):
        open_writer(tmp_path / "a.zarr", SCHEMA, values)
