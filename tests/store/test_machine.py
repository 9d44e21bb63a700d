"""Any order of writing, kills, damage, repair and export ends in the right store, and loses only what was damaged."""

import json
import shutil
import signal
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocd_core.errors import UserError
from ocd_core.files import remove
from ocd_core.report.store_export import export_store
from ocd_core.store import OverfitStore, verify_store
from ocd_core.verify import verify
from tests.support.dying import Killed, dying, truly
from tests.support.faulty_stores import spawn_clean
from tests.support.stores import ABOUT, complete, file_hashes, make_schema, make_values, open_writer, shard_of

SCHEMA = make_schema(rows=7, shard_rows=2, out_features=2, in_features=2, layer_input=(2,))
ALL = set(range(SCHEMA.shard_count))
WEIGHTS = b"the base network"
ATTRIBUTES = {**ABOUT, "base_sha256": sha256(WEIGHTS).hexdigest()}
# what two settings of the params make, by their fingerprints
VALUES = {"f00d": make_values(SCHEMA, seed=0), "beef": make_values(SCHEMA, seed=1)}

CONTENTS = st.sampled_from(sorted(VALUES))
SHARDS = st.integers(0, SCHEMA.shard_count - 1)
ARRAYS = st.sampled_from(sorted(SCHEMA.arrays()))
CHANGES = st.integers(1, 140)  # a whole run makes 130 changes to the file system


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 64
    path.unlink()  # as the writer does: never in place
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = st.sampled_from([Path.unlink, flip, shorten, empty])


def make(dest: Path, content: str) -> list[int]:
    """Write what is missing of a content and finish; the shards that were written."""
    return complete(dest, SCHEMA, VALUES[content], fingerprint=content, attributes=ATTRIBUTES)


def make_and_die(dest: Path, content: str, number: int) -> None:
    with dying(number, truly):
        make(dest, content)


