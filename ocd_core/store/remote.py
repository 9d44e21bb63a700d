"""Write a store directly to an fsspec URL, where each file appears complete but a folder cannot be renamed.

Shards go to their final keys at once. The group's zarr.json, without which no reader accepts the folder as a store,
goes last; until then a note names the fingerprint that the shards belong to, so that the work can resume later.

Object stores have no locks. Two processes with the same fingerprint write the same bytes; another fingerprint is
refused: nothing that this writer did not begin is ever replaced.
"""

import json
from dataclasses import dataclass

from ocd_core.errors import UserError
from ocd_core.files import filesystem, put_file
from ocd_core.store.metadata import ZARR_JSON
from ocd_core.store.schema import StoreSchema
from ocd_core.store.source import DamagedStoreError, Source, read_node
from ocd_core.store.verify import metadata_damage
from ocd_core.store.writer import Arrays, Content, Writer, encoded_shard

NOTE = "unfinished.json"


@dataclass(frozen=True)
class RemoteSink:
    """Writes whole shards below a URL."""

    url: str
    schema: StoreSchema

    def write(self, shard: int, arrays: Arrays) -> list[str]:
        """See `Sink.write`."""
        fs, root = filesystem(self.url)
        keys = []
        for key, pieces in encoded_shard(self.schema, shard, arrays):
            put_file(fs, f"{root}/{key}", b"".join(pieces))
            keys.append(key)
        return keys


class RemoteWriter(Writer):
    """Makes or completes a store at a URL.

    Args:
        url: where the store goes: it is empty, or holds what an earlier writer with this fingerprint left. The sound
            shards of a damaged store are kept.
        content: what the store will hold.

    Raises:
        UserError: the URL already holds something else.
    """

    def __init__(self, url: str, content: Content) -> None:
        super().__init__(content)
        self.url = url
        self._fs, self._root = filesystem(url)
        self._sink = RemoteSink(url, self.schema)
        self._open()

    def close(self) -> None:
        """Do nothing: there is no lock to release."""

    def write(self, shard: int, arrays: Arrays) -> None:
        """See `Writer.write`."""
        self._sink.write(shard, self._with_ids(shard, arrays))
        self._good.add(shard)

    def sink(self) -> RemoteSink:
        """See `Writer.sink`."""
        return self._sink

    def finish(self) -> None:
        """Complete the store; all shards must be written."""
        if self._in_place:
            return
        assert not self.missing(), f"shards {self.missing()} are not written"
        for key, data in self._arrays.items():
            put_file(self._fs, self._key(key), data)
        put_file(self._fs, self._key(ZARR_JSON), self._group)
        self._remove(NOTE)
        self._in_place = True

    def _open(self) -> None:
        self._fs.invalidate_cache()
        if self._fs.exists(self._key(ZARR_JSON)):
            if self._ours() != self.fingerprint:
                raise UserError(f"another store is at {self.url}; choose another URL or remove it")
            source = Source(self.url)
            damaged = self._look()
            whole = self._fs.cat_file(self._key(ZARR_JSON)) == self._group
            if whole and not damaged and not metadata_damage(source, read_node(source)):
                self._in_place = True
                self._remove(NOTE)
                return
            put_file(self._fs, self._key(NOTE), self._note())
            self._remove(ZARR_JSON)
        elif self._fs.exists(self._key(NOTE)):
            if self._fs.cat_file(self._key(NOTE)) != self._note():
                raise UserError(
                    f"an unfinished store with other params, code or data is at {self.url}; choose another URL or "
                    "remove it"
                )
            self._look()
        elif self._fs.exists(self._root) and self._fs.find(self._root):
            raise UserError(f"{self.url} is not empty; choose another URL or remove it")
        else:
            put_file(self._fs, self._key(NOTE), self._note())

    def _look(self) -> list[int]:
        """Find the sound shards; returns the others."""
        source = self._source()
        self._good = {shard for shard in range(self.schema.shard_count) if not self._damage(source, shard)}
        return self.missing()

    def _source(self) -> Source:
        return Source(self.url)

    def _ours(self) -> str | None:
        try:
            return str(read_node(Source(self.url))["attributes"]["fingerprint"])
        except DamagedStoreError:
            note = self._key(NOTE)
            return self.fingerprint if self._fs.exists(note) and self._fs.cat_file(note) == self._note() else None

    def _note(self) -> bytes:
        return json.dumps({"fingerprint": self.fingerprint}).encode()

    def _key(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _remove(self, key: str) -> None:
        if self._fs.exists(self._key(key)):
            self._fs.rm_file(self._key(key))
