"""Write a store into a folder on this machine, so that it can be killed at any time and resume later.

Everything happens in a work folder named after the store and a fingerprint of what determines its content. When all
shards are complete, the group's zarr.json is written and the work folder is renamed to the store's path: a store is
complete or absent.

Files are replaced, never written in place: they may be hard links into a cache.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError
from ocd_core.files import flush, flush_tree, locked, make_folder, remove, replace_file, sweep_partial
from ocd_core.store.metadata import ZARR_JSON
from ocd_core.store.schema import StoreSchema
from ocd_core.store.source import DamagedStoreError, Source, missing_files, read_node
from ocd_core.store.verify import Damage, metadata_damage
from ocd_core.store.writer import Arrays, Content, Writer, encoded_shard


@dataclass(frozen=True)
class LocalSink:
    """Writes whole shards into a work folder."""

    folder: Path
    schema: StoreSchema

    def write(self, shard: int, arrays: Arrays) -> list[str]:
        """See `Sink.write`."""
        keys = []
        for key, pieces in encoded_shard(self.schema, shard, arrays):
            _write(self.folder / key, pieces)
            keys.append(key)
        return keys


class LocalWriter(Writer):
    """Makes or completes a store in a folder on this machine.

    Args:
        dest: where the finished store goes, a local path.
        content: shards that an interrupted run with the same fingerprint finished are kept. So are the sound shards of
            a store at `dest` with that fingerprint: it is moved back to the work folder if it is damaged, else left
            alone. `finish` replaces a store with another fingerprint at `dest`.
        work_root: the folder of work folders, on the same file system as dest.

    It holds a lock until `close`.

    Raises:
        UserError: another process is writing this store, or something else is at its path.
    """

    def __init__(self, dest: Path | str, content: Content, work_root: Path) -> None:
        super().__init__(content)
        self.dest = Path(dest).absolute()
        root = Path(work_root).absolute()
        make_folder(root)
        make_folder(self.dest.parent)
        if root.stat().st_dev != self.dest.parent.stat().st_dev:
            raise UserError(
                f"{root} and {self.dest.parent} must be on the same file system, because a finished store is renamed"
            )
        self.work = root / f"{self.dest.name}-{self.fingerprint}"
        key = hashlib.sha256(os.fsencode(self.dest)).hexdigest()[:12]
        self._replaced = root / f"{self.dest.name}-{key}.replaced"
        self._sink = LocalSink(self.work, self.schema)
        # the disk works while the next shard is computed; a shard in the page cache counts as written
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flushes: list[Future[None]] = []
        with ExitStack() as stack:
            # one lock for the path, whatever the fingerprint, and one for the work folder, whatever the path
            stack.enter_context(locked(root / f"{self.dest.name}-{key}.lock", str(dest)))
            stack.enter_context(locked(root / f"{self.work.name}.lock", str(dest)))
            self._open()
            self._locks = stack.pop_all()

    def close(self) -> None:
        """Release the store to other processes; what is written stays for the next run."""
        self._flusher.shutdown(cancel_futures=True)
        self._locks.close()

    def write(self, shard: int, arrays: Arrays) -> None:
        """See `Writer.write`."""
        assert not self._in_place, "nothing is missing"
        self._good.discard(shard)
        (self.work / self.schema.arrays()["sample_id"].file(shard)).unlink(missing_ok=True)  # while replacing it
        keys = self._sink.write(shard, self._with_ids(shard, arrays))
        self._good.add(shard)
        self._flushes += [self._flusher.submit(_flush_ahead, self.work / key) for key in keys]

    def sink(self) -> LocalSink:
        """See `Writer.sink`."""
        assert not self._in_place, "nothing is missing"
        return self._sink

    def finish(self) -> None:
        """Complete the store and move it to its path, in one step.

        All shards must be written; those that neither this writer wrote nor `accept` checked are checked now.

        Raises:
            UserError: files have been removed, or the disk is full.
        """
        if self._in_place:
            return
        source = Source(self.work)
        self._good |= {shard for shard, damage in self._check(source, self.missing()).items() if not damage}
        assert not self.missing(), f"shards {self.missing()} are not written"
        if lost := missing_files(source.sizes(), self.schema):
            raise UserError(f"{self.work / lost[0]} has vanished since it was written; run the same command again")
        _write(self.work / ZARR_JSON, [self._group])
        for flushed in self._flushes:
            flushed.result()
        flush_tree(self.work)
        if os.path.lexists(self.dest):
            self.dest.rename(self._replaced)
        self.work.rename(self.dest)
        flush(self.dest.parent)
        self._clear_replaced()
        self._in_place = True

    def _open(self) -> None:
        """Find what already exists, at the store's path and in the work folder."""
        self._clear_replaced()
        if self.work.is_symlink():  # writing would change what it points to
            self.work.unlink()
        damaged = self._ours_at_dest()
        if damaged and self._intact_at_dest():
            self._in_place = True
            self._good = set(range(self.schema.shard_count))
            if self.work.exists():
                shutil.rmtree(self.work)
            return
        if damaged and not self.work.exists():
            self.dest.rename(self.work)
            damaged = False
        self.work.mkdir(exist_ok=True)
        sweep_partial(self.work)
        (self.work / ZARR_JSON).unlink(missing_ok=True)
        for key, data in self._arrays.items():
            (self.work / key).parent.mkdir(exist_ok=True)
            _write(self.work / key, [data])
        for shard, damage in self._check(Source(self.work), self.missing()).items():
            if damage:
                self._remove(shard)
            else:
                self._good.add(shard)
        if damaged:
            self._harvest()

    def _harvest(self) -> None:
        """Move the sound shards that the work folder lacks from the damaged store at `dest`, then remove that store."""
        for shard, damage in self._check(Source(self.dest), self.missing()).items():
            if not damage:
                for spec in self.schema.arrays().values():
                    (self.dest / spec.file(shard)).replace(self.work / spec.file(shard))
                self._good.add(shard)
        self.dest.rename(self._replaced)
        self._clear_replaced()

    def _ours_at_dest(self) -> bool:
        """Whether a store of this fingerprint is at `dest`."""
        if self.dest.is_dir() and not any(self.dest.iterdir()):
            self.dest.rmdir()
        if not self.dest.exists():  # a link to nothing is replaced
            return False
        try:
            node = read_node(Source(self.dest))
        except DamagedStoreError:
            return False
        except UserError as error:
            if (self.dest / "sample_id" / ZARR_JSON).is_file():  # for example, another schema version
                return False
            raise UserError(f"{self.dest} is in the way of a store: {error}; move it or delete it") from error
        return bool(node["attributes"]["fingerprint"] == self.fingerprint)

    def _intact_at_dest(self) -> bool:
        source = Source(self.dest)
        if source.read(ZARR_JSON) != self._group or metadata_damage(source, read_node(source)):
            return False
        return not any(self._check(source, list(range(self.schema.shard_count))).values())

    def _source(self) -> Source:
        return Source(self.work)

    def _check(self, source: Source, shards: list[int]) -> dict[int, list[Damage]]:
        """What is wrong with shards."""
        return {shard: self._damage(source, shard) for shard in shards}

    def _remove(self, shard: int) -> None:
        """Remove a shard's files, its sample_id first: without that file the shard does not count."""
        for spec in reversed(self.schema.arrays().values()):
            (self.work / spec.file(shard)).unlink(missing_ok=True)

    def _clear_replaced(self) -> None:
        remove(self._replaced)


def _write(path: Path, pieces: Iterable[Any]) -> None:
    """Write a file without flushing it: what is in the page cache counts as written until `finish`."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.writelines(pieces)

    replace_file(path, write, several_writers=True, flushed=False)


def _flush_ahead(path: Path) -> None:
    with suppress(FileNotFoundError):  # its shard is being written again; `finish` flushes the final files
        flush(path)