class StoreMachine(RuleBasedStateMachine):
    """The model: what is at the store's path, and which shards of each content are sound, wherever they are.

    at: the content of the finished store; None if there is none. good: {content: its sound shards}. named: whether the
    zarr.json files of the finished store are as they were. sure: the contents of which `good` is exact; after a kill it
    is the least that must have been kept.
    """

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.dest, self.exported, self.base = (self.root / name for name in ("a.zarr", "exported", "base"))
        self.base.mkdir()
        (self.base / "model.safetensors").write_bytes(WEIGHTS)
        self.writer, self.open_content = None, ""
        self.at: str | None = None
        self.good: dict[str, set[int]] = {content: set() for content in VALUES}
        self.named = True
        self.sure = set(VALUES)

    def teardown(self):
        """Whatever has happened, running it all again makes both stores, and leaves nothing else."""
        if hasattr(self, "root"):
            self.close()
            remove(self.exported)
            for content in VALUES:
                make(self.dest, content)
                assert verify_store(self.dest) == []
                assert file_hashes(self.dest) == EXPECTED[content]
                export_store(self.dest, str(self.exported), self.base)
                assert verify(str(self.exported)) == []
                shutil.rmtree(self.exported)
            assert list((self.root / ".work").iterdir()) == []
            assert sorted(path.name for path in self.root.iterdir()) == [".work", "a.zarr", "base"]
            shutil.rmtree(self.root)

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def whole(self, content: str) -> bool:
        return self.good[content] == ALL

    def is_sound(self) -> bool:
        """Whether the finished store must be whole."""
        return self.at is not None and self.whole(self.at) and self.named and self.at in self.sure

    # --- writing

    @precondition(lambda self: self.writer is None)
    @rule(content=CONTENTS)
    def open(self, content):
        self.writer = open_writer(self.dest, SCHEMA, VALUES[content], fingerprint=content, attributes=ATTRIBUTES)
        self.open_content = content
        kept = ALL - set(self.writer.missing())
        if content in self.sure:
            assert kept == self.good[content]
        else:
            assert kept >= self.good[content]
        self.good[content] = kept
        self.sure.add(content)
        if self.at == content and not (self.named and self.whole(content)):  # moved to be mended
            self.at, self.named = None, True

    @precondition(lambda self: self.writer is not None)
    @rule()
    def interrupt(self):
        self.close()

    @precondition(lambda self: self.writer is not None and self.at != self.open_content)
    @rule(shard=SHARDS)
    def write(self, shard):
        self.writer.write(shard, shard_of(SCHEMA, VALUES[self.open_content], shard))
        self.good[self.open_content].add(shard)

    @precondition(lambda self: self.writer is not None and self.whole(self.open_content))
    @rule()
    def finish(self):
        self.writer.finish()
        self.moved_in(self.open_content)

    def moved_in(self, content):
        """The finished store of a content has taken the place of another content's, which is gone."""
        if self.at not in (None, content):
            self.good[self.at] = set()
            self.sure.add(self.at)
        self.at, self.named = content, True

    @precondition(lambda self: self.writer is None)
    @rule(content=CONTENTS)
    def run(self, content):
        written = set(make(self.dest, content))
        assert written <= ALL - self.good[content]
        assert written == ALL - self.good[content] or content not in self.sure
        self.good[content] = set(ALL)
        self.sure.add(content)
        self.moved_in(content)

    # --- kills

    @precondition(lambda self: self.writer is None)
    @rule(content=CONTENTS, number=CHANGES, lot=st.integers(0, 9))
    def kill_a_run(self, content, number, lot):
        if lot:
            with suppress(Killed), dying(number):
                make(self.dest, content)
        else:  # one time in ten truly, in a process, which takes longer
            process = spawn_clean(make_and_die, self.dest, content, number)
            process.join(60)
            assert process.exitcode in (0, -signal.SIGKILL)
        self.was_killed(content)

    def was_killed(self, content):
        """What must be so after a kill; the bytes at the store's path say whether the run had come to its end."""
        before, self.at = self.at, self.present()
        self.sure.discard(content)
        if before not in (content, self.at):  # it was replaced, or the kill fell between the two renames
            assert self.at in (None, content)
            if before is not None:
                self.good[before] = set()
        if self.at == content and file_hashes(self.dest) == EXPECTED[content]:
            self.good[content] = set(ALL)
            self.sure.add(content)
            self.named = True
        assert self.at in (None, before) or self.is_sound(), "something unfinished took the store's place"
        self.named = self.named or self.at is None

    def present(self) -> str | None:
        if not self.dest.exists():
            return None
        return json.loads((self.dest / "zarr.json").read_text())["attributes"]["fingerprint"]

    # --- damage

    @precondition(lambda self: self.writer is None)
    @rule(content=CONTENTS, shard=SHARDS, name=ARRAYS, damage=DAMAGES)
    def damage(self, content, shard, name, damage):
        folder = self.dest if self.at == content else self.root / ".work" / f"a.zarr-{content}"
        path = folder / SCHEMA.arrays()[name].file(shard)
        flipped_before = content in self.sure and shard not in self.good[content]  # twice is not at all
        if path.exists() and path.stat().st_size and not flipped_before:
            damage(path)
            self.good[content].discard(shard)

    @precondition(lambda self: self.writer is None and self.at is not None and self.named)
    @rule(name=ARRAYS, damage=DAMAGES)
    def damage_an_arrays_metadata(self, name, damage):
        damage(self.dest / name / "zarr.json")
        self.named = False

    # --- reading

    @invariant()
    def finished_stores_are_read_or_refused(self):
        if not hasattr(self, "root"):
            return
        assert self.dest.exists() == (self.at is not None)
        if self.at is None:
            return
        found = verify_store(self.dest)
        if self.at in self.sure:
            assert {d.shard for d in found if d.shard is not None} == ALL - self.good[self.at]
            assert any(d.shard is None for d in found) == (not self.named)
        if self.at in self.sure and not self.whole(self.at):
            with pytest.raises(UserError):
                self.read()
        if self.is_sound():
            assert found == []
            for name, values in self.read().items():
                np.testing.assert_array_equal(values, VALUES[self.at][name])

    def read(self):
        store = OverfitStore(self.dest)
        return {name: store.read(name) for name in SCHEMA.arrays()}

    @precondition(lambda self: self.is_sound())
    @rule()
    def read_by_xarray(self):
        with xr.open_zarr(self.dest) as read:
            for name in SCHEMA.arrays():
                np.testing.assert_array_equal(read[name].values, VALUES[self.at][name])

    # --- export

    @precondition(lambda self: self.at is not None)
    @rule()
    def export(self):
        if self.is_sound():
            export_store(self.dest, str(self.exported), self.base)
            assert file_hashes(self.exported / "a.zarr") == EXPECTED[self.at]
            assert verify(str(self.exported)) == []
            shutil.rmtree(self.exported)
        elif self.at in self.sure:
            with pytest.raises(UserError):
                export_store(self.dest, str(self.exported), self.base)
            assert not self.exported.exists()

    @precondition(lambda self: self.is_sound())
    @rule(number=CHANGES)
    def kill_an_export(self, number):
        with suppress(Killed), dying(number):
            export_store(self.dest, str(self.exported), self.base)
        if self.exported.exists():
            assert verify(str(self.exported)) == []
            shutil.rmtree(self.exported)

    @precondition(lambda self: self.is_sound())
    @rule(data=st.data(), damage=DAMAGES)
    def damage_an_export(self, data, damage):
        export_store(self.dest, str(self.exported), self.base)
        files = [path for path in sorted(self.exported.rglob("*")) if path.is_file() and path.name != "MANIFEST.json"]
        path = data.draw(st.sampled_from(files))
        damage(path)
        assert [str(path) in problem.what for problem in verify(str(self.exported))] == [True]
        shutil.rmtree(self.exported)


def _expected(content: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "a.zarr", content)
        return file_hashes(Path(folder) / "a.zarr")


EXPECTED = {content: _expected(content) for content in VALUES}

TRIED = settings(max_examples=40, stateful_step_count=15, deadline=None)
StoreMachine.TestCase.settings = TRIED
TestStoreMachine = StoreMachine.TestCase
