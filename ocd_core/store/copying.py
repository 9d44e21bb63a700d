"""Copy a sound store to another path or URL."""

from pathlib import Path

from ocd_core.errors import UserError
from ocd_core.files import filesystem, put_file
from ocd_core.store.metadata import ZARR_JSON
from ocd_core.store.schema import StoreSchema
from ocd_core.store.source import Source, read_node, schema_of
from ocd_core.store.verify import verify_store


def copy_store(src: Path | str, dest: str) -> None:
    """Copy a store to a path or fsspec URL, and check both ends.

    The group's zarr.json goes last, so an interrupted copy leaves no store behind. Other files in the folder, and what
    links in it point to, are not copied.

    Raises:
        UserError: the store is damaged or is replaced meanwhile, `dest` is not empty, or the copy is not complete.
    """
    _refuse_damaged(src, "it was not copied")
    source = Source(src)
    fs, root = filesystem(dest)
    if fs.exists(root) and fs.find(root):
        raise UserError(f"{dest} is not empty; choose another path or remove it")
    for key in own_files(schema_of(read_node(source))):
        try:
            put_file(fs, f"{root}/{key}", source.read(key))
        except FileNotFoundError:
            source.check_same()
            raise
    source.check_same()
    _refuse_damaged(dest, "the copy is not complete; remove it and copy again")


def own_files(schema: StoreSchema) -> list[str]:
    """The files of a store, that of the group last; nothing else that lies in its folder belongs to it."""
    specs = schema.arrays().values()
    shards = [spec.file(shard) for spec in specs for shard in range(schema.shard_count)]
    return [*shards, *(f"{spec.name}/{ZARR_JSON}" for spec in specs), ZARR_JSON]


def _refuse_damaged(location: Path | str, what: str) -> None:
    damage = verify_store(location)
    if damage:
        raise UserError(f"{location} is damaged ({damage[0]}; {len(damage)} in all): {what}")
