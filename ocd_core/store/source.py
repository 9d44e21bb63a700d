"""The files of a store, in a folder or at an fsspec URL (s3://..., memory://...), read through one interface."""

import json
from pathlib import Path
from typing import Any

import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from ocd_core.errors import UserError
from ocd_core.files import filesystem, read_regular, storage_options
from ocd_core.store.metadata import ZARR_JSON, metadata_digest
from ocd_core.store.possible import refuse_impossible
from ocd_core.store.schema import FORMAT, SCHEMA_VERSION, StoreSchema

MOST_JSON_BYTES = 2**28  # of a zarr.json; those of a store with a million shards have a quarter of it


class DamagedStoreError(UserError):
    """An overfit store whose zarr.json cannot be trusted."""


class Source:
    """The files of one store.

    Args:
        location: a path, or a URL with a protocol that fsspec knows.

    Raises:
        UserError: the store does not exist.
    """

    def __init__(self, location: Path | str) -> None:
        self.location = str(location)
        self._fs, self._root = filesystem(self.location)
        if not self._fs.exists(self._root):
            raise UserError(f"there is no store at {self.location}")
        if self.local and not Path(self._root).is_dir():
            raise UserError(f"{self.location} is not an overfit store, which is a folder")
        self._folder = self._identity()

    @property
    def local(self) -> bool:
        """Whether the files are on this machine's file system."""
        return isinstance(self._fs, LocalFileSystem)

    def check_same(self) -> None:
        """To be called after reading: the files must be those of the store that was opened.

        A finished store is replaced by a rename, so what was read before and after it would not belong together. At a
        URL nothing says so.

        Raises:
            UserError: another folder has the store's path now, or none.
        """
        if self._identity() != self._folder:
            raise UserError(
                f"{self.location} was replaced or moved while it was read; wait until nothing writes it, and run the "
                "same command again"
            )

    def _identity(self) -> tuple[int, int] | None:
        """Of the folder, which keeps it when it is renamed; None if there is no folder."""
        try:
            status = Path(self._root).stat() if self.local else None
        except FileNotFoundError:
            return None
        return None if status is None else (status.st_dev, status.st_ino)

    def zarr_store(self) -> Store:
        """The same files as a zarr store, read only."""
        if self.local:
            return LocalStore(self._root, read_only=True)
        return FsspecStore.from_url(self.location, storage_options(self.location), read_only=True)

    def sizes(self) -> dict[str, int]:
        """The size of every file in bytes, by key."""
        prefix = self._root + "/"
        found = {name: info["size"] for name, info in self._fs.find(self._root, detail=True).items()}
        unknown = [name for name, size in found.items() if size is None]  # a listing over HTTP has none
        if unknown:
            found |= zip(unknown, self._fs.sizes(unknown), strict=True)
        keys = {name.removeprefix(prefix): size for name, size in found.items()}
        return {key: len(self.read(key)) if size is None else int(size) for key, size in keys.items()}

    def size(self, key: str) -> int:
        """A file's size in bytes.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        path = f"{self._root}/{key}"
        return Path(path).stat().st_size if self.local else int(self._fs.size(path))

    def read(self, key: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: the file does not exist.
            UserError: something else than a file has the name.
        """
        return self.read_part(key, 0, None)

    def read_part(self, key: str, start: int, end: int | None) -> bytes:
        """The bytes of a file from start to end, or to its end (then start is 0, or negative and counts from there).

        Raises:
            FileNotFoundError: the file does not exist.
            UserError: something else than a file has the name.
        """
        path = f"{self._root}/{key}"
        if self.local:
            return read_regular(Path(path), start, end)
        data: bytes = self._fs.cat_file(path, start=start or None, end=end)
        wanted = -start if start < 0 else None if end is None else end - start
        # a server without support for parts sends the whole file
        return data if wanted is None or len(data) <= wanted else data[start:end]


def read_node(source: Source) -> dict[str, Any]:
    """The group's zarr.json.

    Raises:
        UserError: it is not that of an overfit store, is incomplete, or has another schema version.
        DamagedStoreError: it has changed since it was written.
    """
    where = source.location
    try:
        if source.size(ZARR_JSON) > MOST_JSON_BYTES:
            raise ValueError("it is too large")
        node = json.loads(source.read(ZARR_JSON))
        attributes = node["attributes"]
        kind = attributes.get("format")
    except FileNotFoundError as error:
        raise UserError(f"{where} is not an overfit store: it has no {ZARR_JSON}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise DamagedStoreError(
            f"{where}: {ZARR_JSON} cannot be read; the store is damaged, or is not an overfit store"
        ) from error
    if kind != FORMAT:
        raise UserError(f"{where} is not an overfit store but some other zarr group")
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema version {version}, but this version of ocd_core reads {SCHEMA_VERSION}: make the "
            "store again (dvc repro), or read it with the version that wrote it"
        )
    if not node.get("consolidated_metadata"):
        raise UserError(f"{where} is incomplete: its writer has not finished; run the overfit stage again")
    if attributes.get("metadata_sha256") != metadata_digest(node):
        raise DamagedStoreError(f"{where}: {ZARR_JSON} was changed after it was written; the store is damaged")
    try:
        refuse_impossible(node)
    except ValueError as error:
        raise DamagedStoreError(f"{where}: {error}; the store is damaged or forged") from error
    return dict(node)


def schema_of(node: dict[str, Any]) -> StoreSchema:
    """The schema in a group's zarr.json that `read_node` has read."""
    return StoreSchema.from_json(node["attributes"]["schema"])


def missing_files(sizes: dict[str, int], schema: StoreSchema) -> list[str]:
    """The shards that are missing or empty: zarr would read them as fill values, without an error."""
    return [
        spec.file(shard)
        for spec in schema.arrays().values()
        for shard in range(schema.shard_count)
        if not sizes.get(spec.file(shard))
    ]


def open_arrays(source: Source, schema: StoreSchema) -> dict[str, zarr.Array[Any]]:
    """The arrays of a finished store."""
    # of format 3 alone: to find the format, zarr would open what has the names of the others' files, such as a pipe
    group = zarr.open_group(source.zarr_store(), mode="r", zarr_format=3, use_consolidated=True)
    found = {name: node for name in schema.arrays() if isinstance(node := group[name], zarr.Array)}
    assert len(found) == len(schema.arrays())
    return found
