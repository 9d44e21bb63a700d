"""The sizes that docs/scaling.md computes are those of the schema."""

import math
import re

import pytest

from ocd_core.store import StoreSchema
from tests.support.repository import REPO

ROWS = [
    [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
    for line in (REPO / "docs" / "scaling.md").read_text().splitlines()
    if re.search(r"\| [\d,]+ \| [\d,.]+ \| [\d,]+ \| [\d,.]+ \|$", line)
]


def test_the_table_is_there() -> None:
    assert len(ROWS) == 3


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_sizes(row: list[str]) -> None:
    outs, ins, outputs, samples = map(int, row[1:5])
    for layout, size, total in (("dense", *row[5:7]), ("factored", *row[7:9])):
        schema = StoreSchema(
            layout=layout, rows=samples, out_features=outs, in_features=ins, steps=3, layer_input=(ins,),
            layer_activation=(outs,), base_output=(outputs,), target_shape=(), target_dtype="int64", shard_rows=1,
        )  # fmt: skip
        found = sum(math.prod(spec.shape[1:]) * spec.dtype.itemsize for spec in schema.arrays().values())
        assert found == int(size)
        assert found * samples / 1e9 == pytest.approx(float(total), rel=0.04)
