"""Any order of writing, closing, damaging and finishing ends in the right store, and loses only what was damaged."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocd_core.store import OverfitStore, verify_store
from tests.support.stores import complete, file_hashes, make_schema, make_values, open_writer, shard_of

SCHEMA = make_schema(rows=7, shard_rows=2, out_features=2, in_features=2, layer_input=(2,))
VALUES = make_values(SCHEMA)
SHARDS = st.integers(0, SCHEMA.shard_count - 1)
ARRAYS = st.sampled_from(sorted(SCHEMA.arrays()))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 64
    path.unlink()  # as the writer does: never in place
    path.write_bytes(data)


def shorten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1])


DAMAGES = st.sampled_from([Path.unlink, flip, shorten, lambda path: path.write_bytes(b"")])


class StoreMachine(RuleBasedStateMachine):
    """The model: which shards are sound, and whether the store is finished (then `good` is of the finished one)."""

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.dest = self.root / "a.zarr"
        self.writer = None
        self.good: set[int] = set()
        self.finished = False

    def teardown(self):
        if hasattr(self, "root"):
            self.close()
            complete(self.dest, SCHEMA, VALUES)
            assert verify_store(self.dest) == []
            assert file_hashes(self.dest) == EXPECTED
            assert list((self.root / ".work").iterdir()) == []
            shutil.rmtree(self.root)

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def whole(self) -> bool:
        return len(self.good) == SCHEMA.shard_count

    @precondition(lambda self: self.writer is None)
    @rule()
    def open(self):
        self.writer = open_writer(self.dest, SCHEMA, VALUES)
        assert set(range(SCHEMA.shard_count)) - set(self.writer.missing()) == self.good
        self.finished = self.finished and self.whole()

    @precondition(lambda self: self.writer is not None)
    @rule()
    def interrupt(self):
        self.close()

    @precondition(lambda self: self.writer is not None and not self.finished)
    @rule(shard=SHARDS)
    def write(self, shard):
        self.writer.write(shard, shard_of(SCHEMA, VALUES, shard))
        self.good.add(shard)

    @precondition(lambda self: self.writer is not None and self.whole())
    @rule()
    def finish(self):
        self.writer.finish()
        self.finished = True

    @precondition(lambda self: self.writer is None and self.good)
    @rule(shard=SHARDS, name=ARRAYS, damage=DAMAGES)
    def damage(self, shard, name, damage):
        folder = self.dest if self.finished else self.root / ".work" / "a.zarr-f00d"
        path = folder / SCHEMA.arrays()[name].file(shard)
        if path.exists() and path.stat().st_size:
            damage(path)
            self.good.discard(shard)

    @invariant()
    def finished_stores_are_read_or_refused(self):
        if not hasattr(self, "root"):
            return
        assert self.dest.exists() == self.finished
        if self.finished:
            assert {d.shard for d in verify_store(self.dest)} == set(range(SCHEMA.shard_count)) - self.good
            if self.whole():
                np.testing.assert_array_equal(OverfitStore(self.dest).read("delta"), VALUES["delta"])


def _expected() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        complete(Path(folder) / "a.zarr", SCHEMA, VALUES)
        return file_hashes(Path(folder) / "a.zarr")


EXPECTED = _expected()

StoreMachine.TestCase.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
TestStoreMachine = StoreMachine.TestCase
